"""Certificates, keys and authorities that variables name: files in PEM, read and told apart in clear words.

In: paths, and the variables that hold them. Out: SSL contexts, a DSN that verifies, or ConfigurationError with the
variable to change. Next: who serves (``runtime/certificates``) and who connects (``store``, ``broker``).
"""

import ssl
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote

from bobrai.domain.errors import ConfigurationError

_OURS: Final = frozenset({"sslmode", "sslrootcert", "sslcert", "sslkey"})
# X509_V_ERR_: signed by itself, alone or in its chain; issuer not found; first signature not verifiable
_UNKNOWN_AUTHORITY: Final = frozenset({18, 19, 20, 21})


class _Encrypted(Exception):
    """OpenSSL asks for the passphrase of a key."""


def load_pair(context: ssl.SSLContext, names: tuple[str, str], certificate: str, key: str) -> None:
    """Let a context show this certificate; ``names`` are those of the variables.

    Raises ConfigurationError.
    """
    for name, file in zip(names, (certificate, key), strict=True):
        _readable(name, file)
    try:
        context.load_cert_chain(certificate, key, password=_no_passphrase)
    except _Encrypted:
        raise ConfigurationError(f"{names[1]}: {key} is encrypted; write the key without a passphrase") from None
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigurationError(
                f"{names[1]}: the key in {key} is not that of the certificate in {certificate}"
            ) from error
        raise ConfigurationError(
            f"{names[0]} and {names[1]}: {certificate} and {key} must be a certificate and its private key, both in "
            f"PEM: {_words(error)}"
        ) from error


def load_authorities(context: ssl.SSLContext, variable: str, file: str) -> None:
    """Let a context believe the authorities in this file; raises ConfigurationError."""
    _readable(variable, file)
    try:
        context.load_verify_locations(cafile=file)
    except ssl.SSLError as error:
        raise ConfigurationError(f"{variable}: {file} must hold certificates in PEM: {_words(error)}") from error


def client_context(prefix: str, authorities: str, certificate: str, key: str) -> ssl.SSLContext:
    """Return how to connect to a server whose certificate and host name these authorities vouch for.

    Raises ConfigurationError when a file cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    load_authorities(context, f"{prefix}CA", authorities)
    if certificate:
        load_pair(context, (f"{prefix}CERTIFICATE", f"{prefix}KEY"), certificate, key)
    return context


def incomplete(prefix: str, certificate: str, key: str, authorities: str | None = None) -> Iterator[str]:
    """Yield what is missing beside these settings; ``authorities`` are those that a client cannot do without."""
    if bool(certificate) != bool(key):
        given, missing = ("CERTIFICATE", "KEY") if certificate else ("KEY", "CERTIFICATE")
        yield f"{prefix}{missing}: must be set too, because {prefix}{given} is"
    elif certificate and authorities == "":
        yield f"{prefix}CA: must be set too, because {prefix}CERTIFICATE is"


def verifying(dsn: str, authorities: str, certificate: str, key: str) -> str:
    """Return a DSN of PostgreSQL whose server must prove itself to these authorities, unless it says sslmode=disable.

    The driver reads the files at every connection, so that new ones count from then on.
    """
    if not dsn or not authorities:
        return dsn
    base, _, query = dsn.partition("?")
    said = [item for item in query.split("&") if item]
    if "sslmode=disable" in said:
        return dsn
    files = {"sslrootcert": authorities, "sslcert": certificate, "sslkey": key}
    kept = [item for item in said if item.partition("=")[0] not in _OURS]
    ours = [f"{name}={quote(file)}" for name, file in files.items() if file]
    return f"{base}?{'&'.join([*kept, 'sslmode=verify-full', *ours])}"


def reason(error: ssl.SSLError) -> str:
    """Return why a handshake failed, in words that tell an operator where to look."""
    if isinstance(error, ssl.SSLCertVerificationError):
        said = error.verify_message.rstrip(".")
        why = f"its authority is unknown ({said})" if error.verify_code in _UNKNOWN_AUTHORITY else said
        return f"the server's certificate is not accepted: {why}"
    return f"TLS failed: {_words(error)}"


def _no_passphrase() -> str:
    raise _Encrypted  # or OpenSSL would ask on the terminal, and wait there


def _readable(variable: str, file: str) -> None:
    try:
        with open(file, "rb") as opened:  # noqa: PTH123 - a path that is a folder fails here too
            opened.read(1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigurationError(f"{variable}: {file} cannot be read: {why}") from error


def _words(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).replace("_", " ").lower()
