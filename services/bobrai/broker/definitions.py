"""RabbitMQ's topology as data: what `bobrai rabbitmq-definitions` prints for an operator to import and change.

In: queue names and limits. Out: a definitions file for RabbitMQ 4.0 and later. The queues would be declared by bobrAI
itself; what only an operator can give them, the policies, is the point. Nothing in bobrAI depends on them.
"""

import re
from collections.abc import Iterable
from typing import Any, Final

from bobrai.broker.queues import ARGUMENTS, DEAD_LETTERS, PREFIX

MAX_LENGTH: Final = 100_000  # messages; the dispatcher keeps far fewer, so reaching it means that something is wrong
DELIVERY_LIMIT: Final = 20  # deliveries that ended with a lost consumer; attempts are counted in PostgreSQL, not here
CONSUMER_TIMEOUT_SECONDS: Final = 600  # workers ack within about a minute; this frees what a hung process holds


def definitions(
    queues: Iterable[str],
    *,
    vhost: str = "/",
    prefix: str = PREFIX,
    max_length: int = MAX_LENGTH,
    delivery_limit: int = DELIVERY_LIMIT,
    consumer_timeout_seconds: int = CONSUMER_TIMEOUT_SECONDS,
) -> dict[str, Any]:
    """Return the definitions of these queues, of the dead-letter queue, and of the policies for both.

    Importing them again changes what a policy says and leaves messages alone.
    """
    pattern = "^" + re.escape(prefix)
    dead_letters = prefix + DEAD_LETTERS
    names = [*sorted({prefix + queue for queue in queues} - {dead_letters}), dead_letters]
    everywhere = {"queue-leader-locator": "balanced"}
    return {
        "vhosts": [{"name": vhost}],
        "queues": [
            {"name": name, "vhost": vhost, "durable": True, "auto_delete": False, "arguments": dict(ARGUMENTS)}
            for name in names
        ],
        "policies": [
            _policy(
                "bobrai-queues",
                vhost,
                pattern,
                priority=10,
                definition={
                    **everywhere,
                    "max-length": max_length,
                    "overflow": "reject-publish",  # the refused hint stays in the outbox
                    "delivery-limit": delivery_limit,
                    "dead-letter-strategy": "at-least-once",  # it stays until the dead-letter queue has it
                    "dead-letter-exchange": "",
                    "dead-letter-routing-key": dead_letters,
                    "consumer-timeout": consumer_timeout_seconds * 1000,
                },
            ),
            _policy(
                "bobrai-dead-letters",
                vhost,
                "^" + re.escape(dead_letters) + "$",
                priority=20,  # of two policies that match a queue, only the one with the higher priority applies
                definition={**everywhere, "max-length": max_length, "overflow": "drop-head"},
            ),
        ],
    }


def _policy(name: str, vhost: str, pattern: str, *, priority: int, definition: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "vhost": vhost,
        "pattern": pattern,
        "apply-to": "quorum_queues",
        "priority": priority,
        "definition": definition,
    }
