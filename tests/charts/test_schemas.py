"""Every object of every supported shape is one that the API server takes: no unknown field, no wrong type."""

import pytest

from tests.charts.helm import Manifest, Rendered
from tests.charts.schemas import custom_schemas, faults

KUBERNETES = ("1.30", "1.37")


@pytest.mark.parametrize("kubernetes", KUBERNETES)
def test_every_object_validates_strictly(rendered: Rendered, kubernetes: str) -> None:
    assert [fault for manifest in rendered for fault in faults(manifest, kubernetes)] == []


def _manifest(api_version: str, kind: str, spec: dict[str, object]) -> Manifest:
    return Manifest({"apiVersion": api_version, "kind": kind, "metadata": {"name": "x"}, "spec": spec}, "")


def test_a_field_that_kubernetes_does_not_know_is_a_fault() -> None:
    service = _manifest("v1", "Service", {"ports": [{"port": 80}], "sessionAfinity": "None"})
    assert any("sessionAfinity" in fault for fault in faults(service, "1.30"))


def test_a_field_of_the_wrong_type_is_a_fault() -> None:
    service = _manifest("v1", "Service", {"ports": [{"port": "eighty"}]})
    assert any("ports.0.port" in fault for fault in faults(service, "1.37"))


def test_an_object_without_a_schema_is_a_fault() -> None:
    assert faults(_manifest("example.com/v1", "Cluster", {}), "1.37")


@pytest.mark.parametrize("known", sorted(custom_schemas()))
def test_a_field_that_an_operator_does_not_know_is_a_fault(known: tuple[str, str]) -> None:
    manifest = _manifest(*known, {"fieldThatNobodyKnows": 1})
    assert any("fieldThatNobodyKnows" in fault for fault in faults(manifest, "1.37"))
