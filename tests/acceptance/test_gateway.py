"""Behind a real gateway that serves the API under a path: links lead where the client can follow them."""

import asyncio
from urllib.parse import urljoin

import httpx
import pytest
from playwright.sync_api import Browser

from tests.acceptance.conftest import DESK, announce_to, opened
from tests.support import programs
from tests.support.databases import Database
from tests.support.eventually import eventually_sync
from tests.support.processes import Process, Processes
from tests.support.run_folder import RunFolder

# one group, because one API and one nginx serve all tests of a way
pytestmark = [pytest.mark.timeout(120), pytest.mark.xdist_group("gateway")]

TASK = {"payload": "x", "type": "echo"}
CONFIGURATION = """
daemon off; master_process off; pid nginx.pid; error_log stderr;
events {{}}
http {{
  access_log off;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
  server {{
    listen 127.0.0.1:{port};
    proxy_redirect off;
    {headers}
    location /bobrai/ {{ proxy_pass http://127.0.0.1:{upstream}{uri}; }}
    location = /bobrai {{ proxy_pass http://127.0.0.1:{upstream}{uri}; }}
  }}
}}
"""
# What tells the service where it is: its own setting, or the headers of a proxy that it trusts.
SETTING = ({"BOBRAI_API_ROOT_PATH": "/bobrai"}, "proxy_set_header Host $http_host;")
HEADERS = (
    {"BOBRAI_API_TRUSTED_PROXIES": "127.0.0.0/8"},
    """
    proxy_set_header X-Forwarded-Host $http_host;
    proxy_set_header X-Forwarded-Proto $scheme;
    proxy_set_header X-Forwarded-Prefix /bobrai;
    """,
)
STRIPS, PASSES_ON = "/", ""  # what nginx puts in the place of its location, or nothing


@pytest.fixture(params=[SETTING, HEADERS], ids=["setting", "headers"], scope="module")
def told(request: pytest.FixtureRequest) -> tuple[dict[str, str], str]:
    """Environment of the service and configuration of the gateway."""
    return request.param


@pytest.fixture(scope="module")
def known_types(module_database: Database) -> Database:
    """A database with the types that the tests use."""
    asyncio.run(announce_to(module_database))
    return module_database


@pytest.fixture(params=[STRIPS, PASSES_ON], ids=["strips", "passes-on"], scope="module")
def gateway(
    request: pytest.FixtureRequest, told: tuple[dict[str, str], str], known_types: Database,
    module_processes: Processes, run_folder: RunFolder, tmp_path_factory: pytest.TempPathFactory,
) -> Process:  # fmt: skip
    """nginx before an API, which serves it under /bobrai."""
    try:
        program = programs.find("nginx")
    except programs.ProgramMissing as missing:
        pytest.skip(str(missing))
    environment, headers = told
    api = module_processes.start("api", environment={**environment, "BOBRAI_DATABASE_URL": known_types.url})
    port, folder = run_folder.free_port(), tmp_path_factory.mktemp("nginx")
    (folder / "nginx.conf").write_text(
        CONFIGURATION.format(port=port, headers=headers, upstream=api.port, uri=request.param)
    )
    command = [str(program), "-p", f"{folder}/", "-c", "nginx.conf", "-e", "stderr"]
    nginx = module_processes.run(command, name="nginx", environment={}, port=port)
    eventually_sync(lambda: nginx.get("/bobrai/livez")[0] == 200 or not nginx.is_running(), message="nginx serves")
    assert nginx.is_running(), nginx.log_text()
    return nginx


@pytest.mark.parametrize("path", ["/api/v1/tasks", "/tasks"])
def test_a_client_follows_the_location(gateway: Process, path: str) -> None:
    asked = f"{gateway.url}/bobrai{path}"
    created = httpx.post(asked, json=TASK)
    task_id = created.json()["task_id"]
    assert created.headers["location"] == f"/bobrai{path}/{task_id}"
    assert httpx.get(urljoin(asked, created.headers["location"])).json()["id"] == task_id


def test_the_document_says_the_path_and_the_root_leads_to_the_page(gateway: Process) -> None:
    document = httpx.get(f"{gateway.url}/bobrai/api/openapi.json").json()
    assert document["servers"] == [{"url": "/bobrai"}]
    for root in ("/bobrai/", "/bobrai"):
        page = httpx.get(gateway.url + root, follow_redirects=True)
        assert (page.status_code, page.url.path) == (200, "/bobrai/docs")
    assert httpx.get(f"{gateway.url}/bobrai/nothing").status_code == 404


def test_a_reader_clicks_through_the_page(gateway: Process, browser: Browser) -> None:
    page = opened(browser, f"{gateway.url}/bobrai/", DESK)
    lines = [line for line in page.locator("pre").all_inner_texts() if "curl" in line]
    assert lines
    assert all(line.count("http://") == line.count(f"{gateway.url}/bobrai/") > 0 for line in lines)
    links = {link for link in page.locator("a").evaluate_all("all => all.map(each => each.href)") if "#" not in link}
    assert links
    for link in links:
        answer = page.request.get(link)
        assert (link.startswith(f"{gateway.url}/bobrai/"), answer.status) == (True, 200)
    page.get_by_role("link", name="OpenAPI 3.1").click()
    assert page.url == f"{gateway.url}/bobrai/api/openapi.json"
