"""How fast the product is, and what a task costs: `python -m tests.bench [--peers] [--quick] [--only NAME,...]`.

Nothing here is a test. In: this machine, real servers with durable settings, the product's own commands. Out: one
table and a JSON file under bench-results/. Start reading at `__main__.py`; each `measure_*.py` answers one question;
clients run as processes of their own (`load.py`, `probe.py`), so that their cost is never the product's.
docs/performance.md explains the figures.
"""
