"""Every limit on what a client or a handler may send, in one place; docs/limits.md explains them.

Sizes are in bytes of UTF-8 JSON unless the name says otherwise, times in seconds.
"""

from typing import Final

MAX_BODY_BYTES: Final = 256 * 1024  # one task, and each item of a batch
MAX_BATCH_BODY_BYTES: Final = 16 * 1024 * 1024
MAX_BATCH_TASKS: Final = 1000
MAX_PAYLOAD_STRING: Final = 10_000  # characters, of a payload that is a string
MAX_JSON_DEPTH: Final = 200  # nested arrays and objects; PostgreSQL and Python parse this without effort
MAX_RESULT_BYTES: Final = 256 * 1024
MAX_PROGRESS_BYTES: Final = 4 * 1024
MAX_ERROR_MESSAGE: Final = 2_000  # characters
MAX_TRACEBACK: Final = 8_000  # characters
MAX_ERRORS_KEPT: Final = 20  # attempts whose error is kept, newest last

MAX_PRIORITY: Final = 10
MAX_ATTEMPTS: Final = 100
MAX_LOSSES: Final = 1_000  # workers lost with a task: far more than machines that fail, so that one that ends them ends
MAX_SNOOZES: Final = 1_000  # RetryLater that cost a task no attempt: bounded, so that one that waits for ever ends
MAX_TIMEOUT_SECONDS: Final = 7 * 86_400
MIN_MEMORY_MIB: Final = 64  # of a process that runs handlers: the interpreter and the service take most of that
MAX_MEMORY_MIB: Final = 1024 * 1024
MAX_DELAY_SECONDS: Final = 366 * 86_400
MAX_IDEMPOTENCY_KEY: Final = 255  # characters
MAX_REQUEST_ID: Final = 128  # characters
MAX_WAIT_SECONDS: Final = 60
MAX_PAGE: Final = 500
MAX_BATCH_SIZE: Final = 1_000  # tasks in one call of a handler
MAX_BATCH_WAIT_SECONDS: Final = 60
MAX_CHILDREN: Final = 1_000  # tasks that one attempt submits
MAX_CHILDREN_CHARACTERS: Final = 16 * 1024 * 1024  # of their payloads together, as JSON

# Names of queues and types travel in URLs, metric labels and RabbitMQ queue names.
QUEUE_PATTERN: Final = r"^[a-z0-9][a-z0-9._-]{0,62}$"
QUEUE_RULE: Final = "1 to 63 of a-z, 0-9, '.', '_' and '-', of which the first is a letter or digit"
TYPE_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
MAX_QUEUES: Final = 200  # each is a quorum queue: a submit may not make them without bound
MAX_WARNINGS: Final = 20  # in the answer to one submit

MAX_CONCURRENCY: Final = 1_000_000  # tasks that a limit lets run at once
MAX_KEY_POINTER: Final = 200  # characters of a JSON Pointer into the payload
KEY_PATTERN: Final = r"^(?:/(?:[^~/\x00]|~[01])*)+$"
MAX_KEY_VALUE: Final = 128  # characters of a payload key's value; a longer one is told apart by its hash
MAX_WEIGHTS: Final = 1_000  # keys that have a weight of their own
MAX_WEIGHT: Final = 100

MAX_KEYS: Final = 1_000  # API keys that can be used: every API process holds them all in memory
MAX_KEY_NAME: Final = 100  # characters
KEY_NAME_PATTERN: Final = rf"^[A-Za-z0-9][A-Za-z0-9 ._@:/-]{{0,{MAX_KEY_NAME - 1}}}$"
KEY_NAME_RULE: Final = (
    f"1 to {MAX_KEY_NAME} letters, digits, spaces, '.', '_', '@', ':', '/' and '-', beginning with a letter or digit"
)
MAX_AUDIT_TEXT: Final = 500  # characters of an actor or a target that is asked for; none is longer
MAX_RATE: Final = 1_000_000  # requests of a rate's period, and of a burst
MAX_PATTERNS: Final = 50  # of queues, and of types, in one grant
MAX_PATTERN: Final = 100  # characters
MAX_KEY_LIFE_SECONDS: Final = 10 * 366 * 86_400
MAX_GRACE_SECONDS: Final = 30 * 86_400  # in which the secret before a rotation works as well
