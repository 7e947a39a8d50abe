"""The marker of tests that watch a loaded installation through a real Prometheus."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line(
        "markers", "observe: asks a real Prometheus that scrapes a loaded installation; about a minute"
    )
