"""What of the settings must not be seen, so that whoever prints or stores text can take it out.

In: the settings and the environment. Out: passwords and tokens, also those inside of URLs, and the names beside them,
which are no secrets.
"""

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote, unquote_plus

from pydantic import BaseModel, SecretStr

from bobrai.settings import Settings

_AUTHORITY: Final = re.compile(r"(?<=://)(?:([^/\s]*)@)?([^/?#\s]*)(?:/([^/?#,\s]*))?")
_IN_QUERY: Final = re.compile(r"[?&]\w*password=([^&,\s]+)")
# What asyncpg and OpenTelemetry read on their own.
_PASSWORDS: Final = ("PGPASSWORD",)
_HEADERS: Final = ("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS")


def of(settings: Settings, environ: Mapping[str, str]) -> tuple[set[str], set[str]]:
    """Return the secrets of the settings, and the words beside them that are public: users, hosts, databases."""
    secrets: set[str] = set()
    public: set[str] = set()
    secrets.add(settings.api_key.get_secret_value())
    for group in (getattr(settings, name) for name in type(settings).model_fields):
        if not isinstance(group, BaseModel):
            continue
        for name in type(group).model_fields:
            value = getattr(group, name)
            if isinstance(value, SecretStr):
                _take(value.get_secret_value(), secrets, public)
            elif name == "user":
                public.add(value)
    secrets |= {environ[name] for name in _PASSWORDS if name in environ}
    for name in _HEADERS:
        for header in environ.get(name, "").split(","):
            value = unquote(header.partition("=")[2].strip())
            secrets |= {value, value.rpartition(" ")[2]}
    return secrets - {""}, public - {""}


def _take(text: str, secrets: set[str], public: set[str]) -> None:
    if "://" not in text:
        secrets.add(text)
        return
    for own, hosts, path in _AUTHORITY.findall(text):
        user, _, password = own.partition(":")
        secrets |= {password, unquote(password)}
        public |= {user, unquote(user), path, *re.split(r"[:,.]", hosts), *hosts.split(",")}
    for password in _IN_QUERY.findall(text):
        secrets |= {password, unquote_plus(password)}
