"""The images' processes, as the first process of a hardened container, against real servers."""

import json
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.images.engine import Container, Containers, Image
from tests.support.databases import Database
from tests.support.eventually import eventually_sync
from tests.support.rabbitmq import VirtualHost

FreePort = Callable[[], int]
HANDLERS = """
import asyncio
from bobrai import task

@task("nap", timeout=120)
async def nap(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "rested"
"""


@pytest.fixture(scope="module")
def own_image(worker_image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """What a user builds: the worker's image with handlers of their own."""
    folder = tmp_path_factory.mktemp("own-image")
    image = Image.with_handlers("bobrai-own-worker:tested", worker_image, "tasks", HANDLERS, folder)
    yield image
    image.remove()


class Service:
    """Containers of a whole service, of which the test starts what it needs."""

    def __init__(self, containers: Containers, image: Image, port: FreePort) -> None:
        self.containers = containers
        self._image = image
        self._port = port

    def api(self) -> Container:
        port = self._port()
        bind = {"BOBRAI_API_BIND": f"127.0.0.1:{port}"}
        return self.containers.start(self._image, "api", environment=bind, port=port).wait_for("/readyz")

    def dispatcher(self) -> Container:
        port = self._port()
        bind = {"BOBRAI_DISPATCHER_HEALTH_BIND": f"127.0.0.1:{port}"}
        return self.containers.start(self._image, "dispatcher", environment=bind, port=port).wait_for("/readyz")

    def worker(self, image: Image, **settings: str) -> Container:
        port = self._port()
        environment = {"BOBRAI_WORKER_HEALTH_BIND": f"127.0.0.1:{port}", **settings}
        return self.containers.start(image, environment=environment, port=port).wait_for("/readyz")


@pytest.fixture
def service(
    containers: Containers, api_image: Image, empty_database: Database, rabbitmq: VirtualHost, free_port: FreePort
) -> Service:
    """A service whose schema was made by the image's own `migrate`."""
    containers.environment |= {"BOBRAI_DATABASE_URL": empty_database.url, "BOBRAI_RABBITMQ_URL": rabbitmq.url}
    code, log = containers.run(api_image, "migrate")
    assert code == 0, log
    return Service(containers, api_image, free_port)


def call(url: str, body: object = None) -> dict[str, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode() if body is not None else None)
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=30) as response:
        answer: dict[str, Any] = json.load(response)
    return answer


def first_process(container: Container) -> str:
    return container.execute("cat", "/proc/1/cmdline").replace("\0", " ").strip()


def running_nap(api: Container, seconds: float) -> str:
    """Submit a task once the API knows its type from the worker; its URL, when it runs."""
    body = {"type": "nap", "payload": seconds}
    task_id = eventually_sync(lambda: call(f"{api.url}/api/v1/tasks", body)["task_id"], message="the task is accepted")
    url = f"{api.url}/api/v1/tasks/{task_id}"
    eventually_sync(lambda: call(url)["status"] == "processing", message="the task runs")
    return url


async def test_migrate_makes_the_schema_and_waiting_for_it_ends(
    containers: Containers, api_image: Image, empty_database: Database
) -> None:
    containers.environment["BOBRAI_DATABASE_URL"] = empty_database.url
    waiting = containers.start(api_image, "migrate", "--wait")
    eventually_sync(lambda: "schema.awaited" in waiting.logs(), message="the wait has begun")
    assert waiting.is_running
    code, log = containers.run(api_image, "migrate")
    assert code == 0, log
    assert waiting.wait() == 0
    assert await empty_database.fetchval("SELECT count(*) FROM tasks") == 0
    assert await empty_database.fetchval("SELECT count(*) FROM task_types") >= 2


def test_the_api_is_the_first_process_and_ends_politely_on_sigterm(service: Service) -> None:
    api = service.api()
    assert api.get("/livez")[0] == 200
    assert first_process(api).endswith("/opt/bobrai/bin/bobrai api")
    assert api.execute("id", "-u").strip() == "65532"
    api.signal("TERM")
    assert api.wait(15) == 0
    assert '"signal":"SIGTERM"' in api.logs().replace(" ", "")


def test_a_hardened_service_passes_the_smoke_test(service: Service, api_image: Image, worker_image: Image) -> None:
    api, _, _ = service.api(), service.dispatcher(), service.worker(worker_image)
    for image in (api_image, worker_image):
        code, log = service.containers.run(image, "smoke", api.url, "--timeout", "30")
        assert code == 0, log
        assert "demo: task" in log


def test_a_worker_drains_on_sigterm_and_its_running_task_is_done(service: Service, own_image: Image) -> None:
    api, _, worker = service.api(), service.dispatcher(), service.worker(own_image)
    assert first_process(worker).endswith("/opt/bobrai/bin/bobrai worker")
    url = running_nap(api, 4)
    worker.signal("TERM")
    assert worker.wait(20) == 0
    task = call(url)
    assert (task["status"], task["result"], task["attempt"]) == ("done", "rested", 1)


def test_a_drain_that_is_cut_short_gives_the_task_back_in_time(service: Service, own_image: Image) -> None:
    api, _, worker = service.api(), service.dispatcher(), service.worker(own_image, BOBRAI_WORKER_DRAIN_SECONDS="1")
    url = running_nap(api, 60)
    worker.signal("TERM")
    assert worker.wait(20) == 0
    task = call(url)
    assert (task["status"], task["errors"]) == ("pending", [])


def test_a_missing_setting_ends_the_container_with_one_clear_line(containers: Containers, image: Image) -> None:
    code, log = containers.run(image)
    assert code == 2
    assert "BOBRAI_DATABASE_URL is not set" in log


def test_pip_of_the_worker_image_installs_where_handlers_look(worker_image: Image, tmp_path: Path) -> None:
    wheel = "own_library-1-py3-none-any.whl"
    about = "own_library-1.dist-info"
    with zipfile.ZipFile(tmp_path / wheel, "w") as archive:
        archive.writestr("own_library.py", "answer = 42\n")
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: own-library\nVersion: 1\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    (tmp_path / "Dockerfile").write_text(
        f"FROM {worker_image.reference}\nUSER 0\nCOPY {wheel} /tmp/\n"
        f"RUN pip install --no-index /tmp/{wheel}\nUSER 65532:65532\n"
    )
    own = Image.build("bobrai-own-library:tested", "Dockerfile", tmp_path)
    try:
        assert own.python("import bobrai, own_library; print(own_library.answer)") == 42
    finally:
        own.remove()
