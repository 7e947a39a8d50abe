"""The pages under docs/ say what the code does."""

from pathlib import Path

import pytest

from bobrai.api import problems
from bobrai.domain import limits
from bobrai.runtime import http

DAY = 86_400
DOCS = Path(__file__).parents[3] / "docs"


def row(page: str, start: str) -> list[str]:
    lines = [line for line in (DOCS / page).read_text().splitlines() if line.startswith(f"| {start} |")]
    assert len(lines) == 1, start
    return [cell.strip() for cell in lines[0].strip("|").split("|")]


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("body of one submit, and each item of a batch", f"{limits.MAX_BODY_BYTES // 1024} KiB"),
        ("body of a batch", f"{limits.MAX_BATCH_BODY_BYTES // 1024 // 1024} MiB"),
        ("tasks in a batch", f"1 to {limits.MAX_BATCH_TASKS:,}"),
        ("payload that is a string", f"1 to {limits.MAX_PAYLOAD_STRING:,} characters"),
        ("nesting of arrays and objects in a payload", str(limits.MAX_JSON_DEPTH)),
        ("priority", f"0 to {limits.MAX_PRIORITY}, higher first"),
        ("`delay_seconds`, waits between attempts", f"0 to {limits.MAX_DELAY_SECONDS // DAY} days"),
        ("`timeout_seconds` of an attempt", f"0.001 s to {limits.MAX_TIMEOUT_SECONDS // DAY} days, default 300 s"),
        ("`max_attempts`", f"1 to {limits.MAX_ATTEMPTS}, default 3"),
        ("queues of an installation", str(limits.MAX_QUEUES)),
        ("`X-Request-ID`", f"1 to {limits.MAX_REQUEST_ID} printable characters"),
        ("`?wait=`", f"0 to {limits.MAX_WAIT_SECONDS} s"),
        ("tasks on a page of a list", f"1 to {limits.MAX_PAGE}, default 50; a page of large tasks ends early"),
        ("result of a handler", f"{limits.MAX_RESULT_BYTES // 1024} KiB of JSON"),
        ("progress", f"{limits.MAX_PROGRESS_BYTES // 1024} KiB of JSON"),
        ("attempts whose errors are kept", f"the last {limits.MAX_ERRORS_KEPT}"),
        ("`RetryLater` of a task", f"{limits.MAX_SNOOZES:,}, which are no attempts"),
    ],
)
def test_the_table_of_limits_has_the_values_of_the_code(what: str, value: str) -> None:
    assert row("limits.md", what)[1] == value


@pytest.mark.parametrize("kind", problems.KINDS)
def test_every_kind_of_problem_is_documented(kind: str) -> None:
    status, _, meaning = problems.KINDS[kind]
    assert row("api.md", f"`{kind}`")[1:] == [str(status), meaning]


@pytest.mark.parametrize("refusal", http.REFUSALS, ids=lambda refusal: refusal.kind)
def test_every_refusal_of_a_connection_is_documented(refusal: http.Refusal) -> None:
    assert row("api.md", f"`{refusal.kind}`")[1] == str(refusal.status)
