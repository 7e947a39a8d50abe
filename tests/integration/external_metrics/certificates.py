"""Authorities of a test's own, made by the `openssl` command: for the cluster, the front proxy, strangers."""

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

LOCAL = "DNS:localhost,IP:127.0.0.1"


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as files."""

    certificate: Path
    key: Path


class Authority:
    """An authority that signs for clients and servers, itself signed by a parent or by itself."""

    def __init__(self, folder: Path, name: str, parent: "Authority | None" = None) -> None:
        self.name = name
        self._folder = folder / name
        self._folder.mkdir()
        if parent is not None:
            self._own = parent._issue(name, "basicConstraints=critical,CA:true\nkeyUsage=keyCertSign")
            return
        self._own = Pair(self._folder / "ca.crt", self._folder / "ca.key")
        _openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
            "-subj", f"/CN={name}", "-keyout", self._own.key, "-out", self._own.certificate,
        )  # fmt: skip

    @property
    def file(self) -> Path:
        """Its certificate."""
        return self._own.certificate

    @property
    def pem(self) -> str:
        """Its certificate's text."""
        return self.file.read_text()

    def client(self, name: str) -> Pair:
        """A client's certificate with a common name."""
        return self._issue(name, "extendedKeyUsage=clientAuth")

    def server(self, *names: str) -> Pair:
        """A server's certificate for this machine and other names."""
        alternatives = ",".join([LOCAL, *(f"DNS:{name}" for name in names)])
        return self._issue("server", f"extendedKeyUsage=serverAuth\nsubjectAltName={alternatives}")

    def _issue(self, name: str, extensions: str) -> Pair:
        stem = f"{name}-{len(list(self._folder.iterdir()))}"
        pair = Pair(self._folder / f"{stem}.crt", self._folder / f"{stem}.key")
        request, wishes = self._folder / f"{stem}.csr", self._folder / f"{stem}.cnf"
        wishes.write_text(extensions + "\n")
        _openssl(
            "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
            "-keyout", pair.key, "-out", request,
        )  # fmt: skip
        _openssl(
            "x509", "-req", "-in", request, "-CA", self._own.certificate, "-CAkey", self._own.key, "-CAcreateserial",
            "-days", "1", "-extfile", wishes, "-out", pair.certificate,
        )  # fmt: skip
        return pair


def client_context(trusted: Authority, shown: Pair | None = None) -> ssl.SSLContext:
    """How a client connects: whom it believes, and what it shows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(trusted.file)
    if shown is not None:
        context.load_cert_chain(shown.certificate, shown.key)
    return context


def _openssl(*arguments: str | Path) -> None:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
