"""One look at RabbitMQ before anything is started, for a developer who should not wait for what can never come.

In: the URLs. Out: nothing, or what there is to wait for. Processes of an installation do not look: there a refused
password may be right a moment later, so they try again for ever.
"""

import asyncio

from bobrai.broker.link import (
    CLOSE_TIMEOUT,
    MakeContext,
    broker_errors,
    connect,
    is_refusal,
    node,
    parse_urls,
    reason_of,
)
from bobrai.domain.errors import BrokerUnavailable, ConfigurationError


async def first_look(urls: str, connect_timeout: float, make_context: MakeContext | None = None) -> str:
    """Return why none of the nodes can be reached, each with its reason, and an empty string when one can be.

    ``connect_timeout`` is in seconds, for each node. Raises ConfigurationError when none takes the URL's user or
    virtual host, and for what is no URL.
    """
    reasons = []
    refused = False
    for url in parse_urls(urls):
        try:
            with broker_errors("connecting"):
                connection = await connect(url.update_query(name="bobrai"), connect_timeout, make_context)
        except BrokerUnavailable as error:
            cause = error.__cause__ or error
            refused = refused or is_refusal(cause)
            reasons.append(f"{node(url)} ({reason_of(cause, url)})")
            continue
        try:
            with broker_errors("closing the connection"):
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await connection.close()
        except BrokerUnavailable:
            pass  # it was there
        return ""
    if refused:
        raise ConfigurationError(f"RabbitMQ refuses what BOBRAI_RABBITMQ_URL says: {'; '.join(reasons)}")
    return "; ".join(reasons)
