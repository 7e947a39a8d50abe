"""The servers that processes stand on: where PostgreSQL and RabbitMQ are, whose credentials, how long to wait."""

import ssl
from typing import Annotated

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from bobrai import tls
from bobrai.settings.group import Group
from bobrai.settings.values import AmqpUrls, Count, DatabaseUrl, Seconds, with_credentials


class DatabaseSettings(Group):
    """PostgreSQL, through PgBouncer in transaction mode or directly."""

    model_config = SettingsConfigDict(env_prefix="BOBRAI_DATABASE_", frozen=True)

    url: DatabaseUrl = Field(
        SecretStr(""),
        description="DSN of the pooler, or of PostgreSQL itself where there is none. "
        "Of several hosts (`host1:5432,host2:5432`) the one that takes writes is used.",
    )
    direct_url: DatabaseUrl = Field(
        SecretStr(""),
        description="DSN that bypasses the pooler, for migrations and LISTEN. Empty: the same as the URL.",
    )
    user: str = Field("", description="Replaces the user that both DSNs name, so that they need not hold it.")
    password: SecretStr = Field(
        SecretStr(""), description="Replaces the password in both DSNs; any character is allowed, as it is."
    )
    tls_ca: str = Field(
        "",
        description="File of the authorities (PEM) that the server's certificate is verified against, with its host"
        " name: `sslmode=verify-full` for both DSNs, but for one that says `sslmode=disable`.",
    )
    tls_certificate: str = Field("", description="File of a client certificate (PEM) that is shown to the server.")
    tls_key: str = Field("", description="File of the client certificate's private key, in PEM.")
    pool_size: Count = Field(8, description="Connections per process; batches make few connections enough.")
    connect_timeout_seconds: Seconds = Field(4.0, description="Longest wait for a free or new connection.")
    command_timeout_seconds: Seconds = Field(
        5.0, description="Longest run of one statement; with the connect timeout under the 10 s that a client may wait."
    )
    statement_cache_size: Annotated[int, Field(ge=0)] = Field(
        100,
        description="Prepared statements per connection. 0 for a pooler that does not track them (PgBouncer < 1.21).",
    )

    def pooled(self) -> str:
        """Return the DSN for all but what must not go through a pooler, with the credentials in it."""
        return self._verifying(with_credentials(self.url.get_secret_value(), self.user, self.password))

    def direct(self) -> str:
        """Return the DSN for what must not go through a pooler, with the credentials in it."""
        own = with_credentials(self.direct_url.get_secret_value(), self.user, self.password)
        return self._verifying(own) or self.pooled()

    def _verifying(self, dsn: str) -> str:
        return tls.verifying(dsn, self.tls_ca, self.tls_certificate, self.tls_key)


class RabbitMQSettings(Group):
    """The broker that carries hints."""

    model_config = SettingsConfigDict(env_prefix="BOBRAI_RABBITMQ_", frozen=True)

    url: AmqpUrls = Field(
        SecretStr(""), description="AMQP URL; several, separated by commas, name the nodes of one cluster."
    )
    user: str = Field("", description="Replaces the user in every URL, so that they need not hold it.")
    password: SecretStr = Field(
        SecretStr(""), description="Replaces the password in every URL; any character is allowed, as it is."
    )
    tls_ca: str = Field(
        "",
        description="File of the authorities (PEM) that the nodes' certificates are verified against, with their host"
        " names. Empty: those that the system knows. Every URL must begin with amqps://.",
    )
    tls_certificate: str = Field("", description="File of a client certificate (PEM) that is shown to the nodes.")
    tls_key: str = Field("", description="File of the client certificate's private key, in PEM.")
    queue_prefix: Annotated[str, Field(pattern=r"^[a-z0-9._-]{1,40}$")] = Field(
        "bobrai.", description="Starts the name of every RabbitMQ queue of this installation."
    )
    connect_timeout_seconds: Seconds = Field(5.0, description="Longest wait for one node's handshake.")
    confirm_timeout_seconds: Seconds = Field(
        10.0, description="Longest wait for publisher confirms before the hints are published again."
    )

    def addresses(self) -> str:
        """Return the URLs of all nodes, separated by commas, with the credentials in them."""
        urls = (part.strip() for part in self.url.get_secret_value().split(","))
        return ",".join(with_credentials(url, self.user, self.password) for url in urls if url)

    def make_context(self) -> ssl.SSLContext | None:
        """Return how nodes prove themselves, None to leave it to the URLs; raises ConfigurationError."""
        if not self.tls_ca:
            return None
        return tls.client_context("BOBRAI_RABBITMQ_TLS_", self.tls_ca, self.tls_certificate, self.tls_key)
