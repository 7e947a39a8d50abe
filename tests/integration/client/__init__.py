"""The client on a running service."""
