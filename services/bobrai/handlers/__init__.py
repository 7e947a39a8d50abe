"""What users write against: ``@task``, ``Context``, the registry of handlers, and the built-in ones.

In: functions that users declare. Out: Handler values, which ``worker`` runs and ``store`` hears of as task types. Knows
neither PostgreSQL nor RabbitMQ: the worker gives each attempt's Context what it needs of them.
"""
