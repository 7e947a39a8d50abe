"""`make test-cluster`: a release on the cluster of the current context, from its install to its end, and a table.

In: the context, and what `make` passes on (API_IMAGE, WORKER_IMAGE, VALUES, KEEP). Out: exit code 0 when every case
passed or cannot be tried there, 1 when one failed, 2 when the run could not begin. All is in a namespace of its own.
"""

import argparse
import os
import signal
import sys
import time
from pathlib import Path

from tests.cluster.cases import CASES
from tests.cluster.installation import Installation, WillNotComeUp
from tests.cluster.kube import Refused, environment_flag
from tests.cluster.preflight import Options, plan
from tests.cluster.report import NotRun, Row, table

FIRST, *_, LAST = CASES


def parse(arguments: list[str]) -> tuple[Options, list[str]]:
    """Return what the user chose, and the cases to run."""
    parser = argparse.ArgumentParser(prog="make test-cluster", description=__doc__)
    parser.add_argument("--api-image", default=os.environ.get("API_IMAGE", ""), metavar="IMAGE")
    parser.add_argument("--worker-image", default=os.environ.get("WORKER_IMAGE", ""), metavar="IMAGE")
    parser.add_argument(
        "--values", default=os.environ.get("VALUES", ""), metavar="FILES", help="by commas; the later one wins"
    )
    parser.add_argument("--keep", action="store_true", default=environment_flag("KEEP"), help="keep the namespace")
    parser.add_argument("--only", default="", metavar="CASES", help=f"by commas: {', '.join(list(CASES)[1:-1])}")
    found = parser.parse_args(arguments)
    files = tuple(Path(each) for each in found.values.split(",") if each)
    if missing := [str(file) for file in files if not file.is_file()]:
        parser.error(f"no such file: {', '.join(missing)}")
    wanted = [each.strip() for each in found.only.split(",") if each.strip()] or list(CASES)
    if unknown := set(wanted) - CASES.keys():
        parser.error(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    return Options(found.api_image, found.worker_image, files, found.keep), wanted


def run(installation: Installation, wanted: list[str], rows: list[Row]) -> None:
    """Run the cases one after the other, a row for each; raises Refused when not even the install comes up."""
    for name, case in CASES.items():
        if name not in {FIRST, LAST, *wanted}:
            continue
        print(f"… {name}", flush=True)
        begun = time.monotonic()
        try:
            outcome, seen = "passed", case(installation)
        except NotRun as reason:
            outcome, seen = "not run", str(reason)
        except Exception as error:
            outcome, seen = "FAILED", str(error) or repr(error)
            if not isinstance(error, WillNotComeUp):
                print(installation.diagnosis(), flush=True)
            if name == FIRST:
                raise Refused(f"the release does not come up: {seen}") from error
        rows.append(Row(name, outcome, time.monotonic() - begun, seen))
        print("\n".join(rows[-1].lines()), flush=True)


def clean_up(installation: Installation) -> bool:
    """Remove what was made, or say how to; returns whether all is as it should be."""
    if not installation.is_made:
        return True
    if installation.plan.options.keep:
        print(f"kept: {installation.plan.namespace}. To look and to remove:\n{installation.commands}")
        return True
    print(f"removing {installation.plan.namespace} …", flush=True)
    try:
        installation.remove()
    except (Exception, KeyboardInterrupt) as error:
        print(
            f"could not be removed ({error or 'interrupted'}); do it by hand:\n{installation.commands}", file=sys.stderr
        )
        return False
    return True


def main(arguments: list[str]) -> int:
    """Return the exit code."""
    options, wanted = parse(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    rows: list[Row] = []
    installation, code = None, 0
    try:
        installation = Installation(plan(options))
        print("\n".join(installation.plan.about), flush=True)
        run(installation, wanted, rows)
        code = int(any(row.outcome == "FAILED" for row in rows))
    except Refused as reason:
        print(f"make test-cluster: {reason}", file=sys.stderr, flush=True)
        code = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        code = 130
    finally:
        if installation is not None and not clean_up(installation):
            code = code or 1
    if rows:
        print(f"\n{table(rows)}")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
