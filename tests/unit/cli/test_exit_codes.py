"""What a script can tell by the exit code of a command that asks the API."""

import pytest

from bobrai.api.problems import KINDS
from bobrai.cli import exit_codes
from bobrai.client import errors
from bobrai.client.models import Problem
from bobrai.client.problems import BY_KIND
from bobrai.domain.errors import ConfigurationError, DatabaseUnavailable
from tests.unit.cli.builders import task

BY_STATUS = {400: 2, 401: 4, 403: 4, 404: 3, 405: 2, 408: 2, 409: 1, 413: 2, 415: 2, 422: 2, 429: 5, 500: 5, 503: 5}
BY_STATUS[421] = 4  # under a name that the API is not served under


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_each_problem_of_the_api_has_a_code(kind: str) -> None:
    status = KINDS[kind][0]
    problem = Problem(type=f"urn:bobrai:problem:{kind}", status=status)
    wanted = 2 if kind == "not-found" else BY_STATUS[status]  # nothing is served at this path
    assert exit_codes.of(BY_KIND[kind](problem, None)) == wanted


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigurationError("x"), 2),
        (DatabaseUnavailable("x"), 2),  # of commands that run a server
        (errors.ConnectionFailed("x"), 5),
        (errors.BadAnswer("x", 502), 5),
        (errors.TaskFailed(task(status="failed")), 1),
        (errors.TaskCancelled(task(status="cancelled")), 1),
        (errors.WaitTimeout(task(), 1.0), 124),
    ],
    ids=lambda each: type(each).__name__,
)
def test_other_errors_have_theirs(error: errors.BobraiError, code: int) -> None:
    assert exit_codes.of(error) == code
