"""Wrong settings are all reported at once, by the name of the variable, and never with a secret in the message."""

import pytest

from bobrai.domain.errors import ConfigurationError
from bobrai.settings import GROUPS, load, unknown_variables, variables
from bobrai.settings.values import split_address


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("BOBRAI_"):
            monkeypatch.delenv(name)


def test_defaults_are_valid_and_frozen() -> None:
    settings = load()
    assert settings.api.bind == "127.0.0.1:8001"
    with pytest.raises(ValueError, match="frozen"):
        settings.worker.concurrency = 3


def test_all_faults_are_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {
        "BOBRAI_DATABASE_POOL_SIZE": "0",
        "BOBRAI_API_BIND": "8001",
        "BOBRAI_WORKER_CONCURRENCY": "many",
        "BOBRAI_LOG_LEVEL": "chatty",
        "BOBRAI_DISPATCHER_POLL_SECONDS": "-1",
        "BOBRAI_RABBITMQ_QUEUE_PREFIX": "UPPER",
    }
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as refused:
        load()
    assert {name for name in variables() if f"{name}:" in str(refused.value)} == set(wrong)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BOBRAI_DATABASE_URL", "mysql://user:hunter2@host/db"),
        ("BOBRAI_DATABASE_DIRECT_URL", "user:hunter2@host/db"),
        ("BOBRAI_RABBITMQ_URL", "amqp://a:b@one,http://user:hunter2@two"),
        *(
            (name, f"{scheme}://user:{password}@host:{port}/db{rest}")
            for name, scheme in (
                ("BOBRAI_DATABASE_URL", "postgresql"),
                ("BOBRAI_DATABASE_DIRECT_URL", "postgres"),
                ("BOBRAI_RABBITMQ_URL", "amqps"),
            )
            for password, port, rest in (
                ("hunter2/x", 5432, ""),
                ("1/hunter2", 5432, ""),
                ("hunter2?x", 5432, ""),
                ("1?hunter2", 5432, ""),
                ("hunter2#x", 5432, ""),
                ("hunter2[x", 5432, ""),
                ("hunter2\u2100x", 5432, ""),  # which a normal form turns into a/c
                ("hunter2", "x", ""),
                ("hunter2", 65536, ""),
                ("hunter2", 5432, "#x"),
            )
        ),
        ("BOBRAI_RABBITMQ_URL", "amqp://user:hunter2,x@host"),
    ],
)
def test_a_wrong_url_is_reported_without_its_password(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=name) as refused:
        load()
    chain = f"{refused.value} {refused.value.__cause__} {refused.value!r}"
    assert "hunter2" not in chain


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("BOBRAI_DATABASE_URL", "postgresql:///tasks?host=/run/postgresql"),
        ("BOBRAI_DATABASE_URL", "postgresql://me:p@ss@h1:5432,h2,[::1]:5433/db?sslmode=disable"),
        ("BOBRAI_DATABASE_URL", "postgres://%2Frun%2Fpostgresql:5433/db"),
        ("BOBRAI_DATABASE_URL", "postgresql://me:p%2F%23@[fe80::1]/db"),
        ("BOBRAI_DATABASE_URL", "postgresql://me:a:b@h"),
        ("BOBRAI_DATABASE_URL", "postgresql:///bobrai?host=/cloudsql/x&user=sa@proj.iam&password=y"),
        ("BOBRAI_DATABASE_URL", "postgresql://h/db?user=bob@server&password=x"),
        ("BOBRAI_DATABASE_URL", "postgresql://u:p@h:/db?application_name=me@host"),
        ("BOBRAI_RABBITMQ_URL", "amqp://u:p@h:/vhost@prod?name=worker@host1"),
        ("BOBRAI_RABBITMQ_URL", "amqp://me:p%2Fss@one:5672/%2F, amqps://[::1]:5671/vhost?heartbeat=5,"),
    ],
)
def test_a_url_may_be_of_any_form_that_the_drivers_read(monkeypatch: pytest.MonkeyPatch, name: str, url: str) -> None:
    monkeypatch.setenv(name, url)
    load()


def test_secrets_are_masked_when_settings_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOBRAI_DATABASE_URL", "postgresql://user:hunter2@host/db")
    monkeypatch.setenv("BOBRAI_RABBITMQ_URL", "amqp://user:hunter2@host/")
    settings = load()
    assert settings.database.url.get_secret_value().endswith("@host/db")
    assert "hunter2" not in f"{settings!r} {settings} {settings.model_dump()}"


def test_every_variable_of_a_group_is_read_under_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOBRAI_WORKER_QUEUES", " media, mail ,,")
    monkeypatch.setenv("BOBRAI_HANDLERS", "a.tasks,b.tasks")
    monkeypatch.setenv("BOBRAI_DISPATCHER_HEALTH_BIND", "[::1]:9000")
    settings = load()
    assert settings.worker.queues == ("media", "mail")
    assert settings.handlers == ("a.tasks", "b.tasks")
    assert split_address(settings.dispatcher.health_bind) == ("::1", 9000)


def test_the_command_line_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOBRAI_WORKER_CONCURRENCY", "3")
    assert load(worker={"concurrency": 7}).worker.concurrency == 7


def test_a_lease_must_outlive_a_late_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOBRAI_WORKER_HEARTBEAT_SECONDS", "6")
    with pytest.raises(ConfigurationError, match="BOBRAI_WORKER_LEASE_SECONDS"):
        load()


def test_what_kubernetes_injects_for_a_service_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Service called bobrai-api gives every pod BOBRAI_API_PORT=tcp://…, which must neither be read nor reported."""
    injected = {
        "BOBRAI_API_PORT": "tcp://10.0.0.1:8001",
        "BOBRAI_API_SERVICE_HOST": "10.0.0.1",
        "BOBRAI_API_SERVICE_PORT": "8001",
        "BOBRAI_API_SERVICE_PORT_HTTP": "8001",
        "BOBRAI_API_PORT_8001_TCP": "tcp://10.0.0.1:8001",
        "BOBRAI_API_PORT_8001_TCP_ADDR": "10.0.0.1",
        "BOBRAI_API_PORT_8001_TCP_PORT": "8001",
        "BOBRAI_API_PORT_8001_TCP_PROTO": "tcp",
    }
    for name, value in injected.items():
        monkeypatch.setenv(name, value)
    assert load().api.bind == "127.0.0.1:8001"
    assert unknown_variables(injected) == {}
    assert not set(variables()) & set(injected)


def test_a_misspelt_variable_is_named_with_its_neighbour() -> None:
    found = unknown_variables({"BOBRAI_WORKER_CONCURENCY": "5", "BOBRAI_TEST_DATABASE_URL": "x", "PATH": "/bin"})
    assert found == {"BOBRAI_WORKER_CONCURENCY": "BOBRAI_WORKER_CONCURRENCY"}


@pytest.mark.parametrize("queues", ["", " , ", "Media", "a b", "a/b", "-a", "a" * 64, "default,Media"])
def test_a_worker_consumes_only_queues_that_a_task_can_have(monkeypatch: pytest.MonkeyPatch, queues: str) -> None:
    """It would wait for ever at any other."""
    monkeypatch.setenv("BOBRAI_WORKER_QUEUES", queues)
    with pytest.raises(ConfigurationError, match="BOBRAI_WORKER_QUEUES"):
        load()


def test_a_queue_named_twice_is_consumed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOBRAI_WORKER_QUEUES", "media, default,media")
    assert load().worker.queues == ("media", "default")


def test_every_field_is_described() -> None:
    assert [name for name, (_, description) in variables().items() if not description] == []
    for group in GROUPS:
        assert any(name.startswith(f"BOBRAI_{group.upper()}_") for name in variables()), group


def test_durations_say_their_unit() -> None:
    for group in GROUPS.values():
        for name, field in group.model_fields.items():
            if field.annotation is float:
                assert name.endswith("_seconds"), name


@pytest.mark.parametrize("address", ["8001", ":8001", "host:", "host:port", "host:65536", "host:-1"])
def test_an_address_is_host_and_port(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("BOBRAI_API_BIND", address)
    with pytest.raises(ConfigurationError, match="HOST:PORT"):
        load()


AWKWARD = "p@ss/w:rd %\"'#?,[é"
QUOTED = "p%40ss%2Fw%3Ard%20%25%22%27%23%3F%2C%5B%C3%A9"


def test_credentials_replace_those_of_every_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOBRAI_DATABASE_URL", "postgresql://old:older@pooler:6432/tasks?sslmode=disable")
    monkeypatch.setenv("BOBRAI_DATABASE_DIRECT_URL", "postgresql://one,two:5433/tasks")
    monkeypatch.setenv("BOBRAI_RABBITMQ_URL", "amqp://one:5672/%2F, amqps://old:older@[::1]/vhost?heartbeat=5,")
    for group in ("DATABASE", "RABBITMQ"):
        monkeypatch.setenv(f"BOBRAI_{group}_USER", "me@home")
        monkeypatch.setenv(f"BOBRAI_{group}_PASSWORD", AWKWARD)
    settings = load()
    who = f"me%40home:{QUOTED}"
    assert settings.database.pooled() == f"postgresql://{who}@pooler:6432/tasks?sslmode=disable"
    assert settings.database.direct() == f"postgresql://{who}@one,two:5433/tasks"
    assert settings.rabbitmq.addresses() == f"amqp://{who}@one:5672/%2F,amqps://{who}@[::1]/vhost?heartbeat=5"
    assert AWKWARD not in f"{settings!r} {settings} {settings.model_dump()}"


def test_one_credential_alone_leaves_the_other_as_the_url_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOBRAI_DATABASE_URL", "postgresql://old:older@pooler/tasks")
    monkeypatch.setenv("BOBRAI_DATABASE_PASSWORD", "new")
    monkeypatch.setenv("BOBRAI_RABBITMQ_URL", "amqp://old:older@node/")
    monkeypatch.setenv("BOBRAI_RABBITMQ_USER", "new")
    settings = load()
    assert settings.database.pooled() == settings.database.direct() == "postgresql://old:new@pooler/tasks"
    assert settings.rabbitmq.addresses() == "amqp://new:older@node/"


def test_without_credentials_urls_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load().database.pooled() == load().database.direct() == load().rabbitmq.addresses() == ""
    monkeypatch.setenv("BOBRAI_DATABASE_URL", "postgresql:///tasks?host=/run/postgresql")
    monkeypatch.setenv("BOBRAI_RABBITMQ_URL", "amqp://node")
    assert load().database.pooled() == "postgresql:///tasks?host=/run/postgresql"
    assert load().rabbitmq.addresses() == "amqp://node"


@pytest.mark.parametrize(
    "path", ["bobrai", "/", "/bobrai/", "//bobrai", "/a/../b", "/..", "/a?b", "/a%20b", "/" + "x" * 200]
)
def test_a_root_path_that_leads_elsewhere_is_refused(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setenv("BOBRAI_API_ROOT_PATH", path)
    with pytest.raises(ConfigurationError, match="BOBRAI_API_ROOT_PATH: must begin with / and not end with it"):
        load()


def test_trusted_proxies_are_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOBRAI_API_ROOT_PATH", "/teams/bobrai.v1")
    monkeypatch.setenv("BOBRAI_API_TRUSTED_PROXIES", "10.0.0.0/8, fd00::/8,192.0.2.1")
    assert [str(each) for each in load().api.trusted_proxies] == ["10.0.0.0/8", "fd00::/8", "192.0.2.1/32"]
    for wrong in ("10.0.0.1/8", "proxy.example.org", "*"):
        monkeypatch.setenv("BOBRAI_API_TRUSTED_PROXIES", wrong)
        with pytest.raises(ConfigurationError, match="BOBRAI_API_TRUSTED_PROXIES: must be addresses or networks"):
            load()


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("", ()),
        ("*", ("*",)),
        ("https://app.example.org", ("https://app.example.org",)),
        (" https://a.example , http://localhost:3000 ", ("https://a.example", "http://localhost:3000")),
        ("https://APP.example.org:443,http://a.b:80", ("https://app.example.org", "http://a.b")),
        ("https://a.b:0443,https://a.b,https://a.b:80", ("https://a.b", "https://a.b:80")),
        ("http://[::1]:3000", ("http://[::1]:3000",)),
    ],
)
def test_origins_are_as_browsers_write_them(monkeypatch: pytest.MonkeyPatch, text: str, origins: tuple[str]) -> None:
    monkeypatch.setenv("BOBRAI_API_CORS_ORIGINS", text)
    assert load().api.cors_origins == origins


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("https://app.example.org/", "'https://app.example.org/' is no origin"),
        ("app.example.org", "such as https://app.example.org"),
        ("https://app.example.org,https://a.b/c", "'https://a.b/c' is no origin"),
        ("ftp://a.b", "is no origin"),
        ("https://*.example.org", "is no origin"),
        ("https://user@a.b", "is no origin"),
        ("https://a.b:0", "is no origin"),
        ("https://a.b:65536", "is no origin"),
        ("https://äpp.example.org", "in ASCII"),
        ("null", "is no origin"),
        ("*,https://a.b", "leave it alone"),
    ],
)
def test_what_is_no_origin_is_told_what_one_is(monkeypatch: pytest.MonkeyPatch, text: str, words: str) -> None:
    monkeypatch.setenv("BOBRAI_API_CORS_ORIGINS", text)
    with pytest.raises(ConfigurationError, match="BOBRAI_API_CORS_ORIGINS") as refused:
        load()
    assert words in str(refused.value)
