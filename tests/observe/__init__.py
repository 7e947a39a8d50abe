"""What operators look at, proven on a real Prometheus that scrapes a loaded installation.

`dashboards/` makes charts/bobrai/dashboards/*.json; `installation.py` is bobrAI under load with everything that is
scraped; `test_dashboards.py` asks every panel's query; `python -m tests.observe` is the same for a look by eye.
"""
