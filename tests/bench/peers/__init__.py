"""Other task queues, measured on the same servers in the same run: RabbitMQ quorum queues, results in PostgreSQL.

`measure.py` installs and runs them; each has an application (`*_app.py`) and a producer process
(`*_producer.py`) that run under the peer's own Python and import nothing of ours but this package.
"""
