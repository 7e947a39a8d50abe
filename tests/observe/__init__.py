"""What operators look at, proven on a real Prometheus that scrapes a loaded installation.

charts/dashboards makes the dashboards; `installation.py` is bobrAI under load with everything that is scraped;
`test_dashboards.py` asks every panel's query; `python -m tests.observe` is the same for a look by eye.
"""
