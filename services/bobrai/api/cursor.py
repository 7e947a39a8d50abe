"""The cursor of a page: the id below which the next page begins, as text that promises nothing else."""

import base64

_MAX_ID = 2**63 - 1


def encode(task_id: int) -> str:
    """Return the cursor of the page that begins below this id."""
    return base64.urlsafe_b64encode(task_id.to_bytes(8)).decode("ascii").rstrip("=")


def decode(text: str) -> int:
    """Return the id in a cursor of eleven base64url characters, whoever made it; never more than any id."""
    return min(int.from_bytes(base64.urlsafe_b64decode(text + "=")), _MAX_ID)
