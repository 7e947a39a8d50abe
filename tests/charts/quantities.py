"""Numbers as Kubernetes writes them."""

import re

UNITS = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def quantity(text: str | float) -> float:
    """Return the number that a quantity such as 500m or 2Gi means."""
    found = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(text))
    if found is None or found[2] not in UNITS:
        raise ValueError(f"not a quantity: {text}")
    return float(found[1]) * UNITS[found[2]]
