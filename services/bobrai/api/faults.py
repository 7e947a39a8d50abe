"""What pydantic found wrong, as faults in our words, each with its place.

In: the ValidationError of a model of ``schemas``. Out: what a 422 problem names.
"""

import re
from collections.abc import Mapping
from typing import Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from bobrai.api.problems import NO_ARRAY, NO_OBJECT, REQUIRED, UNKNOWN_FIELD, Fault, pointer, shorten


def faults_of(error: ValidationError, prefix: str = "") -> list[Fault]:
    """Return every fault that pydantic found, with its place under ``prefix``."""
    return [
        Fault(prefix + pointer(*fault["loc"]), _detail(fault))
        for fault in error.errors(include_url=False, include_context=False)
    ]


_DETAILS: Final[Mapping[str, str]] = {
    "missing": REQUIRED,
    "extra_forbidden": UNKNOWN_FIELD,
    "model_type": NO_OBJECT,
    "model_attributes_type": NO_OBJECT,
    "dict_type": NO_OBJECT,
    "list_type": NO_ARRAY,
}
_PYDANTIC_WORDS: Final = re.compile(r"^(Input|String|List|Dictionary) should")


def _detail(fault: ErrorDetails) -> str:
    return _DETAILS.get(fault["type"]) or shorten(_PYDANTIC_WORDS.sub("must", fault["msg"]))
