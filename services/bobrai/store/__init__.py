"""PostgreSQL, the truth: the only room that imports asyncpg.

In: domain values. Out: rows, and domain values again. ``sql/*.sql`` holds every statement by name, ``pool`` runs them
and turns driver errors into ``domain.errors``; the other modules are one subject each. ``migrations`` is the schema.
"""
