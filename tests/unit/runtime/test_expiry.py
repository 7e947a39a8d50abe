"""The end of a certificate is read as OpenSSL reads it, in both ways of writing a time."""

import ssl
import subprocess
from pathlib import Path

import pytest

from bobrai.runtime.expiry import ends_at

SUBJECT = "/CN=bobrai/O=" + 60 * "x" + "/OU=" + 60 * "x"  # longer than one octet counts


def _certificate(folder: Path, days: int, *more: str) -> bytes:
    file = folder / "tls.crt"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-keyout", str(folder / "tls.key"), "-out", str(file), "-days", str(days), "-subj", SUBJECT, *more],
        check=True, capture_output=True,
    )  # fmt: skip
    return file.read_bytes()


def _openssl_says(folder: Path) -> float:
    command = ["openssl", "x509", "-in", str(folder / "tls.crt"), "-noout", "-enddate"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(ssl.cert_time_to_seconds(text.strip().partition("=")[2]))


@pytest.mark.parametrize("days", [1, 3650, 36500], ids=["tomorrow", "two digits", "four digits"])
def test_the_end_is_what_openssl_says(tmp_path: Path, days: int) -> None:
    assert ends_at(_certificate(tmp_path, days)) == _openssl_says(tmp_path)


def test_many_names_before_the_end_do_not_matter(tmp_path: Path) -> None:
    names = ",".join(f"DNS:name-{number}.example.com" for number in range(200))
    assert ends_at(_certificate(tmp_path, 90, "-addext", f"subjectAltName={names}")) == _openssl_says(tmp_path)


def test_the_first_of_a_chain_counts(tmp_path: Path) -> None:
    (tmp_path / "leaf").mkdir()
    leaf, issuer = _certificate(tmp_path / "leaf", 10), _certificate(tmp_path, 3650)
    assert ends_at(b"# the leaf\n" + leaf + issuer) == _openssl_says(tmp_path / "leaf")


@pytest.mark.parametrize("text", [b"", b"hello", b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"])
def test_what_is_no_certificate_is_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"certificate|tag"):
        ends_at(text)
