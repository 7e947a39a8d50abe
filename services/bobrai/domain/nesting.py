"""How deep JSON nests, told from its text without a step of recursion."""

import re
from array import array
from itertools import accumulate
from typing import Final

_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
# A bracket as the step that it makes in depth, 255 being -1 in an array of signed bytes.
_STEPS: Final = bytes(1 if byte in b"[{" else 255 for byte in range(256))
_NO_BRACKETS: Final = bytes(byte for byte in range(256) if byte not in b"[]{}")


def is_deeper(text: bytes, depth: int) -> bool:
    """Return whether valid JSON has arrays and objects that nest deeper."""
    # So few brackets cannot nest too deep: the walk is for the rest.
    if text.count(b"[") + text.count(b"{") <= depth:
        return False
    steps = array("b", _STRING.sub(b"", text).translate(_STEPS, _NO_BRACKETS))
    return max(accumulate(steps)) > depth
