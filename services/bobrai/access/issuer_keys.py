"""The keys of one issuer, as they are known now: read again in time, when an unknown one is named, and not too often.

In: what ``key_reader.py`` reads. Out: a key, CredentialRefused when the issuer has none of that id, IssuerUnavailable
when nobody can tell. Next: ``oidc.py``.
"""

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from math import ceil, inf
from typing import Final

from bobrai.access import jwks, refusals
from bobrai.access.key_reader import KeyReader
from bobrai.domain.errors import IssuerUnavailable
from bobrai.settings.oidc import IssuerSettings
from bobrai.telemetry import logs, metrics

log = logs.get_logger(__name__)

MAX_WAITING: Final = 100  # requests that wait for the keys of one issuer at once
_LONGEST_PAUSE_SECONDS: Final = 30.0
# A read that takes longer hangs: who comes then waits a short while only, so that it holds few requests up.
_HANGING_SECONDS: Final = 1.0
_SHORT_SECONDS: Final = 0.5
_MAX_TOLD: Final = 10  # reasons why keys are left out

Look = Callable[[], None]


def nothing() -> None:
    """Do nothing, where nobody is to be asked or told."""


class IssuerKeys:
    """Knows the keys of one issuer. One fetch is under way at most, and all who need it wait for the same one.

    ``wake`` is called when a fetch that somebody asked for has failed, so that ``refresh`` is called in time.
    """

    def __init__(self, settings: IssuerSettings, *, max_waiting: int = MAX_WAITING) -> None:
        self.settings = settings
        self.wake: Look = nothing
        self._reader = KeyReader(settings)
        self._keys: jwks.Keys = {}
        self._without_id: dict[str, list[jwks.Key]] = {}
        self._fetch: asyncio.Task[None] | None = None
        self._fetch_began = -inf
        self._max_waiting = max_waiting
        self.waiting = 0
        """How many requests wait for a fetch now."""
        self._read_at = -inf
        self._asked_at = -inf
        self._due_at = -inf
        self._failures = 0

    @property
    def age(self) -> float | None:
        """Seconds since the keys were last read; None: never."""
        return None if self._read_at == -inf else time.monotonic() - self._read_at

    @property
    def usable(self) -> int:
        """How many keys there are that tokens can be verified with now."""
        now = time.monotonic()
        return sum(key.good_until > now for key in self._all())

    async def find(self, key_id: str | None, algorithm: str, look: Look = nothing) -> jwks.Key:
        """Return the key that a token names; without a name the only one there is for its algorithm.

        One that is not known is asked for at once, unless it was asked for one a moment ago, whatever its name.
        ``look`` is called before anybody waits, and may raise instead.
        """
        if (key := self._known(key_id, algorithm)) is not None:
            return key
        await self._ask(look)
        if (key := self._known(key_id, algorithm)) is not None:
            return key
        if self._failures or not self._is_fresh():
            raise self._unavailable("unreadable")
        wanted = "of the id that the token names" if key_id is not None else "that is the only one for its algorithm"
        raise refusals.refused(
            refusals.UNKNOWN_KEY,
            f"the issuer {self.settings.name} has no key {wanted}; one made just now is known soon",
        )

    async def find_newer(self, known: jwks.Key, key_id: str | None, look: Look = nothing) -> jwks.Key | None:
        """Return the key that has taken the place of one that did not fit, None when there is no other.

        It is asked for as one that is not known; an issuer need not give a new key a new id, or any.
        """
        await self._ask(look)
        key = self._known(key_id, known.algorithm)
        if key is known and self._failures:
            raise self._unavailable("unreadable", held_up=True)  # and it has proved nothing so far
        return None if key is known else key

    async def refresh(self) -> float:
        """Read the keys again when it is time; returns the seconds until it is time again. A failure is only logged."""
        if time.monotonic() >= self._due_at:
            if self._fetch is None:
                self._reader.look_again()
            await self._joined()
        return max(0.0, self._due_at - time.monotonic())

    async def close(self) -> None:
        """End the fetch under way, and close every connection."""
        if self._fetch is not None:
            self._fetch.cancel()
            await asyncio.wait({self._fetch})
        await self._reader.close()

    def _known(self, key_id: str | None, algorithm: str) -> jwks.Key | None:
        if key_id is None:
            fitting = self._without_id.get(algorithm, [])
            key = fitting[0] if len(fitting) == 1 else None
        else:
            key = self._keys.get((key_id, algorithm))
        return key if key is not None and key.good_until > time.monotonic() else None

    def _is_fresh(self) -> bool:
        return self._read_at + self.settings.keep_keys_seconds > time.monotonic()

    async def _ask(self, look: Look) -> None:
        """Wait for the fetch under way, or begin one; not within the pause after the last one that was asked for.

        Raises IssuerUnavailable when too many wait, or the fetch hangs.
        """
        is_late = self._fetch is not None and time.monotonic() > self._fetch_began + _HANGING_SECONDS
        if self._fetch is None:
            if time.monotonic() < self._asked_at + self.settings.unknown_key_pause_seconds:
                return
            look()
            self._asked_at = inf  # until the fetch ends, where the pause begins
            self._begin()
        else:
            look()
        if self.waiting >= self._max_waiting:
            raise self._unavailable("crowded", held_up=True)
        self.waiting += 1
        try:
            async with asyncio.timeout(_SHORT_SECONDS if is_late else None):
                await self._joined()
        except TimeoutError:
            raise self._unavailable("hanging", held_up=True) from None
        finally:
            self.waiting -= 1
        if self._failures:
            raise self._unavailable("unreadable", held_up=True)

    def _unavailable(self, cause: str, *, held_up: bool = False) -> IssuerUnavailable:
        """Return the error to raise; its pause ends when asking again has a sense."""
        metrics.OIDC_UNVERIFIED.labels(self.settings.name, cause).inc()
        now = time.monotonic()
        if self._fetch is None:
            left = self._asked_at + self.settings.unknown_key_pause_seconds - now
        else:
            taken = now - self._fetch_began
            left = self.settings.timeout_seconds - taken if taken > _HANGING_SECONDS else 0.0
        text = f"the keys of the issuer {self.settings.name} cannot be read now"
        return IssuerUnavailable(text, retry_seconds=ceil(max(1.0, left)), held_up=held_up)

    def _begin(self) -> "asyncio.Task[None]":
        self._fetch_began = time.monotonic()
        # It is no request's, whose id its lines would have, and in which every line of the libraries would be printed.
        self._fetch = asyncio.get_running_loop().create_task(self._read(), context=Context())
        return self._fetch

    async def _joined(self) -> None:
        # Who gives up waiting does not end it for the others.
        await asyncio.shield(self._fetch or self._begin())

    async def _read(self) -> None:
        try:
            found = jwks.parsed(await self._reader.read(), self.settings.algorithms)
        except IssuerUnavailable as error:
            self._failed(str(error))
        except ValueError as error:
            self._failed(f"{self._reader.address}: {error}")
        except Exception as error:  # noqa: BLE001 - whatever it is, it concerns this issuer, and is tried again
            self._failed(f"{type(error).__name__}: {error}")
        else:
            self._succeeded(*found)
        finally:
            self._fetch = None
            if self._asked_at == inf:
                self._asked_at = time.monotonic()

    def _succeeded(self, found: Sequence[jwks.Key], left_out: Mapping[str, int]) -> None:
        now = time.monotonic()
        before = {key.material: key for key in self._all()}
        # What is known of a key stays, so that the tokens that it signed need not be verified again.
        kept = [before.pop(key.material, key) for key in found]
        is_news = bool(before) or self._failures > 0 or self._read_at == -inf or len(kept) != len(self._all())
        for gone in before.values():
            gone.good_until = -inf
        self._keys = {(key.id, key.algorithm): key for key in kept if key.id is not None}
        self._without_id = {}
        for key in kept:
            key.good_until = now + self.settings.keep_keys_seconds
            self._without_id.setdefault(key.algorithm, []).append(key)
        self._read_at, self._failures = now, 0
        self._due_at = now + self.settings.refresh_seconds * random.uniform(0.9, 1.0)
        if is_news and kept:
            log.info("oidc.keys_read", issuer=self.settings.name, keys=len(kept))
        elif is_news:
            told = ", ".join(f"{count} {why}" for why, count in list(left_out.items())[:_MAX_TOLD])
            log.warning(
                "oidc.keys_unusable",
                issuer=self.settings.name,
                algorithms=list(self.settings.algorithms),
                left_out=told or "it publishes none",
            )

    def _failed(self, error: str) -> None:
        if not self._failures:
            log.warning("oidc.keys_unreadable", issuer=self.settings.name, error=error)
        self._failures += 1
        longest: float = min(_LONGEST_PAUSE_SECONDS, self.settings.refresh_seconds, 2.0 ** min(self._failures - 1, 10))
        self._due_at = time.monotonic() + longest * random.uniform(0.5, 1.0)
        self.wake()

    def _all(self) -> list[jwks.Key]:
        return [key for keys in self._without_id.values() for key in keys]
