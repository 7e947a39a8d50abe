"""The Kubernetes API, as far as this process needs it: one ConfigMap read, one annotation written.

In: the pod's service account, whose token and authority are read anew for each call, because both are replaced while
the pod runs. Out: data, or ClusterUnavailable. Every call has a deadline.
"""

import asyncio
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote

from bobrai import lean
from bobrai.domain.errors import ClusterUnavailable

with lean.without("pygments", "rich"):
    import httpx

_CALL_SECONDS: Final = 5.0


class Kubernetes:
    """A client of the API server; ``account`` is the folder with token and ca.crt."""

    def __init__(self, url: str, account: Path) -> None:
        self._url = url
        self._account = account
        self._authority = ""
        self._client: httpx.AsyncClient | None = None

    async def config_map(self, namespace: str, name: str) -> Mapping[str, str]:
        """Return the data of a ConfigMap; raises ClusterUnavailable."""
        response = await self._call("GET", f"/api/v1/namespaces/{quote(namespace)}/configmaps/{quote(name)}")
        try:
            data = response.json().get("data")
        except ValueError as error:
            raise ClusterUnavailable(f"ConfigMap {name} is not JSON") from error
        return data if isinstance(data, dict) else {}

    async def annotate_pod(self, namespace: str, name: str, annotations: Mapping[str, str]) -> bool:
        """Set annotations of a pod; returns False when there is no such pod. Raises ClusterUnavailable."""
        path = f"/api/v1/namespaces/{quote(namespace)}/pods/{quote(name, safe='')}"
        response = await self._call("PATCH", path, {"metadata": {"annotations": dict(annotations)}})
        return response.status_code != httpx.codes.NOT_FOUND

    async def close(self) -> None:
        """Close every connection."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _call(self, method: str, path: str, patch: object = None) -> httpx.Response:
        try:
            async with asyncio.timeout(_CALL_SECONDS):
                client = await self._open()
                headers = {"Authorization": f"Bearer {self._read('token')}", "Accept": "application/json"}
                if patch is not None:
                    headers["Content-Type"] = "application/merge-patch+json"
                response = await client.request(method, path, headers=headers, json=patch)
        except (httpx.HTTPError, OSError, TimeoutError) as error:
            raise ClusterUnavailable(f"{method} {path}: {error or type(error).__name__}") from error
        if response.is_success or (method == "PATCH" and response.status_code == httpx.codes.NOT_FOUND):
            return response
        raise ClusterUnavailable(f"{method} {path}: {response.status_code} {_message(response)}")

    async def _open(self) -> httpx.AsyncClient:
        authority = self._read("ca.crt")
        if self._client is None or authority != self._authority:
            await self.close()
            self._client = httpx.AsyncClient(
                base_url=self._url,
                verify=_verifying(authority),
                timeout=_CALL_SECONDS,
                trust_env=False,  # a proxy of the environment is for the world outside, not for this cluster
            )
            self._authority = authority
        return self._client

    def _read(self, name: str) -> str:
        return (self._account / name).read_text(encoding="utf-8").strip()


def _verifying(authority: str) -> ssl.SSLContext:
    # Not the library's default: from Python 3.13 on it refuses authorities as Kubernetes' installers make them.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=authority)
    return context


def _message(response: httpx.Response) -> str:
    try:
        return str(response.json().get("message", ""))[:500]
    except (ValueError, AttributeError):
        return response.reason_phrase
