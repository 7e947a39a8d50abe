"""What ``bobrai.testing`` tells of handlers."""
