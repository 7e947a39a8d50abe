"""The schema's history: one Alembic revision per change, each a plain SQL file beside its Python shell."""
