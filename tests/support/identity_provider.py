"""A provider of identities as a process of its own: discovery, keys and tokens over real HTTP, with keys of its own.

It signs with ``cryptography`` alone, so that it shares nothing with what verifies. It makes tokens as they are ordered,
right or wrong in any way, and can be slow, answer nonsense, change its keys, and go away. `IdentityProvider` is what a
test holds; the rest runs in the process.
"""

import base64
import functools
import hashlib
import hmac
import json
import ssl
import sys
import threading
import time
import urllib.request
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.eventually import eventually_sync
from tests.support.processes import Process, Processes

AUDIENCE = "bobrai"
DISCOVERY = "/.well-known/openid-configuration"
KEYS = "/keys"
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


class IdentityProvider:
    """The process, as a test sees it."""

    def __init__(
        self,
        processes: Processes,
        port: int,
        algorithms: tuple[str, ...] = ("RS256", "ES256", "EdDSA"),
        certificate: tuple[str, str] | None = None,
    ) -> None:
        """`certificate` is that of a server and its key, as files: without, there is no TLS."""
        self._processes = processes
        self._arguments = (str(port), *(certificate or ()))
        self._port = port
        self.url = f"{'https' if certificate else 'http'}://127.0.0.1:{port}"
        self.process = self.start()
        self.key_ids = {algorithm: self.make_key(algorithm) for algorithm in algorithms}

    def start(self) -> Process:
        """Start it, also again; it has no keys then."""
        command = [sys.executable, "-m", "tests.support.identity_provider", *self._arguments]
        self.process = self._processes.run(command, name="identity-provider", port=self._port)
        eventually_sync(lambda: self._ask("/counts"), 20, message="the identity provider answers")
        return self.process

    def make_key(self, algorithm: str, key_id: str | None = None, **fields: Any) -> str:
        """Make and publish a key; `fields` replace or (None) remove those of its JWK. Returns its id."""
        return str(self._ask("/make-key", {"algorithm": algorithm, "kid": key_id, "fields": fields})["kid"])

    def publish(self, jwk: object) -> None:
        """Publish whatever this is among the keys."""
        self._ask("/publish", {"jwk": jwk})

    def withdraw(self, key_id: str) -> None:
        """Publish a key no longer; tokens can be signed with it all the same."""
        self._ask("/withdraw", {"kid": key_id})

    def behave(self, path: str, **behaviour: Any) -> None:
        """Answer a path in another way from now on: `status`, `body`, `headers`, `delay_seconds`; nothing: as ever."""
        self._ask("/behave", {"path": path, "behaviour": behaviour})

    def token(self, algorithm: str = "RS256", *, claims: dict[str, Any] | None = None, **order: Any) -> str:
        """A token that is right, but for what is ordered: `claims` and `header` replace or (None) remove fields;
        `kid` names the key; `signed` is "by_another", "with_public_key" (HMAC), "not_at_all"."""
        kid = order.pop("kid", None) or self.key_ids[algorithm]
        return str(self._ask("/token", {"kid": kid, "claims": claims or {}, **order})["token"])

    def fetches(self, path: str = KEYS) -> int:
        """How often a path was asked for."""
        return int(self._ask("/counts").get(path, 0))

    def _ask(self, path: str, order: object = None) -> dict[str, Any]:
        data = None if order is None else json.dumps(order).encode()
        request = urllib.request.Request(self.url + path, data)
        # These are the test's own orders: neither certificates nor a proxy that a test sets are of interest.
        handlers = urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=_trusting())
        with urllib.request.build_opener(*handlers).open(request, timeout=10) as response:
            answer: dict[str, Any] = json.load(response)
            return answer


class Provider:
    """What the process knows."""

    def __init__(self, issuer: str) -> None:
        self.issuer = issuer
        self.private: dict[str, PrivateKey] = {}
        self.published: dict[str, object] = {}
        self.behaviour: dict[str, dict[str, Any]] = {}
        self.counts: Counter[str] = Counter()

    def discovery(self) -> dict[str, Any]:
        return {"issuer": self.issuer, "jwks_uri": self.issuer + KEYS, "token_endpoint": f"{self.issuer}/token"}

    def make_key(self, order: dict[str, Any]) -> dict[str, Any]:
        algorithm = order["algorithm"]
        kid = order["kid"] or f"{algorithm}-{len(self.private) + 1}"
        self.private[kid] = private_key(algorithm)
        fields = {"kid": kid, "use": "sig", "alg": algorithm, **public_jwk(self.private[kid])} | order["fields"]
        self.published[kid] = {name: value for name, value in fields.items() if value is not None}
        return {"kid": kid}

    def publish(self, order: dict[str, Any]) -> dict[str, Any]:
        self.published[f"raw-{len(self.published)}"] = order["jwk"]
        return {}

    def withdraw(self, order: dict[str, Any]) -> dict[str, Any]:
        del self.published[order["kid"]]
        return {}

    def behave(self, order: dict[str, Any]) -> dict[str, Any]:
        self.behaviour[order["path"]] = order["behaviour"]
        return {}

    def token(self, order: dict[str, Any]) -> dict[str, Any]:
        kid, how, now = order["kid"], order.get("signed", ""), int(time.time())
        key = self.private[kid]
        claims = {"iss": self.issuer, "aud": AUDIENCE, "sub": "somebody", "iat": now, "nbf": now, "exp": now + 300}
        claims |= order["claims"]
        algorithm = {"with_public_key": "HS256", "not_at_all": "none"}.get(how, algorithm_of(key))
        header = {"alg": algorithm, "typ": "JWT", "kid": kid} | order.get("header", {})
        parts = [{name: value for name, value in part.items() if value is not None} for part in (header, claims)]
        signed = ".".join(base64url(json.dumps(part).encode()) for part in parts)
        if how == "not_at_all":
            signature = b""
        elif how == "with_public_key":
            pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            signature = hmac.digest(pem, signed.encode(), hashlib.sha256)
        else:
            signature = sign(private_key(algorithm_of(key)) if how == "by_another" else key, signed.encode())
        return {"token": f"{signed}.{base64url(signature)}"}


@functools.cache
def _trusting() -> ssl.SSLContext:
    return ssl._create_unverified_context()


def private_key(algorithm: str) -> PrivateKey:
    """A new key for an algorithm; RS256-1024 is one that is too short."""
    if algorithm.startswith("RS256"):
        return rsa.generate_private_key(65537, int(algorithm.partition("-")[2] or 2048))
    return ec.generate_private_key(ec.SECP256R1()) if algorithm == "ES256" else ed25519.Ed25519PrivateKey.generate()


def algorithm_of(key: PrivateKey) -> str:
    """What a key signs with."""
    if isinstance(key, rsa.RSAPrivateKey):
        return "RS256"
    return "ES256" if isinstance(key, ec.EllipticCurvePrivateKey) else "EdDSA"


def sign(key: PrivateKey, data: bytes) -> bytes:
    """The signature as RFC 7518 and RFC 8037 write it."""
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PKCS1v15(), hashes.SHA256())
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(data)
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def public_jwk(key: PrivateKey) -> dict[str, str]:
    """The public half as a JSON Web Key."""
    if isinstance(key, rsa.RSAPrivateKey):
        public = key.public_key().public_numbers()
        n, e = (number.to_bytes((number.bit_length() + 7) // 8, "big") for number in (public.n, public.e))
        return {"kty": "RSA", "n": base64url(n), "e": base64url(e)}
    if isinstance(key, ed25519.Ed25519PrivateKey):
        raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return {"kty": "OKP", "crv": "Ed25519", "x": base64url(raw)}
    point = key.public_key().public_numbers()
    x, y = (base64url(number.to_bytes(32, "big")) for number in (point.x, point.y))
    return {"kty": "EC", "crv": "P-256", "x": x, "y": y}


def base64url(data: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def main(port: int, certificate: str = "", key: str = "") -> None:
    """Serve until killed."""
    provider = Provider(f"{'https' if certificate else 'http'}://127.0.0.1:{port}")
    lock = threading.Lock()
    orders = {
        f"/{name}": getattr(provider, name.replace("-", "_"))
        for name in ("make-key", "publish", "withdraw", "behave", "token")
    }

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            with lock:
                provider.counts[self.path] += 1
                behaviour = dict(provider.behaviour.get(self.path, {}))
                documents = {
                    DISCOVERY: provider.discovery(),
                    KEYS: {"keys": list(provider.published.values())},
                    "/counts": dict(provider.counts),
                }
            time.sleep(behaviour.get("delay_seconds", 0))
            body = behaviour.get("body", json.dumps(documents.get(self.path)))
            self._answer(behaviour.get("status", 200), body.encode(), behaviour.get("headers", {}))

        def do_POST(self) -> None:
            order = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock:
                self._answer(200, json.dumps(orders[self.path](order)).encode(), {})

        def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in (
                {"content-type": "application/json", "content-length": str(len(body))} | headers
            ).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
