"""Pure rules: nothing here needs a server, a network or another process."""
