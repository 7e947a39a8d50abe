"""How a handler submits tasks with its own end, typed by their handlers: a payload that one does not take is an error.

In: a handler's function or the name of a type, payloads, options. Out: Submissions, which ``Context`` keeps until the
attempt is done. A handler that takes nothing but what its process has for it is submitted by its type's name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, Unpack, cast, overload

from bobrai.domain.submitting import Named, Options, Submission

if TYPE_CHECKING:
    from bobrai.handlers.batches import Item
    from bobrai.handlers.context import Context

K = ParamSpec("K")
P = TypeVar("P")


class FollowUps:
    """What ``Context`` and ``Item`` have of it."""

    __slots__ = ()

    def _ask(self, submissions: Iterable[Submission]) -> None:
        raise NotImplementedError

    @overload
    def submit(self, task: str, payload: Any = None, **options: Unpack[Options]) -> None: ...
    @overload
    def submit(
        self, task: Callable[Concatenate[list[Item[P]], K], Any], payload: P, **options: Unpack[Options]
    ) -> None: ...
    @overload
    def submit(
        self, task: Callable[Concatenate[Context, P, K], Any], payload: P, **options: Unpack[Options]
    ) -> None: ...
    @overload
    def submit(self, task: Callable[Concatenate[P, K], Any], payload: P, **options: Unpack[Options]) -> None: ...
    @overload
    def submit(self, task: Callable[[Context], Any], **options: Unpack[Options]) -> None: ...
    @overload
    def submit(self, task: Callable[[], Any], **options: Unpack[Options]) -> None: ...
    def submit(self, task: Named, payload: Any = None, **options: Unpack[Options]) -> None:
        """Submit a follow-up task in the commit that completes this one; any other end submits nothing.

        ``task`` is a handler or the name of a type, and the options are those of a submission. It has no id before
        that commit; this task is its ``parent_id``. Raises ValueError, or TypeError, for what the API would refuse, and
        when an attempt submits more than 1,000 tasks or 16 Mi characters of payloads.
        """
        self._ask([Submission(task, payload, **options)])

    @overload
    def submit_many(self, tasks: Iterable[Submission], /) -> None: ...
    @overload
    def submit_many(self, task: str, /, payloads: Iterable[Any], **options: Unpack[Options]) -> None: ...
    @overload
    def submit_many(
        self, task: Callable[Concatenate[list[Item[P]], K], Any], /, payloads: Iterable[P], **options: Unpack[Options]
    ) -> None: ...
    @overload
    def submit_many(
        self, task: Callable[Concatenate[Context, P, K], Any], /, payloads: Iterable[P], **options: Unpack[Options]
    ) -> None: ...
    @overload
    def submit_many(
        self, task: Callable[Concatenate[P, K], Any], /, payloads: Iterable[P], **options: Unpack[Options]
    ) -> None: ...
    def submit_many(self, task: Any, /, payloads: Any = None, **options: Unpack[Options]) -> None:
        """Do the same for a task of each payload, or for each Submission, all or none; raises as ``submit`` does."""
        if payloads is None:
            self._ask(cast("Iterable[Submission]", task))
        else:
            self._ask(Submission(task, payload, **options) for payload in payloads)
