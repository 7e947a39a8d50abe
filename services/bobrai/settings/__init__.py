"""The one place that reads the environment; every field says its unit and why its default is what it is.

In: ``BOBRAI_*`` variables. Out: one frozen Settings value that every process is built from. docs/settings.md lists the
same fields, and a check keeps the two equal. Listening addresses are called ``*_BIND``, never ``*_PORT``: Kubernetes
injects ``<SERVICE>_PORT=tcp://…`` for a Service, and ``BOBRAI_API_PORT`` would be one of them.
"""

import os
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import SettingsConfigDict

from bobrai import tls
from bobrai.domain.errors import ConfigurationError
from bobrai.settings.api import ApiSettings
from bobrai.settings.auth import AuthSettings
from bobrai.settings.group import Group
from bobrai.settings.servers import DatabaseSettings as DatabaseSettings
from bobrai.settings.servers import RabbitMQSettings as RabbitMQSettings
from bobrai.settings.values import (
    Address,
    Count,
    Names,
    Period,
    Queues,
    Seconds,
)


class LogSettings(Group):
    """What is printed."""

    model_config = SettingsConfigDict(env_prefix="BOBRAI_LOG_", frozen=True)

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severity that is printed.")
    format: Literal["auto", "json", "ecs", "console"] = Field(
        "auto",
        description="json, ecs (JSON with the field names of the Elastic Common Schema), console; auto: console on a"
        " terminal, JSON lines otherwise.",
    )


class TraceSettings(Group):
    """What traces look like; whether and where they go is said by the standard OTEL_ variables."""

    model_config = SettingsConfigDict(env_prefix="BOBRAI_TRACE_", frozen=True)

    link_after_seconds: Seconds = Field(
        60.0,
        description="A task that starts later than this after its submission gets a trace of its own, linked to the"
        " submission's, instead of one that spans the wait. So does every attempt after the first.",
    )


class DispatcherSettings(Group):
    """The process that publishes what is due and repairs what is stuck."""

    model_config = SettingsConfigDict(env_prefix="BOBRAI_DISPATCHER_", frozen=True)

    health_bind: Address = Field("127.0.0.1:8002", description="Where /livez, /readyz and /metrics are served.")
    batch_size: Count = Field(1000, description="Most hints taken from the outbox in one transaction.")
    window: Count = Field(
        200, description="Least number of hints kept ready per queue in RabbitMQ; more when workers prove faster."
    )
    poll_seconds: Seconds = Field(
        1.0, description="Longest sleep between two looks at the outbox, should a NOTIFY be lost."
    )
    reap_seconds: Seconds = Field(
        1.0, description="Period of the search for workers whose lease, and waiting tasks whose time, is over."
    )
    sweep_seconds: Seconds = Field(15.0, description="Period of the search for pending tasks that nothing holds.")
    sweep_grace_seconds: Seconds = Field(
        60.0, description="How long a task must have been due before it can count as lost by the broker."
    )
    measure_seconds: Seconds = Field(1.0, description="Age at which a queue's figures are measured again.")
    retention_seconds: Seconds = Field(7 * 86_400.0, description="How long finished tasks are kept.")
    queue_retention_seconds: Period = Field(
        7 * 86_400.0,
        description="How long a queue that a task made is kept after its last one, unless a worker consumes it, or it"
        " is paused, limited, or was made with PUT. 0: for ever.",
    )
    type_retention_seconds: Period = Field(
        366 * 86_400.0,
        description="How long a task type is known after its last worker; so long that a yearly task finds it in a pool"
        " that scales to zero. 0: for ever.",
    )
    audit_retention_seconds: Period = Field(
        90 * 86_400.0, description="How long it is known who changed what (`audit`). 0: for ever."
    )
    prune_seconds: Seconds = Field(10.0, description="Period of pruning; each round removes small batches.")
    drain_seconds: Seconds = Field(10.0, description="Time for the publish under way to finish after SIGTERM.")


class WorkerSettings(Group):
    """The process that runs handlers."""

    model_config = SettingsConfigDict(env_prefix="BOBRAI_WORKER_", frozen=True)

    health_bind: Address = Field("127.0.0.1:8003", description="Where /livez, /readyz and /metrics are served.")
    queues: Queues = Field(("default",), description="Queues to consume, separated by commas.")
    concurrency: Annotated[int, Field(ge=1, le=10_000)] = Field(50, description="Tasks that run at once.")
    lease_seconds: Seconds = Field(
        15.0, description="A worker that is silent for so long counts as lost, and its tasks are taken back."
    )
    heartbeat_seconds: Seconds = Field(
        2.0, description="Period of the lease's renewal, which also reads cancel wishes."
    )
    startup_seconds: Seconds = Field(
        300.0, description="Time for the start-up functions of handlers; a process that needs longer ends."
    )
    drain_seconds: Seconds = Field(
        30.0, description="Time for running tasks to finish after SIGTERM; the rest is given back."
    )
    max_tasks: Annotated[int, Field(ge=0)] = Field(0, description="Drain and exit 0 after this many tasks. 0: never.")
    max_memory_mib: Annotated[int, Field(ge=0)] = Field(
        0, description="Drain and exit 0 when resident memory passes this many MiB. 0: never."
    )
    blocked_seconds: Seconds = Field(
        1.0, description="A handler that blocks the event loop for so long is reported with its stack."
    )
    blocked_limit_seconds: Seconds = Field(
        600.0, description="A loop that is blocked for so long fails /livez, so that the process is restarted."
    )
    isolated: Annotated[int, Field(ge=0, le=1_000)] = Field(
        8,
        description="Tasks that were lost with a worker and now run each in a process of its own: at most so many at "
        "once, fewer when the container's memory is short. 0: they run like all others.",
    )
    process_max_tasks: Annotated[int, Field(ge=0)] = Field(
        1_000, description="A process that runs handlers is replaced after this many attempts. 0: never."
    )
    process_max_memory_mib: Annotated[int, Field(ge=0)] = Field(
        0,
        description="A process that runs handlers is replaced when an attempt leaves it with more MiB of resident "
        "memory. 0: never.",
    )


class ExternalMetricsSettings(Group):
    """The process that shows queue depths to Kubernetes' autoscaler."""

    model_config = SettingsConfigDict(env_prefix="BOBRAI_EXTERNAL_METRICS_", frozen=True)

    bind: Address = Field("127.0.0.1:8443", description="Where external.metrics.k8s.io is served, over TLS.")
    health_bind: Address = Field(
        "127.0.0.1:8004", description="Where /livez, /readyz and /metrics are served without TLS."
    )
    certificate: str = Field("", description="File of the server's certificate, in PEM; read again when it changes.")
    key: str = Field("", description="File of the certificate's private key, in PEM.")
    namespace: str = Field(
        "", description="The namespace whose autoscalers are answered. Empty: the one that the pod runs in."
    )
    stale_seconds: Seconds = Field(
        30.0,
        description="Age at which figures count as unknown, here and for /internal/scaling: three times the longest "
        "pause between two measurements.",
    )
    refresh_seconds: Seconds = Field(
        30.0, description="Period of the look for new certificates: the server's own, and those of the front proxy."
    )
    kubernetes_url: str = Field(
        "", description="Where the Kubernetes API is. Empty: where Kubernetes tells every pod that it is."
    )
    service_account_dir: str = Field(
        "/var/run/secrets/kubernetes.io/serviceaccount",
        description="Folder with the pod's token, ca.crt and namespace.",
    )
    deletion_cost: bool = Field(
        default=False,
        description="Mark busy worker pods with a higher pod-deletion-cost, so that scale-in takes idle ones.",
    )
    deletion_cost_seconds: Seconds = Field(5.0, description="Period in which the marks follow what workers do.")
    drain_seconds: Seconds = Field(5.0, description="Time for open requests to finish after SIGTERM.")

    def api_server(self) -> str:
        """Return the address of the Kubernetes API."""
        host = os.environ.get("KUBERNETES_SERVICE_HOST", "kubernetes.default.svc")
        port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        return self.kubernetes_url or f"https://{f'[{host}]' if ':' in host else host}:{port}"


class Settings(BaseModel):
    """Everything that the environment says, checked."""

    model_config = ConfigDict(frozen=True)

    database: DatabaseSettings
    rabbitmq: RabbitMQSettings
    log: LogSettings
    trace: TraceSettings
    api: ApiSettings
    auth: AuthSettings
    dispatcher: DispatcherSettings
    worker: WorkerSettings
    external_metrics: ExternalMetricsSettings
    handlers: tuple[str, ...] = ()
    data_dir: str = ".bobrai"
    api_key: SecretStr = SecretStr("")
    crash_point: str = ""


class _TopLevel(Group):
    model_config = SettingsConfigDict(env_prefix="BOBRAI_", frozen=True)

    handlers: Names = Field((), description="Modules that declare handlers, separated by commas.")
    data_dir: str = Field(".bobrai", description="Folder of the embedded PostgreSQL of `bobrai dev`.")
    api_key: SecretStr = Field(SecretStr(""), description="API key or token that `bobrai smoke` shows to the API.")
    crash_point: str = Field(
        "", description="Name of a checkpoint at which the process kills itself; for fault tests only."
    )


GROUPS: dict[str, type[Group]] = {
    "database": DatabaseSettings,
    "rabbitmq": RabbitMQSettings,
    "log": LogSettings,
    "trace": TraceSettings,
    "api": ApiSettings,
    "auth": AuthSettings,
    "dispatcher": DispatcherSettings,
    "worker": WorkerSettings,
    "external_metrics": ExternalMetricsSettings,
}


def variables() -> dict[str, tuple[str, str]]:
    """Return every environment variable with its default and its description."""
    found = {}
    groups: list[type[Group]] = [*GROUPS.values(), _TopLevel]
    for group in groups:
        for name, field in group.model_fields.items():
            default = field.default
            shown = default.get_secret_value() if isinstance(default, SecretStr) else default
            shown = ",".join(shown) if isinstance(shown, tuple) else "" if shown is None else str(shown)
            found[f"{group.model_config.get('env_prefix', '')}{name}".upper()] = (shown, field.description or "")
    return found


def secret_variables() -> set[str]:
    """Return the variables whose values are secrets, or URLs that may hold one."""
    groups: list[type[Group]] = [*GROUPS.values(), _TopLevel]
    return {
        f"{group.model_config.get('env_prefix', '')}{name}".upper()
        for group in groups
        for name, field in group.model_fields.items()
        if isinstance(field.default, SecretStr)
    }


def unknown_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the BOBRAI_ variables that nothing reads, each with the known name nearest to it, or an empty string.

    Test servers (BOBRAI_TEST_) and what Kubernetes injects for Services are left out.
    """
    known = variables()
    injected = ("_SERVICE_HOST", "_SERVICE_PORT", "_PORT", "_TCP", "_UDP", "_SCTP", "_ADDR", "_PROTO")
    return {
        name: next(iter(get_close_matches(name, known, n=1)), "")
        for name in environ
        if name.startswith("BOBRAI_")
        and name not in known
        and not name.startswith("BOBRAI_TEST_")
        and not name.endswith(injected)
        and "_SERVICE_PORT_" not in name
    }


def load(**overrides: Mapping[str, Any]) -> Settings:
    """Read the environment; ``overrides`` are the command line's wishes by group (``worker={"queues": …}``), and
    under ``top`` for variables without a group.

    Raises ConfigurationError naming every variable that is wrong, with secrets left out.
    """
    faults = [f"{name}: is not text in UTF-8" for name in variables() if not _is_text(os.environ.get(name, ""))]
    values: dict[str, Any] = {}
    groups: dict[str, type[Group]] = {**GROUPS, "top": _TopLevel}
    for name, group in groups.items():
        try:
            values[name] = group(**overrides.get(name, {}))
        except ValidationError as error:
            prefix = str(group.model_config.get("env_prefix", ""))
            faults += [_fault(prefix, fault) for fault in error.errors(include_url=False, include_input=False)]
    if not faults:
        faults = list(_incomplete(**values))
    if faults:
        raise ConfigurationError("; ".join(faults))
    top = values.pop("top")
    settings = Settings(**values, **{name: getattr(top, name) for name in _TopLevel.model_fields})
    _check_together(settings)
    return settings


def _is_text(value: str) -> bool:
    # Bytes that are no UTF-8 come as halves of surrogate pairs, which nothing beyond this process takes.
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)


def _fault(prefix: str, fault: ErrorDetails) -> str:
    return f"{prefix}{fault['loc'][0]}".upper() + f": {fault['msg'].removeprefix('Value error, ')}"


def _incomplete(
    database: DatabaseSettings, rabbitmq: RabbitMQSettings, api: ApiSettings, **_others: Group
) -> Iterator[str]:
    for prefix, group in (("BOBRAI_DATABASE_TLS_", database), ("BOBRAI_RABBITMQ_TLS_", rabbitmq)):
        yield from tls.incomplete(prefix, group.tls_certificate, group.tls_key, group.tls_ca)
    yield from tls.incomplete("BOBRAI_API_TLS_", api.tls_certificate, api.tls_key)
    if api.tls_client_ca and not api.tls_certificate:
        yield "BOBRAI_API_TLS_CERTIFICATE: must be set too, because BOBRAI_API_TLS_CLIENT_CA is"
    if rabbitmq.tls_ca and "amqp://" in rabbitmq.url.get_secret_value().lower():
        yield "BOBRAI_RABBITMQ_URL: must begin with amqps://, each of several, because BOBRAI_RABBITMQ_TLS_CA is set"


def _check_together(settings: Settings) -> None:
    worker = settings.worker
    if worker.heartbeat_seconds * 3 > worker.lease_seconds:
        raise ConfigurationError(
            "BOBRAI_WORKER_LEASE_SECONDS must be at least three times BOBRAI_WORKER_HEARTBEAT_SECONDS, "
            "so that one late heartbeat does not lose the lease"
        )


def environment() -> Mapping[str, str]:
    """Return the process environment, for the warning about unknown variables."""
    return os.environ
