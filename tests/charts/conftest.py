"""Fixtures for the chart's tests: the ci shapes, each rendered once per process."""

from pathlib import Path

import pytest

from tests.charts.helm import CRD_APIS, Rendered, ci_shapes, render


@pytest.fixture(params=ci_shapes(), ids=lambda file: file.name.removesuffix("-values.yaml"))
def shape(request: pytest.FixtureRequest) -> Path:
    """One values file of a supported shape after the other."""
    return request.param


@pytest.fixture
def rendered(shape: Path) -> Rendered:
    """The objects of that shape, on a cluster that has every operator."""
    return render(files=[shape], api_versions=CRD_APIS)
