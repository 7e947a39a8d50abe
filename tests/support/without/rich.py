"""Hides the package of this name from the product's processes: no image holds it, but tools of the tests bring it.

structlog loads it where it is, which takes a fifth of a process's start, and prints other tracebacks with it.
"""

raise ImportError("no image holds rich")
