"""Errors mirror the API's problems, one class for each kind."""

import inspect
import json
import re
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import msgspec
import pytest

from bobrai.api import audit_view, key_view, views, worker_view
from bobrai.api.problems import KINDS
from bobrai.client import errors, models, problems
from bobrai.client.errors import ApiError, BadAnswer, ClientError
from bobrai.domain.errors import BobraiError
from bobrai.runtime.http import REFUSALS


def answered(kind: str, status: int, headers: dict[str, str] | None = None, **more: Any) -> ApiError | BadAnswer:
    said = {"title": "Title", "detail": "What is wrong", "status": status, **more}
    body = {"type": f"urn:bobrai:problem:{kind}", **said}
    return problems.of_answer(
        status, json.dumps(body).encode(), {"content-type": "application/problem+json", **(headers or {})}
    )


def test_each_kind_of_problem_has_a_class_and_no_other_has() -> None:
    statuses = {kind: status for kind, (status, _, _) in KINDS.items()} | {each.kind: each.status for each in REFUSALS}
    assert set(problems.BY_KIND) == set(statuses)
    for kind, status in statuses.items():
        error = answered(kind, status)
        assert isinstance(error, ApiError)
        assert (error.KIND, error.kind, error.status, error.detail) == (kind, kind, status, "What is wrong")


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    tree = set(re.findall(r"\b[A-Z][A-Za-z]+\b", re.sub(r"  +[a-z`].*", "", errors.__doc__ or "")))
    classes = {
        name
        for name, each in inspect.getmembers(errors, inspect.isclass)
        if issubclass(each, ClientError) and each.__module__ == errors.__name__
    }
    assert classes - tree == set()
    assert issubclass(ClientError, BobraiError)


def test_what_the_answer_says_is_on_the_error() -> None:
    error = answered("invalid", 422, request_id="r-1", errors=[{"pointer": "/payload/to", "detail": "is required"}])
    assert isinstance(error, errors.Invalid)
    assert [(each.pointer, each.detail) for each in error.errors] == [("/payload/to", "is required")]
    assert error.request_id == "r-1"
    assert str(error) == "What is wrong (422, invalid)\n  /payload/to: is required"
    once = answered("invalid", 422, detail="/queue: is wrong", errors=[{"pointer": "/queue", "detail": "is wrong"}])
    assert str(once) == "/queue: is wrong (422, invalid)"
    forbidden = answered("forbidden", 403, scope="tasks:submit")
    assert isinstance(forbidden, errors.Forbidden)
    assert forbidden.scope == "tasks:submit"


@pytest.mark.parametrize(
    ("status", "group"),
    [
        (400, errors.BadRequest), (403, errors.Refused), (404, errors.NotFound), (409, errors.Conflict),
        (418, errors.BadRequest), (429, errors.TooMany), (500, errors.ServerError), (503, errors.Unavailable),
    ],
)  # fmt: skip
def test_a_kind_of_a_newer_server_is_of_its_statuss_group(status: int, group: type[ApiError]) -> None:
    error = answered("made-next-year", status)
    assert type(error) is group
    assert error.kind == "made-next-year"


@pytest.mark.parametrize(
    ("content", "type_"), [(b"<html>\n 502 Bad Gateway", "text/html"), (b"{", "application/problem+json"), (b"", "")]
)
def test_what_the_api_does_not_say_is_a_bad_answer(content: bytes, type_: str) -> None:
    error = problems.of_answer(502, content, {"content-type": type_})
    assert isinstance(error, BadAnswer)
    assert error.status == 502


def test_retry_after_is_seconds_or_a_date() -> None:
    assert answered("queue-full", 429, {"retry-after": "7"}).retry_after == 7.0  # type: ignore[union-attr]
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 20 < (problems.retry_after({"retry-after": soon}) or 0.0) <= 30
    past = format_datetime(datetime.now(UTC) - timedelta(seconds=30), usegmt=True)
    assert problems.retry_after({"retry-after": past}) == 0.0
    assert problems.retry_after({"retry-after": "never"}) is None


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (models.Task, views.TaskView), (models.AttemptFailure, views.AttemptFailure), (models.Queue, views.QueueView),
        (models.Backlog, views.BacklogView), (models.TaskType, views.TypeView), (models.RetryPolicy, views.RetryView),
        (models.UniqueRule, views.UniqueView), (models.Key, key_view.KeyView), (models.NewKey, key_view.KeyWithSecret),
        (models.Change, audit_view.AuditEntry), (models.TaskPage, views.TaskPage), (models.Problem, views.ProblemView),
        (models.BatchCreated, views.BatchCreated), (models.Worker, worker_view.WorkerView),
    ],
)  # fmt: skip
def test_models_have_every_member_of_the_answers(ours: type[msgspec.Struct], theirs: type[msgspec.Struct]) -> None:
    def names(struct: type[msgspec.Struct]) -> set[str]:
        return {field.encode_name for field in msgspec.structs.fields(struct)}

    assert names(ours) == names(theirs)
