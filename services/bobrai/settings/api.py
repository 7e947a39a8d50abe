"""The settings of the HTTP process: where it listens, what its clients may take, and under which address it is seen."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from bobrai.settings.group import Group
from bobrai.settings.values import Address, Count, Networks, Origins, RootPath, Seconds


class ApiSettings(Group):
    """The HTTP process."""

    model_config = SettingsConfigDict(env_prefix="BOBRAI_API_", frozen=True)

    bind: Address = Field("127.0.0.1:8001", description="Where HTTP is served.")
    tls_certificate: str = Field(
        "",
        description="File of the certificate with which HTTPS is served, in PEM, with those that lead to its authority;"
        " read again when it changes. Empty: HTTP without TLS.",
    )
    tls_key: str = Field("", description="File of the certificate's private key, in PEM, without a passphrase.")
    tls_client_ca: str = Field(
        "",
        description="File of the authorities (PEM) whose client certificates are taken; such clients need TLS 1.3."
        " Empty: clients are asked for none.",
    )
    tls_client_certificates: Literal["required", "optional"] = Field(
        "required",
        description="With client authorities: whether requests without a client's certificate are refused, all but"
        " those to /livez and /readyz. One that is shown must be right in any case.",
    )
    tls_refresh_seconds: Seconds = Field(10.0, description="Period of the look whether those files have changed.")
    max_backlog: Count = Field(
        5_000_000,
        description="Waiting tasks per queue above which submits get 429, unless the queue has its own limit.",
    )
    idempotency_ttl_seconds: Seconds = Field(86_400.0, description="How long an Idempotency-Key is remembered.")
    drain_seconds: Seconds = Field(10.0, description="Time for open requests to finish after SIGTERM.")
    wait_tick_seconds: Seconds = Field(
        0.05, description="How often the tasks that ?wait= requests wait for are looked up, all in one query."
    )
    make_queues: bool = Field(
        default=True,
        description="Whether a task may make the queue that it names. Otherwise only PUT, workers and the queues of"
        " announced types do.",
    )
    refresh_seconds: Seconds = Field(1.0, description="Age at which known queues and task types are read again.")
    keep_alive_seconds: Seconds = Field(
        75.0,
        description="How long a connection may lie idle between two requests. Longer than a proxy in front of the API "
        "keeps one, so that the proxy closes first: 620 behind Google's load balancers.",
    )
    max_bodies_bytes: Annotated[int, Field(ge=24 * 1024 * 1024)] = Field(
        48 * 1024 * 1024,
        description="Bytes of request bodies that a process holds at once, a quarter of them for small ones only. "
        "Beyond, large ones wait for 8 s, then get 503. A large batch takes up to six times its size of memory.",
    )
    max_requests: Count = Field(
        5_000,
        description="Requests under way at once, but for probes and those that wait for a task; beyond: 503.",
    )
    max_requests_per_principal: Count = Field(
        2_500,
        description="Requests of one key, or of one subject of tokens, under way at once in a process, with those that"
        " wait for a task; beyond: 429.",
    )
    max_connections: Count = Field(
        10_000,
        description="Connections at once; beyond, the one that has kept the server waiting longest makes room.",
    )
    max_connections_per_address: Annotated[int, Field(ge=0)] = Field(
        0,
        description="Connections of one address at once; beyond, new ones end at once. 0: without bound, as behind a "
        "proxy, whose address all of them have.",
    )
    root_path: RootPath = Field(
        "",
        description="Path under which a gateway serves the API, such as `/bobrai`, for Location and links. Requests "
        "may come with it or without it: a gateway may pass it on or strip it. Empty: the root.",
    )
    cors_origins: Origins = Field(
        (),
        description="Origins whose pages may use the API from a browser, separated by commas, such as"
        " `https://app.example.org`; `*`: every page, which then changes nothing without a credential. Empty: none, as"
        " browsers do by default.",
    )
    trusted_proxies: Networks = Field(
        (),
        description="Networks (CIDR, separated by commas) whose X-Forwarded-Prefix, -Proto, -Host, -For are believed;"
        " the proxies there must set or remove them all, and add to the last. None: nobody's.",
    )
