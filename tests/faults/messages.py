"""Messages as a stranger on the broker sees them: taken out of a queue, doubled, shuffled, or made of garbage."""

import aio_pika


async def take_all(url: str, queue: str) -> list[bytes]:
    """Take every ready message out of a queue and return the bodies."""
    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel()
        source = await channel.get_queue(queue, ensure=False)
        bodies = []
        while (message := await source.get(fail=False)) is not None:
            bodies.append(message.body)
            await message.ack()
        return bodies


async def put(url: str, queue: str, bodies: list[bytes]) -> None:
    """Publish these bodies to a queue, in this order, and wait for the confirms."""
    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel()
        for body in bodies:
            await channel.default_exchange.publish(
                aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT), queue
            )
