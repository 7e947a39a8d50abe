"""The Python client of the HTTP API: submit tasks, wait for them, operate queues, types and keys.

In: calls, from threads (``Client``) or coroutines (``AsyncClient``). Out: requests, repeated where that can do no harm,
and answers as typed values or errors. Each operation is written once, without I/O, in ``operations.py``;
``exchange.py`` decides what is repeated; ``client.py`` and ``async_client.py`` put both on connections.
"""

from bobrai.client.async_client import AsyncClient, AsyncTaskHandle
from bobrai.client.client import Client, TaskHandle
from bobrai.client.errors import (
    ApiError,
    BadAnswer,
    BadResult,
    ClientError,
    ConnectionFailed,
    ResultHidden,
    TaskCancelled,
    TaskFailed,
    WaitTimeout,
)
from bobrai.domain.submitting import Submission

__all__ = [
    "ApiError", "AsyncClient", "AsyncTaskHandle", "BadAnswer", "BadResult", "Client", "ClientError", "ConnectionFailed",
    "ResultHidden", "Submission", "TaskCancelled", "TaskFailed", "TaskHandle", "WaitTimeout",
]  # fmt: skip
