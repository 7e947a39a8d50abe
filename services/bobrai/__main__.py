"""Run the command line as ``python -m bobrai``."""

from bobrai.cli import main

main()
