"""Whose wishes the changes are that tests make past the API."""

from bobrai.domain.audit import Author

SOMEBODY = Author("a test", "somebody")
