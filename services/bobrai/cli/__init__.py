"""The command line: signals first, then everything else, then a certain end.

In: arguments and ``BOBRAI_*`` variables. Out: a running process whose exit code says how it ended: 0 after a drain,
2 for a wrong setting, with one clear line on standard error. Importing this room imports nothing heavy.
"""

import gc
import sys
from typing import NoReturn

from bobrai.cli import streams
from bobrai.runtime import first_process, forks, signals

_SERVING = frozenset({"api", "dispatcher", "worker", "external-metrics", "dev", "isolated", "fork-server"})


def main() -> NoReturn:
    """Run the command line and end the process."""
    first_process.split_off(lambda: signals.install(serves=not _SERVING.isdisjoint(sys.argv[1:2])))
    forks.install()
    streams.stand_in()
    signals.leave(_run())


def _run() -> int:
    # What is imported stays; to walk it again and again is a seventh of a start. `process` lets the collector work.
    gc.disable()
    try:
        from bobrai.cli import commands

        return commands.run()
    except SystemExit as error:  # of a signal, while the commands are imported
        return error.code if isinstance(error.code, int) else 1
    except BaseException as error:  # noqa: BLE001 - printed as Python does; no secret is known yet
        sys.excepthook(type(error), error, error.__traceback__)
        return 1
