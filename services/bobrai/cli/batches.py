"""Tasks for every line of a file, submitted in requests of as many as one may have, each under a key of its own.

In: lines. Out: ids, in the order of the lines. A key is the given one with the number of the request's first line: the
same command again, after an interruption, sends the same requests under the same keys, and stores what was left.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from bobrai.cli import payloads, streams, tables
from bobrai.cli.asking import PATIENT, Api
from bobrai.cli.payloads import Chunk, Lines
from bobrai.domain import limits
from bobrai.domain.errors import ConfigurationError
from bobrai.domain.submitting import Submission

if TYPE_CHECKING:
    from bobrai.client import Client, TaskHandle

_SHOWN: Final = 20  # lines that are wrong
_PLACE: Final = re.compile(r"/tasks/([0-9]+)(.*)", re.DOTALL)


class Batch:
    """How the tasks of all lines are submitted."""

    def __init__(self, api: Api, type_: str, options: dict[str, Any], *, key: str | None, skips_bad: bool) -> None:
        self._api = api
        self._type = type_
        self._options = options
        self._key = key
        self._skips_bad = skips_bad
        self._warned: set[str] = set()

    def submit(self, file: str, *, as_text: bool) -> None:
        """Submit them, and print their ids; raises ConfigurationError for lines that are no payload."""
        with payloads.lines(file, as_text=as_text) as lines, self._api.client(deadline=PATIENT) as client:
            self._check(lines)
            self._send(client, lines)

    def _check(self, lines: Lines) -> None:
        wrong = 0
        for wrong, (number, why) in enumerate(lines.faults(), 1):
            if wrong <= _SHOWN:
                streams.say(f"bobrai: line {number} {tables.printable(why)}")
        if wrong > _SHOWN:
            streams.say(f"bobrai: and {wrong - _SHOWN} lines more")
        if wrong and not self._skips_bad:
            raise ConfigurationError(
                f"{wrong} lines are no payload, and nothing was submitted: correct them, or say --skip-bad"
            )

    def _send(self, client: "Client", lines: Lines) -> None:
        from bobrai.client import errors
        from bobrai.client.operations import new_key

        key = self._key or new_key()
        last = 0
        try:
            with tables.progress("submitting", lines.count()) as advance:
                for chunk in lines.chunks(limits.MAX_BATCH_TASKS):
                    if chunk.payloads:
                        self._print(self._stored(client, chunk, f"{key}:{chunk.first}"))
                    advance(chunk.last - chunk.first + 1)
                    last = chunk.last
        except BaseException as error:  # also a signal's
            if not isinstance(error, ConfigurationError) and (last or not isinstance(error, errors.BadRequest)):
                streams.say(
                    f"bobrai: the tasks of the first {last} lines are stored, and perhaps some more; the same command "
                    f"with --idempotency-key {key} stores what is left, and prints all ids"
                )
            raise

    def _stored(self, client: "Client", chunk: Chunk, key: str) -> "Sequence[TaskHandle[Any]]":
        """Submit one request's tasks; errors name lines in place of positions."""
        from bobrai.client import errors

        try:
            return client.submit_many(
                [Submission(self._type, payload, **self._options) for payload in chunk.payloads], idempotency_key=key
            )
        except errors.IdempotencyMismatch as error:
            raise ConfigurationError(
                f"lines {chunk.first} to {chunk.last}, or the options, were others in an earlier run with the key "
                f"{self._key!r}: take another one"
            ) from error
        except (errors.Invalid, errors.OutsideGrant) as error:
            places = "".join(f"\n  {_place(fault.pointer, chunk)}: {fault.detail}" for fault in error.errors)
            error.args = (f"{error.detail or error.title} ({error.status}, {error.kind}){places}",)
            raise

    def _print(self, handles: "Sequence[TaskHandle[Any]]") -> None:
        if not self._api.as_json:
            tables.put("\n".join(str(handle.id) for handle in handles))
        else:
            for handle in handles:
                self._api.line({"task_id": handle.id, "duplicate": handle.duplicate, "warnings": handle.warnings})
        for warning in dict.fromkeys(warning for handle in handles for warning in handle.warnings):
            if warning not in self._warned:
                self._warned.add(warning)
                streams.say(f"bobrai: {warning}")


def _place(pointer: str, chunk: Chunk) -> str:
    found = _PLACE.fullmatch(pointer)
    if found is None:
        return pointer or "(the body)"
    return f"line {chunk.numbers[int(found[1])]}{': ' + found[2] if found[2] else ''}"
