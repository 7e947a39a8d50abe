"""Faults that must not hurt: each test breaks something real and then checks that every accepted task ended, once."""
