"""Promises that every adapter of a port must keep: one suite, run on each of them."""
