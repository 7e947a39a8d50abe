"""Where does the CPU time go? With --profile, py-spy samples the product's processes during every round.

In: named process ids. Out: per process a file of collapsed stacks under bench-results/ (for speedscope), and on
standard error the functions that took most, as shares of the samples. Figures of such a run are slower than real ones.
"""

import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "bench-results"
SAMPLES_PER_SECOND = 200
SHOWN = 40
_LINE_NUMBER = re.compile(r":\d+\)$")
# what is below everything, or the event loop itself, says nothing
_SCAFFOLD = re.compile(
    r"0x|\((loop|core|loop-watcher|queue|object|_asynciomodule)\.[ch]\)|click/|<frozen|bobrai/cli|asyncio/runners"
)


@contextmanager
def sampled(wanted: bool, title: str, pids: Mapping[str, int]) -> Iterator[None]:
    """Sample these processes for the length of the block; does nothing unless it is wanted."""
    if not wanted:
        yield
        return
    program = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if program is None:
        raise SystemExit("--profile needs py-spy: pip install py-spy")
    FOLDER.mkdir(exist_ok=True)
    recorders = []
    for name, pid in pids.items():
        output = FOLDER / f"{title.replace(' ', '-')}-{name}.stacks"
        command = [program, "record", "--pid", str(pid), "--format", "raw", "--rate", str(SAMPLES_PER_SECOND)]
        command += ["--native", "--output", str(output)]
        recorder = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        recorders.append((name, output, recorder))
    try:
        yield
    finally:
        for name, output, recorder in recorders:
            recorder.send_signal(signal.SIGINT)
            recorder.wait(30)
            print("\n".join(_summary(f"{title}, {name}", output)), file=sys.stderr, flush=True)


def _summary(title: str, output: Path) -> list[str]:
    own: Counter[str] = Counter()
    inclusive: Counter[str] = Counter()
    total = 0
    for line in output.read_text().splitlines() if output.exists() else []:
        stack, _, count = line.rpartition(" ")
        frames = [_LINE_NUMBER.sub(")", frame) for frame in stack.split(";")]
        total += int(count)
        own[frames[-1]] += int(count)
        for frame in set(frames):
            inclusive[frame] += int(count)
    lines = [f"-- {title}: {total} samples"]
    for kind, counts in (("own", own), ("inclusive", inclusive)):
        shown = [(frame, count) for frame, count in counts.most_common() if not _SCAFFOLD.search(frame)]
        lines += [f"{kind:>9} {count / total:6.1%}  {frame}" for frame, count in shown[:SHOWN]]
    return lines
