"""Logs, metrics and, later, traces: declares every name once, prints and counts, and decides nothing.

The only room that imports structlog and prometheus_client. Every other room says
``from bobrai.telemetry import logs, metrics``, but for ``handlers`` and the command line, which must work where neither
is installed: ``events``, ``logger``, ``masking`` and ``rendering`` do.
"""
