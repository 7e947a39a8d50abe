"""The client's rules, without a server."""
