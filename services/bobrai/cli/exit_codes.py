"""The exit codes of commands that ask the API: what a script can tell apart.

In: an error. Out: a number. docs/cli.md and the help of the commands show the table.
"""

import sys
from typing import Final

from bobrai.domain.errors import BobraiError

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
NOT_FOUND: Final = 3
REFUSED: Final = 4
UNAVAILABLE: Final = 5
TIMEOUT: Final = 124
PIPE_CLOSED: Final = 141  # as of a program that SIGPIPE ends

MEANINGS: Final = {
    "0": "done",
    "1": "a task failed or was cancelled, or its status forbids it",
    "2": "wrong arguments, configuration or values",
    "3": "there is no such task, queue or type",
    "4": "another credential is needed",
    "5": "no answer, or the API asks to come back later",
    "124": "the time to wait is over",
    "130": "Ctrl-C",
}


def of(error: BobraiError) -> int:
    """Return the exit code of a command that ends with this error."""
    errors = sys.modules.get("bobrai.client.errors")  # who raises one of them has loaded it; a server never does
    if errors is None or not isinstance(error, errors.ClientError):
        return USAGE
    if isinstance(error, errors.WaitTimeout):
        return TIMEOUT
    if isinstance(error, errors.TaskFailed | errors.TaskCancelled | errors.Conflict):
        return FAILED
    if isinstance(error, errors.PathNotFound):
        return USAGE  # the URL is not the API's
    if isinstance(error, errors.NotFound):
        return NOT_FOUND
    if isinstance(error, errors.Refused):
        return REFUSED
    return USAGE if isinstance(error, errors.BadRequest) else UNAVAILABLE
