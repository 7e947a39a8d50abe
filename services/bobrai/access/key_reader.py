"""Reads an issuer's keys over HTTP, where its discovery document says that they are.

In: one issuer's settings. Out: the body of its JSON Web Key Set, or IssuerUnavailable that names the address. Every
answer is limited in time and size; redirects are not followed and proxies of the environment not used. Next:
``issuer_keys.py``.
"""

import asyncio
import json
import ssl
from typing import Final
from urllib.parse import urlsplit

from bobrai import lean
from bobrai.domain.errors import ConfigurationError, IssuerUnavailable
from bobrai.settings.oidc import DISCOVERY, IssuerSettings, fault_of_url

with lean.without("pygments", "rich"):
    import httpx

MAX_ANSWER_BYTES: Final = 256 * 1024
_HEADERS: Final = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "bobrai"}


class KeyReader:
    """Asks one issuer for its keys."""

    def __init__(self, settings: IssuerSettings) -> None:
        self._settings = settings
        self._client: httpx.AsyncClient | None = None
        self._keys_url = settings.jwks_url
        self._discovery_url = settings.issuer.rstrip("/") + DISCOVERY
        self._context()

    @property
    def address(self) -> str:
        """Where the keys are read, as far as that is known."""
        return self._keys_url or self._discovery_url

    async def read(self) -> bytes:
        """Return the key set; raises IssuerUnavailable that says why there is none.

        After a failure nothing is kept of what was known: where the keys are, connections, the file of authorities.
        """
        asked = self.address
        try:
            async with asyncio.timeout(self._settings.timeout_seconds):
                if self._client is None:
                    self._client = self._open()
                if not self._keys_url:
                    asked = self._keys_url = await self._discovered(self._client)
                return await _get(self._client, self._keys_url)
        except TimeoutError:
            await self._forget()
            raise IssuerUnavailable(f"{asked}: no answer within {self._settings.timeout_seconds:g} s") from None
        except IssuerUnavailable:
            raise
        except Exception as error:  # whatever an answer made of the libraries
            await self._forget()
            told = str(error) or type(error).__name__
            raise IssuerUnavailable(told if told.startswith(asked) else f"{asked}: {told}") from error

    def look_again(self) -> None:
        """Ask anew where the keys are, with the next read."""
        self._keys_url = self._settings.jwks_url

    async def close(self) -> None:
        """Close every connection."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _forget(self) -> None:
        self.look_again()
        await self.close()

    def _context(self) -> ssl.SSLContext | bool:
        """Return what certificates are verified with; raises ConfigurationError for a file that cannot be used."""
        if not self._settings.ca_file:
            return True
        # Not the library's default: from Python 3.13 on it refuses authorities as some installers make them.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(cafile=self._settings.ca_file)
        except ssl.SSLError as error:
            told = (error.reason or "it cannot be read").lower().replace("_", " ")
        except OSError as error:
            told = error.strerror or type(error).__name__
        else:
            return context
        raise ConfigurationError(
            f"BOBRAI_AUTH_OIDC: ca_file {self._settings.ca_file!r} of the issuer {self._settings.name} must be a PEM"
            f" file of certificates that this process can read: {told}"
        )

    def _open(self) -> httpx.AsyncClient:
        try:
            verify = self._context()
        except ConfigurationError as error:  # by now
            raise IssuerUnavailable(str(error)) from error
        return httpx.AsyncClient(
            verify=verify,
            timeout=self._settings.timeout_seconds,
            headers=_HEADERS,
            trust_env=False,  # neither a proxy nor a password of .netrc that somebody meant for something else
            follow_redirects=False,
        )

    async def _discovered(self, client: httpx.AsyncClient) -> str:
        url = self._discovery_url
        try:
            document = json.loads(await _get(client, url))
        except RecursionError:
            document = None
        if not isinstance(document, dict):
            raise ValueError(f"{url} is no JSON object")  # noqa: TRY004 - of what came
        if document.get("issuer") != self._settings.issuer:
            raise ValueError(f"{url} is of another issuer: {str(document.get('issuer'))[:200]!r}")
        keys_url = document.get("jwks_uri")
        if not isinstance(keys_url, str):
            raise ValueError(f"{url}: jwks_uri is missing")  # noqa: TRY004 - of what came
        if fault := self._fault(keys_url):
            raise ValueError(f"{url}: jwks_uri {fault}")
        return keys_url

    def _fault(self, keys_url: str) -> str:
        allowed = self._settings.allow_http
        # An issuer that is asked over TLS does not send us elsewhere without it, not even to ourselves.
        if not allowed and urlsplit(self._settings.issuer).scheme == "https" != urlsplit(keys_url).scheme:
            return "must begin with https://"
        return fault_of_url(keys_url, allow_http=allowed)


async def _get(client: httpx.AsyncClient, url: str) -> bytes:
    async with client.stream("GET", url) as response:
        if response.is_redirect:
            raise ValueError(f"{url} leads elsewhere, which is not followed: name the right address in the settings")
        if response.status_code != httpx.codes.OK:
            raise ValueError(f"{url} answers {response.status_code}")
        # A small answer could unpack to a large one.
        if response.headers.get("content-encoding", "identity") != "identity":
            raise ValueError(f"{url} answers compressed, which was not asked for")
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > MAX_ANSWER_BYTES:
                raise ValueError(f"{url} answers more than {MAX_ANSWER_BYTES // 1024} KiB")
        return bytes(body)
