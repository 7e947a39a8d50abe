"""Alerts reach people: what the chart configures arrives, by way of a real Alertmanager, in Telegram and as a mail."""

import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.alerts.alertmanager import Alertmanager, check, configuration
from tests.alerts.receivers import HOST, MailServer, Telegram
from tests.alerts.rules import Rule, alerts
from tests.charts.helm import CRD_APIS, Manifest, render
from tests.support.eventually import eventually, eventually_sync, stays
from tests.support.processes import Processes
from tests.support.run_folder import RunFolder

NAMESPACE = "bobrai"
CHAT = -1001234567890
MOST_CHARACTERS = 4096  # of a message of Telegram's; Alertmanager cuts a longer one, or sends none
SECRETS = {"our-telegram/bot-token": "12345:secret", "our-mail/password": "secret"}
Start = Callable[..., Alertmanager]


@pytest.fixture
async def telegram() -> AsyncIterator[Telegram]:
    async with Telegram().listening() as server:
        yield server


@pytest.fixture
async def mail() -> AsyncIterator[MailServer]:
    async with MailServer().listening() as server:
        yield server


def rendered(**alerting: Any) -> Manifest:
    """The chart's object for these values."""
    values = {"monitoring": {"alerting": {"enabled": True, "groupWait": "1s", "groupInterval": "1s", **alerting}}}
    return render(values, api_versions=CRD_APIS).one("AlertmanagerConfig", "bobrai-alerting")


def to_telegram(server: Telegram | None = None, **more: Any) -> dict[str, Any]:
    port = 1 if server is None else server.port
    return {
        "enabled": True, "chatId": CHAT, "existingSecret": "our-telegram", "apiUrl": f"http://{HOST}:{port}", **more,
    }  # fmt: skip


def by_mail(server: MailServer | None = None, **more: Any) -> dict[str, Any]:
    port = 1 if server is None else server.port
    return {
        "enabled": True, "to": "on-call@example.com, team@example.com", "sender": "bobrai@example.com",
        "smarthost": f"{HOST}:{port}", "requireTls": False, **more,
    }  # fmt: skip


@pytest.fixture
def start(run_folder: RunFolder, processes: Processes, tmp_path: Path) -> Start:
    """Start Alertmanager with the chart's object for these values."""

    def started(**alerting: Any) -> Alertmanager:
        content = configuration(rendered(**alerting), NAMESPACE, SECRETS)
        manager = Alertmanager.start(run_folder, processes, tmp_path, content)
        check(run_folder, tmp_path / "alertmanager.json")
        eventually_sync(manager.is_ready, 20, message="Alertmanager is ready")
        return manager

    return started


def alert(name: str, severity: str, **labels: str) -> dict[str, Any]:
    return {
        "labels": {"alertname": name, "severity": severity, "namespace": NAMESPACE, **labels},
        "annotations": {
            "summary": f"{name} in {NAMESPACE}",
            "description": "more than 5 < 6 & rising",
            "runbook_url": f"https://example.com/{name}.md",
        },
    }


async def test_an_alert_arrives_in_the_telegram_chat_and_by_mail(
    start: Start, telegram: Telegram, mail: MailServer
) -> None:
    manager = start(telegram=to_telegram(telegram), email=by_mail(mail))
    manager.fire([alert("BobraiOutboxLag", "critical")])
    await eventually(lambda: telegram.calls and mail.mails, 20)
    path, message = telegram.calls[0]
    assert path == "/bot12345:secret/sendMessage"
    assert int(message["chat_id"]) == CHAT
    assert message["parse_mode"] == "HTML"
    assert "🔴 <b>BobraiOutboxLag</b> in bobrai" in message["text"]
    assert "more than 5 &lt; 6 &amp; rising" in message["text"]
    assert '<a href="https://example.com/BobraiOutboxLag.md">What to do</a>' in message["text"]
    recipients, content = mail.mails[0]
    assert sorted(recipients) == ["on-call@example.com", "team@example.com"]
    assert content["Subject"] == "[FIRING] BobraiOutboxLag in bobrai"
    assert content["From"] == "bobrai@example.com"


async def test_a_receiver_for_critical_alerts_hears_of_no_warning(
    start: Start, telegram: Telegram, mail: MailServer
) -> None:
    manager = start(telegram=to_telegram(telegram), email=by_mail(mail, **{"from": "critical"}))
    manager.fire([alert("BobraiWorkerLost", "warning")])
    await eventually(lambda: telegram.calls, 20)
    manager.fire([alert("BobraiProcessMissing", "critical", process="api")])
    await eventually(lambda: mail.mails, 20)
    assert [content["Subject"] for _, content in mail.mails] == ["[FIRING] BobraiProcessMissing in bobrai"]


async def test_alerts_of_one_name_are_one_message_that_says_when_it_is_over(start: Start, telegram: Telegram) -> None:
    manager = start(telegram=to_telegram(telegram))
    both = [alert("BobraiBacklogAge", "critical", queue=queue) for queue in ("mail", "media")]
    manager.fire(both)
    await eventually(lambda: telegram.calls, 20)
    assert telegram.calls[0][1]["text"].count("<b>BobraiBacklogAge in bobrai</b>") == 2
    manager.fire([{**each, "endsAt": "2026-01-01T00:00:00Z", "startsAt": "2025-01-01T00:00:00Z"} for each in both])
    await eventually(lambda: len(telegram.calls) == 2, 20)
    assert telegram.calls[1][1]["text"].startswith("🟢 resolved: <b>BobraiBacklogAge</b>")


async def test_a_message_about_very_many_queues_is_one_that_telegram_takes(start: Start, telegram: Telegram) -> None:
    manager = start(telegram=to_telegram(telegram))
    longest = max(map(spelt_out, alerts()), key=lambda each: len("".join(each.values())))
    many = [alert("BobraiBacklogAge", "critical", queue=f"{number}") | {"annotations": longest} for number in range(40)]
    manager.fire(many)
    await eventually(lambda: telegram.calls, 20)
    text = telegram.calls[0][1]["text"]
    assert len(text) < MOST_CHARACTERS
    assert "the first 6 of 40" in text
    assert text.count("<b>") == text.count("</b>") == 7
    assert text.endswith(">What to do</a>")


def spelt_out(rule: Rule) -> dict[str, str]:
    """An alert's texts with the longest names that a queue, a namespace and nearly every other label can have."""
    return {name: re.sub(r"\{\{[^}]*\}\}", "x" * 63, text) for name, text in rule["annotations"].items()}


async def test_a_database_that_is_away_keeps_quiet_what_follows_from_it(start: Start, telegram: Telegram) -> None:
    manager = start(telegram=to_telegram(telegram))
    follows = ["BobraiBacklogAge", "BobraiApiErrorRatio", "BobraiOutboxLag"]
    manager.fire([alert("BobraiDatabaseUnreachable", "critical"), *(alert(name, "critical") for name in follows)])
    await eventually(lambda: telegram.calls, 20)
    await stays(lambda: len(telegram.calls) == 1, 2.5)
    assert "BobraiDatabaseUnreachable" in telegram.calls[0][1]["text"]
    assert manager.inhibited() == set(follows)


async def test_the_keys_of_one_issuer_keep_nothing_quiet_about_those_of_another(
    start: Start, telegram: Telegram
) -> None:
    manager = start(telegram=to_telegram(telegram))
    name = "BobraiOidcKeysStale"
    fired = [alert(name, "critical", issuer="dex")]
    fired += [alert(name, "warning", issuer=issuer) for issuer in ("dex", "keycloak")]
    manager.fire(fired)
    await eventually(lambda: len(telegram.calls) == 2, 20)
    texts = {call[1]["text"].split("\n")[0] for call in telegram.calls}
    assert len(texts) == 2, "the critical one, and the warning about the other issuer"
    assert manager.inhibited() == {name}


async def test_alerts_of_another_namespace_are_none_of_its_business(start: Start, telegram: Telegram) -> None:
    manager = start(telegram=to_telegram(telegram))
    manager.fire([alert("BobraiOutboxLag", "critical") | {"labels": {"alertname": "Other", "namespace": "other"}}])
    manager.fire([alert("BobraiOutboxLag", "critical")])
    await eventually(lambda: telegram.calls, 20)
    await stays(lambda: len(telegram.calls) == 1, 2.5)
    assert "BobraiOutboxLag" in telegram.calls[0][1]["text"]


def test_a_mail_server_that_wants_a_login_gets_it(run_folder: RunFolder, tmp_path: Path) -> None:
    login = by_mail(username="bobrai", existingSecret="our-mail", requireTls=True)
    [critical, _] = configuration(rendered(email=login), NAMESPACE, SECRETS)["receivers"][1:]
    [settings] = critical["email_configs"]
    assert settings["require_tls"] is True
    assert (settings["auth_username"], settings["auth_password"]) == ("bobrai", "secret")
