"""What the chart renders for each mode, kept to be read in a diff: `make golden` writes the files, a test compares.

Existing Secrets are named, so that nothing is generated; objects are sorted, so that Helm's own order does not matter.
"""

from pathlib import Path

import yaml

from tests.charts.helm import CI, CRD_APIS, render

FOLDER = Path(__file__).with_name("golden")
MODES = {"bundled": "existing-secrets", "external": "external", "operators": "operators"}
EXISTING = {
    "secrets": {
        "apiKeys": {"existingSecret": "bobrai-keys"},
        "externalMetricsTls": {"existingSecret": "bobrai-metrics-tls", "caBundle": "LS0t"},
    }
}


def golden(mode: str) -> str:
    """Return the objects of this mode as YAML, sorted by kind and name."""
    rendered = render(EXISTING, files=[CI / f"{MODES[mode]}-values.yaml"], api_versions=CRD_APIS)
    objects = [item.body for item in sorted(rendered, key=lambda item: (item.kind, item.name))]
    return yaml.dump_all(objects, Dumper=_Dumper, sort_keys=False, width=120)


class _Dumper(yaml.SafeDumper):
    """YAML with readable files in ConfigMaps."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, data: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", data, style="|" if "\n" in data else None)


_Dumper.add_representer(str, _text)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for wanted in MODES:
        (FOLDER / f"{wanted}.yaml").write_text(golden(wanted))
