"""However others set up logging and structlog: our lines are ours, theirs are as they wish, each is printed once."""

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest

from bobrai.telemetry import foreign

pytestmark = pytest.mark.xdist_group("foreign")  # one process makes what all of them look at

# One process, forked for each setup: most of the time would be spent on imports.
PROGRAM = """
import asyncio, json, logging, logging.config, logging.handlers, os, queue, sys, structlog
from bobrai.telemetry import logs, metrics
early = logs.get_logger("bobrai.early")

def one(setup):
    logs.configure(level="info", format="json", process="test")
    logs.carry(lambda: {"task_id": 7})
    assert not structlog.is_configured()
    mine = logging.getLogger("mine")
    exec(setup, dict(globals(), mine=mine))
    structlog.get_logger().info("by structlog", where="here")
    mine.warning("by logging")
    early.info("by bobrai")
    early.bind(a=1).info("by bobrai, bound")
    logs.set_level("debug")
    early.debug("by bobrai, finely")
    assert metrics.LOG_LINES_LOST._value.get() == 0

for number, setup in enumerate(json.load(sys.stdin)):
    if (child := os.fork()) == 0:
        os.dup2(os.open(f"{sys.argv[1]}/{number}", os.O_CREAT | os.O_WRONLY), 1)
        one(setup)
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0, setup
"""

TO_LOGGING = "structlog.configure(logger_factory=structlog.stdlib.LoggerFactory()"
TO_STDOUT = "h = logging.StreamHandler(sys.stdout)\n"
SETUPS = {
    # what a handlers' module does: how many lines of structlog's and of logging's come through us
    "": (1, 1),
    f"{TO_LOGGING})": (1, 1),
    f"{TO_LOGGING}, wrapper_class=structlog.stdlib.BoundLogger, cache_logger_on_first_use=True, processors=["
    "structlog.stdlib.filter_by_level, structlog.stdlib.render_to_log_kwargs])": (1, 1),
    "structlog.configure(processors=[structlog.processors.JSONRenderer()])": (0, 1),
    "structlog.configure_once(processors=[structlog.processors.JSONRenderer()])": (0, 1),
    "structlog.configure(processors=[structlog.processors.JSONRenderer(serializer=lambda *a, **k: b'{}')], "
    "logger_factory=structlog.BytesLoggerFactory())": (0, 1),
    "def drop(*_): raise structlog.DropEvent\nstructlog.configure(processors=[drop])": (0, 1),
    "structlog.reset_defaults()": (0, 1),
    "structlog.contextvars.bind_contextvars(c=1)\nstructlog.contextvars.clear_contextvars()": (1, 1),
    "logging.basicConfig(level='DEBUG')": (1, 1),
    "logging.basicConfig(force=True, stream=sys.stdout)": (1, 0),
    f"{TO_STDOUT}mine.addHandler(h)": (1, 0),
    f"{TO_STDOUT}logging.getLogger().addHandler(h)": (1, 0),
    f"{TO_STDOUT}mine.addHandler(logging.handlers.MemoryHandler(1, target=h))": (1, 0),
    f"{TO_STDOUT}q = logging.handlers.QueueHandler(queue.SimpleQueue())\n"
    "q.listener = logging.handlers.QueueListener(q.queue, h)\nmine.addHandler(q)": (1, 0),
    "mine.addHandler(logging.handlers.QueueHandler(queue.SimpleQueue()))": (1, 1),
    "mine.addHandler(logging.FileHandler('/dev/stdout'))": (1, 0),
    "mine.addHandler(logging.StreamHandler(os.fdopen(os.dup(1), 'w')))": (1, 0),
    f"{TO_STDOUT}h.setLevel('ERROR')\nmine.addHandler(h)": (1, 1),
    f"{TO_STDOUT}h.addFilter(lambda record: False)\nmine.addHandler(h)": (1, 1),
    f"{TO_STDOUT}h.addFilter(lambda record: False)\nmine.addHandler(h)\n"
    "mine.addHandler(logging.StreamHandler(sys.stdout))": (1, 0),
    "class Once(logging.Filter):\n    seen = set()\n    def filter(self, record):\n"
    "        return record.msg not in self.seen and not self.seen.add(record.msg)\n"
    "import io\nclass Out(io.StringIO):\n    def fileno(self): return 1\n"
    "out = Out()\nh = logging.StreamHandler(out)\nh.addFilter(Once())\nlogging.getLogger().addHandler(h)\n"
    "mine.warning('once')\nmine.warning('once')\nassert out.getvalue() == 'once\\n', out.getvalue()": (1, 0),
    f"{TO_STDOUT}h.addFilter(lambda record: 1 / 0)\nlogging.getLogger().addHandler(h)\nmine.propagate = False\n"
    "mine.addHandler(logging.getLogger().handlers[0])": (1, 1),
    # as dictConfig does, which takes the locks of handlers while it has that of the whole module
    "import contextvars, threading\nmine.warning('before')\nsay = contextvars.copy_context().run\n"
    "beside = threading.Thread(target=say, args=(mine.warning, 'beside'), daemon=True)\n"
    "with logging._lock:\n    beside.start()\n    beside.join(10)\n    assert not beside.is_alive()": (1, 1),
    "bound = structlog.get_logger().bind(a=1)\nwith structlog.testing.capture_logs() as seen:\n"
    "    bound.info('%s', 1)\nassert seen[0]['event'] == '1', seen": (1, 1),
    "mine.addHandler(logging.FileHandler('/dev/null'))": (1, 1),
    "logging.disable(logging.CRITICAL)": (1, 0),
    "logging.config.dictConfig({'version': 1})": (1, 0),
    "logging.config.dictConfig({'version': 1, 'root': {'level': 'ERROR'}, 'disable_existing_loggers': False})": (1, 0),
    "logging.shutdown()": (1, 1),
    "class Out:\n    def write(self, text): mine.warning(text)\n    def flush(self): pass\nsys.stdout = Out()": (1, 1),
    "class Loud:\n    def __str__(self): mine.warning('%s', self); early.info('x', v=self); return 'loud'\n"
    "logging.getLogger('loud').error('%s', Loud())\nlost = metrics.LOG_LINES_LOST\n"
    "assert lost._value.get() < 20\nlost.reset()": (1, 1),
}  # fmt: skip
MADE_BY_HAND = (
    "h = logging.getLogger().handlers[0]\n"
    "h.handle(logging.makeLogRecord({}))\n"
    "h.handle(logging.makeLogRecord({'levelno': 30, 'name': 7, 'msg': None, 'args': 5, 'exc_info': 'x'}))\n"
    "mine.warning('%d', 'x')\nmine.warning('\\udcff', exc_info=ValueError(chr(0xdcff)))"
)
BY_STRUCTLOG = """
class Silent:
    def __str__(self): raise SystemExit("no")

async def later(log):
    await log.ainfo("%s and %s", 1, 2)
    await log.awarning("%d later", "x")
    await log.alog(40, "%d later", "x")
    try:
        raise ValueError("later")
    except ValueError:
        await log.aexception("%d later", "x")

log = structlog.get_logger()
for each in (log, log.bind(a=1), log.new(b=1), log.bind(a=1).unbind("a"), __import__("copy").copy(log.bind(a=1))):
    each.warning("%d items", "x")
    each.info("%s of %s", 3, "4")
log.error("%s", Silent())
log.log(30, "%d", "x")
log.log(20, "%(a)s", {"a": 5})
try:
    raise ValueError("now")
except ValueError:
    log.exception("%d", "x")
asyncio.run(later(log))
assert asyncio.iscoroutinefunction(log.ainfo) and not asyncio.iscoroutinefunction(log.info)
"""
CONFIGURED = """
structlog.configure(processors=[
    structlog.processors.CallsiteParameterAdder([structlog.processors.CallsiteParameter.FUNC_NAME]),
    structlog.processors.JSONRenderer(),
])
def caller(): structlog.get_logger().info("%s of %s", 3, "4")
caller()
"""
MORE = [MADE_BY_HAND, BY_STRUCTLOG, CONFIGURED]
Printed: TypeAlias = Callable[[str], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> Printed:
    """Gives the lines of JSON that were printed after a setup."""
    folder = tmp_path_factory.mktemp("foreign")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, str(folder)],
        input=json.dumps([*SETUPS, *MORE]), capture_output=True, text=True, timeout=40,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr

    def of(setup: str) -> list[dict[str, Any]]:
        text = (folder / str([*SETUPS, *MORE].index(setup))).read_text()
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    return of


@pytest.mark.parametrize("setup", SETUPS)
def test_a_users_setup_changes_the_users_lines_alone(setup: str, printed: Printed) -> None:
    from_structlog, from_logging = SETUPS[setup]
    lines = printed(setup)
    ours = [line for line in lines if line.get("module") == "early" and line["event"].startswith("by bobrai")]
    assert [line["event"] for line in ours] == ["by bobrai", "by bobrai, bound", "by bobrai, finely"]
    through_us = [line for line in lines if "process" in line]
    for event, expected in (("by structlog", from_structlog), ("by logging", from_logging)):
        assert len([line for line in through_us if line["event"] == event]) == expected, (event, lines)
    assert all(line["task_id"] == 7 for line in through_us)
    assert "c" not in ours[0]


def test_what_the_libraries_say_that_we_live_from_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def no(_record: object) -> bool:
        raise LookupError("somebody's filter")

    for name in ("aio_pika.connection", "aiormq.connection", "asyncio"):
        logger = logging.getLogger(name)
        monkeypatch.setattr(logger, "filters", [no])
        foreign.guard_libraries()
        logger.critical("said")


def test_what_is_said_by_a_logger_before_logs_are_set_up_is_readable() -> None:
    program = "from bobrai.telemetry import logs; logs.get_logger('bobrai.x').warning('early', a={1: object()})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20)
    assert (done.returncode, "early" in done.stdout, done.stderr) == (0, True, "")


def test_a_record_of_any_make_is_printed(printed: Printed) -> None:
    lines = printed(MADE_BY_HAND)
    assert sum(line["event"] == "a log record cannot be read" for line in lines) == 1
    assert [line["event"] for line in lines if line.get("module") == "7"] == ["None"]
    assert [line["arguments"] for line in lines if line["event"] == "%d"] == [["x"]]
    assert [line["event"] for line in lines if "exception" in line] == ["\\udcff"]


def test_what_an_unconfigured_structlog_cannot_format_is_printed_with_its_arguments(printed: Printed) -> None:
    lines = printed(BY_STRUCTLOG)
    unfit = [(line["level"], line["event"], line["arguments"]) for line in lines if "arguments" in line]
    assert unfit == [
        *[("warning", "%d items", ["x"])] * 5,
        ("error", "%s", ["<Silent that cannot be shown>"]),
        ("warning", "%d", ["x"]),
        ("error", "%d", ["x"]),
        ("warning", "%d later", ["x"]),
        *[("error", "%d later", ["x"])] * 2,
    ]
    fit = [line["event"] for line in lines if "arguments" not in line and line["level"] == "info"]
    assert fit[:7] == [*["3 of 4"] * 5, "5", "1 and 2"]
    assert ["now" in line["exception"] or "later" in line["exception"] for line in lines if "exception" in line] == [
        True,
        True,
    ]


def test_a_structlog_that_somebody_configures_later_is_as_if_it_had_never_been_ours(printed: Printed) -> None:
    assert {"event": "3 of 4", "func_name": "caller"} in printed(CONFIGURED)
