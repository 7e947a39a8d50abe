"""What both clients, and the handles of both, are made of.

In: what the caller has said. Out: where the API is, and which task a handle is of.
"""

import os
import threading
from collections.abc import Sequence
from typing import Any

from bobrai.client import connecting
from bobrai.client.exchange import Patience
from bobrai.client.operations import Accepted


class ClientBase:
    """Where a client leads.

    ``url`` and ``api_key`` are BOBRAI_URL and BOBRAI_API_KEY when left out. ``timeout`` bounds each step of one try,
    ``deadline`` all tries of a call together, in seconds. ``ca`` is a file of the authorities that vouch for an https
    URL, ``certificate`` the files of a certificate and its key to show. Raises ConfigurationError.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = 10.0,
        deadline: float = 60.0,
        ca: str | os.PathLike[str] | None = None,
        certificate: tuple[str, str] | None = None,
        max_connections: int = 100,
    ) -> None:
        self._target = connecting.target(
            url, api_key, ca=ca, certificate=certificate, patience=Patience(timeout, deadline),
            max_connections=max_connections,
        )  # fmt: skip
        self._pool: Any = None
        self._owner: tuple[Any, ...] = ()
        self._left: list[Any] = []  # to the parent, who closes them: never touched here
        self._closed = False
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        """Show where it leads, without the key."""
        return f"{type(self).__name__}({self._target!r})"

    @property
    def url(self) -> str:
        """The URL of the API."""
        return self._target.url


class HandleBase:
    """A task by its id: nothing is asked before a method is called.

    ``duplicate``: it was there before, and none was made. ``warnings`` say why it may have to wait.
    """

    __slots__ = ("_client", "_result", "duplicate", "id", "warnings")

    def __init__(self, client: Any, task_id: int, accepted: Accepted | None = None) -> None:
        self.id = task_id
        self.duplicate = accepted is not None and accepted.is_duplicate
        self.warnings: Sequence[str] = () if accepted is None else accepted.warnings
        self._client = client
        self._result = Any if accepted is None else accepted.result

    def __repr__(self) -> str:
        """Show which task it is."""
        return f"{type(self).__name__}(id={self.id})"
