"""What tests stand on: real servers, their databases and virtual hosts, processes of the product, and faults.

`tests/conftest.py` turns these into fixtures; nothing here knows what a task is.
Start reading at `servers.py` (which servers a run has) and `run_folder.py` (where they live and who stops them).
"""
