"""Logs, metrics and, later, traces: declares every name once, prints and counts, and decides nothing.

The only room that imports structlog, prometheus_client and opentelemetry. Every other room says
``from bobrai.telemetry import logs, metrics``.
"""
