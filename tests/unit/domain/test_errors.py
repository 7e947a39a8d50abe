"""Errors that one room raises and another catches stay what they are on their way, also through other processes."""

import copy
import inspect
import pickle
from collections.abc import Callable

import pytest

from bobrai.domain import errors
from bobrai.domain.access import Standing


class Busy(errors.RetryLater):
    def __init__(self, host: str) -> None:
        super().__init__(7, f"{host} is busy")
        self.host = host


ARGUMENTS = {
    errors.CredentialRefused: ("expired", "This key has expired"),
    errors.RateLimited: ("too often", Standing("key", 200, 2, 0, 2, 1)),
    errors.TooManyWaiting: (10, 5),
    errors.QueueFull: ("media", 5, 3),
    errors.TaskNotFound: (7,),
    errors.TransitionRefused: (7, "done", "cancelled"),
    errors.DatabaseUnavailable: ("away", "57P03"),
    errors.SchemaMissing: ("away", "42P01"),
    errors.RetryLater: (7, "busy"),
    Busy: ("example.org",),
}
KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.BobraiError)]


@pytest.mark.parametrize("kind", [*KINDS, Busy])
@pytest.mark.parametrize("copied", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_every_error_can_be_copied_and_sent(
    kind: type[errors.BobraiError], copied: Callable[[errors.BobraiError], errors.BobraiError]
) -> None:
    error = kind(*ARGUMENTS.get(kind, ("why",)))
    error.add_note("seen")
    other = copied(error)
    assert type(other) is kind
    assert (str(other), other.args, vars(other)) == (str(error), error.args, vars(error))
