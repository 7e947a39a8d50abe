"""Credentials are taken out of text, and what is none stays readable."""

import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from urllib.parse import quote

import pytest
from pydantic import SecretStr

from bobrai import settings
from bobrai.settings import credentials
from bobrai.telemetry import logs, masking


@pytest.fixture(autouse=True)
def nothing_hidden_afterwards() -> Iterator[None]:
    yield
    masking.hide([])


LEAKS = [
    "postgresql://user:hunter2@host/db",
    "amqp://u:hunter2@one:5672,amqp://u:hunter2@two",
    "host=db user=me password=hunter2 dbname=x",
    "password='hunter2 with spaces' host=x",
    "PGPASSWORD=hunter2",
    "{'password': 'hunter2', 'user': 'me'}",
    '{"db": {"passwd": "hunter2"}}',
    '{\\"password\\": \\"hunter2\\"}',
    "{'api_key': ['hunter2']}",
    "DB_PASSWORD: hunter2",
    "client_secret=hunter2&grant=x",
    "https://host/x?access_token=hunter2&y=1",
    "Authorization: Bearer hunter2hunter2",
    "Authorization: Basic hunter2hunter2==",
    "[(b'authorization', b'Bearer hunter2.hunter2')]",
    "{'Authorization': 'hunter2'}",
    "x-api-key: hunter2",
    "aws_secret_access_key = hunter2",
    "-----BEGIN RSA PRIVATE KEY-----\nhunter2\n-----END RSA PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\nhunter2",
    "key sk-proj-hunter2hunter2hunter2",
    "ghp_hunter2hunter2hunter2hunter2hunter2",
    "xoxb-123-hunter2hunter2",
    "eyJhbGciOiJIUzI1NiJ9.hunter2.hunter2",
    "first-eyJ.a session-eyJhbGciOiJIUzI1NiJ9.hunter2.hunter2",
]


@pytest.mark.parametrize("text", LEAKS)
def test_what_looks_like_a_credential_is_masked(text: str) -> None:
    assert "hunter2" not in masking.mask(text)
    assert masking.MASK in masking.mask(text)
    assert "hunter2" not in str(masking.masked({"a": [text]}))


@pytest.mark.parametrize(
    "text",
    [
        "Unexpected token: } at 7",
        "max_tokens=512",
        "the password is wrong",
        "task 7 passed in 3 s",
        "key error: 'name'",
        "bobrai_tasks_submitted_total",
        "https://host/path?page=2",
        "ask-me-anything-about-long-hyphenated-words",
    ],
)
def test_what_is_no_credential_stays(text: str) -> None:
    assert masking.mask(text) == text


@pytest.mark.parametrize("text", LEAKS)
def test_a_value_with_a_credential_is_never_taken_for_a_clean_one(text: str) -> None:
    assert not masking.is_clean(text)


@pytest.mark.parametrize(
    "value",
    ["key:k7x2m9q4w1ab", "oidc:keycloak:6f1c8a52-0c5e-4c8b-9d0e-2f6b7a3d9e41", f"oidc:token:sha256:{'0a' * 32}"],
)
def test_the_id_of_a_principal_is_clean_so_that_its_lines_need_no_search(value: str) -> None:
    assert masking.is_clean(value)
    masking.hide([value])
    assert not masking.is_clean(value)


def test_own_secrets_are_masked_wherever_they_stand_and_however_they_are_written() -> None:
    masking.hide(["p@ss/w\"ord'1", "tr0ub4dor", "zorx"])
    for text in (
        "p@ss/w\"ord'1",
        "x p%40ss%2Fw%22ord%271 y",
        repr({"x": "p@ss/w\"ord'1"}),
        json.dumps({"x": "p@ss/w\"ord'1"}),
        "xtr0ub4dorx",
        "with zorx alone",
    ):
        shown = masking.mask(text)
        assert masking.MASK in shown
        assert "ord" not in shown.replace("dor", "")
        assert "zorx" not in shown
    assert masking.mask("zorxes are animals") == "zorxes are animals"


@pytest.mark.parametrize("secret", ["p\u00e4ss-w\u00f6rd", ' p\u00e4ss"\\w\u00f6rd\n'])
def test_own_secrets_are_masked_in_every_form_that_programs_give_them(secret: str) -> None:
    masking.hide([secret, " guest ", " a\n"])
    for text in (
        secret.strip(),
        ascii([secret]),
        repr([secret.encode()]),
        json.dumps({"x": secret}),
        json.dumps(json.dumps({"x": secret})),
        json.dumps({"x": json.dumps({"x": secret}, ensure_ascii=False)}, ensure_ascii=False),
        re.sub("%..", lambda found: found[0].lower(), quote(secret)),
    ):
        shown = masking.mask(text)
        assert masking.MASK in shown, text
        assert "rd" not in shown, text
    assert masking.mask("a guest") == "a guest"


@pytest.mark.parametrize("secret", ["default", "bobrai", "guest", "task", "a", "abc", "someone", "db.example"])
def test_a_secret_that_is_a_common_or_public_word_is_masked_in_its_place_only(secret: str) -> None:
    masking.hide([secret], public=["someone", "db.example"])
    assert masking.mask(f"the {secret} is here") == f"the {secret} is here"
    assert masking.mask(f"amqp://u:{secret}@h") == "amqp://***@h"
    assert masking.mask(f"password={secret} x") == "password=*** x"


def test_a_cut_leaves_no_half_of_a_secret() -> None:
    masking.hide(["tr0ub4dor-and-more"])
    for limit in range(90, 130):
        for keep_end in (False, True):
            text = "x" * 100 + "tr0ub4dor-and-more" + "y" * 100
            shown = masking.bounded(text, limit, keep_end=keep_end)
            assert len(shown) <= limit
            assert "tr0u" not in shown
            assert "more" not in shown
            shown = masking.bounded("tr0ub4dor-and-more" * 1000, limit, keep_end=keep_end)
            assert len(shown) <= limit
            assert "tr0" not in shown
            assert "more" not in shown


@pytest.mark.parametrize(
    "text",
    [
        "password" * 20_000,
        "://" * 50_000,
        "token" + " " * 200_000,
        'password="' * 20_000,
        "eyJ" + "a" * 200_000,
        *(f"{'eyJ-' * 100_000}{rest}" for rest in ("", ".", ".x", ".x.")),
    ],
)
def test_masking_takes_time_in_proportion(text: str) -> None:
    begun = time.process_time()
    masking.mask(text)
    assert time.process_time() - begun < 1


@pytest.mark.parametrize("format_", ["json", "ecs", "console"])
def test_a_line_never_holds_a_secret_of_the_settings(format_: str, monkeypatch: pytest.MonkeyPatch) -> None:
    printed: list[bytes] = []
    monkeypatch.setattr(logs._Configured, "format", format_)
    monkeypatch.setattr(logs._sink, "write", printed.append)
    masking.hide(['qu"oted\\é', "tr0ub4dor"])
    log = logs.get_logger("bobrai.x")
    for secret in ('qu"oted\\é', "tr0ub4dor"):
        log.warning(f"event {secret}", value=secret, deep={"a": [secret], secret: 1}, error=ValueError(secret))
        log.warning("long", value="x" * 16_380 + secret)
        try:
            raise ValueError(secret)
        except ValueError:
            log.exception("raised")
    log.warning("names", password="aaa-zzz", headers={"Authorization": "aaa-zzz"}, token="aaa-zzz")
    log.warning("numbers", password=31415926, pin={"db_password": 27182818.5})
    for line in printed:
        for part in (b"tr0u", b"quoted", b"oted", b"aaa-zzz", b"31415926", b"27182818"):
            assert part not in line, line


@pytest.mark.parametrize(("format_", "names"), [("json", ("at", "process")), ("ecs", ("@timestamp", "service.name"))])
def test_what_a_line_says_of_itself_is_never_masked(
    format_: str, names: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    printed: list[bytes] = []
    monkeypatch.setattr(logs._Configured, "format", format_)
    monkeypatch.setattr(logs._Configured, "process", "zebra-metrics")
    monkeypatch.setattr(logs._sink, "write", printed.append)
    masking.hide([datetime.now(UTC).strftime("%Y"), "zebra", "timestamp", "warn"])
    logs.get_logger("bobrai.x").warning("warn", **{"log.level": "warn", "level": "warn", "service.name": "zebra"})
    line = json.loads(printed[0])
    assert line[names[0]].startswith(datetime.now(UTC).strftime("%Y-"))
    assert line[names[1]].endswith("zebra-metrics")
    assert line["level" if format_ == "json" else "log.level"] == "warning"
    assert b'"warn"' not in printed[0]
    assert b'"zebra"' not in printed[0]


def test_the_settings_secrets_are_known_in_every_form() -> None:
    loaded = settings.load()
    loaded = loaded.model_copy(
        update={
            "database": loaded.database.model_copy(
                update={"url": SecretStr("postgresql://me:in%2Furl@h1,h2/shop?sslpassword=in-query")}
            ),
            "rabbitmq": loaded.rabbitmq.model_copy(
                update={
                    "url": SecretStr("amqp://you:first@h3:5672,amqps://you:second@h4"),
                    "password": SecretStr("instead"),
                }
            ),
            "api_key": SecretStr("for-smoke"),
        }
    )
    environ = {"PGPASSWORD": "by-libpq", "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20by-otel,x=y"}
    secrets, public = credentials.of(loaded, environ)
    assert {
        "in%2Furl",
        "in/url",
        "in-query",
        "first",
        "second",
        "instead",
        "for-smoke",
        "by-libpq",
        "by-otel",
    } <= secrets
    assert {"me", "you", "shop", "h1", "h3", "h4"} <= public
    assert not secrets & public


def test_every_secret_setting_is_among_them(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = set()
    for name, group in settings.GROUPS.items():
        for field, info in group.model_fields.items():
            if info.annotation is SecretStr and "url" not in field:
                secret = f"secret-of-{name}-{field}"
                expected.add(secret)
                monkeypatch.setenv(f"BOBRAI_{name}_{field}".upper(), secret)
    expected.add("secret-of-top-level")
    monkeypatch.setenv("BOBRAI_API_KEY", "secret-of-top-level")
    assert len(expected) >= 3
    assert expected <= credentials.of(settings.load(), {})[0]
