"""Fixtures for the chart's tests: the ci shapes, each rendered once per process."""

from pathlib import Path

import pytest

from tests.charts.helm import CRD_APIS, Rendered, ci_shapes, render


def _name(file: Path) -> str:
    return file.name.removesuffix("-values.yaml")


# a group each: its tests share what one process of the run has rendered
@pytest.fixture(params=[pytest.param(file, id=_name(file), marks=pytest.mark.xdist_group(f"shape-{_name(file)}"))
                        for file in ci_shapes()])  # fmt: skip
def shape(request: pytest.FixtureRequest) -> Path:
    """One values file of a supported shape after the other."""
    return request.param


@pytest.fixture
def rendered(shape: Path) -> Rendered:
    """The objects of that shape, on a cluster that has every operator."""
    return render(files=[shape], api_versions=CRD_APIS)
