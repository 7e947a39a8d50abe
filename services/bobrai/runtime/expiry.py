"""When a certificate ends.

In: a certificate in PEM. Out: the moment in seconds since 1970. The standard library tells it only of a peer's
certificate, and a library for this alone would weigh more than the process; so this reads the few fields of X.509 that
come before it (RFC 5280, 4.1).
"""

import re
import ssl
from datetime import UTC, datetime
from typing import Final, NamedTuple

_VERSION, _UTC_TIME, _GENERALIZED_TIME = 0xA0, 0x17, 0x18
_CERTIFICATE: Final = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


class _Element(NamedTuple):
    tag: int
    start: int  # of the content
    end: int


def ends_at(pem: bytes) -> float:
    """Return when the first certificate ends; raises ValueError when there is none, or it cannot be read."""
    found = _CERTIFICATE.search(pem.decode("ascii", "replace"))
    if found is None:
        raise ValueError("there is no certificate in PEM")
    der = ssl.PEM_cert_to_DER_cert(found[0])
    try:
        return _not_after(der).timestamp()
    except IndexError as error:
        raise ValueError("the certificate is cut off") from error


def _not_after(der: bytes) -> datetime:
    certificate = _element(der, 0)
    signed = _element(der, certificate.start)
    field = _element(der, signed.start)
    if field.tag == _VERSION:
        field = _element(der, field.end)
    for _ in ("signature algorithm", "issuer", "validity"):
        field = _element(der, field.end)
    begin = _element(der, field.start)
    end = _element(der, begin.end)
    text = der[end.start : end.end].decode("ascii")
    if end.tag == _UTC_TIME:
        # two digits: 50 to 99 are of the last century
        text = ("19" if text >= "50" else "20") + text
    elif end.tag != _GENERALIZED_TIME:
        raise ValueError(f"the certificate's end is no time but the tag {end.tag:#x}")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _element(der: bytes, at: int) -> _Element:
    tag, length, start = der[at], der[at + 1], at + 2
    if length >= 0x80:
        octets = length - 0x80
        length = int.from_bytes(der[start : start + octets], "big")
        start += octets
    return _Element(tag, start, start + length)
