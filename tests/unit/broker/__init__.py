"""The broker room's parts that need no broker."""
