"""Messages: publish with confirms, consume, acknowledge. Knows no SQL; the only room that imports aio-pika.

`port.py` says what a broker promises, `rabbitmq.py` and `memory.py` keep it. Inside RabbitMQ's half: `link.py` keeps
the connection up, `queues.py` declares, `publisher.py` publishes, `subscription.py` consumes (through `consumer.py` and
`acks.py`), `dead_letters.py` puts aside what cannot be decoded, `definitions.py` prints what operators may set.
"""
