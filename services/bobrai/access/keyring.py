"""The API keys of the installation, in memory: no statement per request.

In: rows of ``api_keys``, read again when somebody changed one and every few seconds. Out: the principal of a key that a
client shows. A key that is not known makes the ring read again, since it may be new, but not in a busy loop. A database
that is away refuses nobody by mistake: known keys go on for a while, of others nothing is known.
"""

import hmac
import time
from typing import Final

from bobrai.access import secrets
from bobrai.access.secrets import Shown
from bobrai.domain.access import Allowance, Grant, Principal, PrincipalKind
from bobrai.domain.errors import CredentialRefused, DatabaseUnavailable
from bobrai.store import keys
from bobrai.store.patience import PatientDatabase
from bobrai.store.pool import Database, Record
from bobrai.store.rereading import Rereading
from bobrai.telemetry import logs

log = logs.get_logger(__name__)

_TOUCH_SECONDS: Final = 60.0


class _Key:
    """A key as it was read last; moments are of the monotonic clock. Before ``sure_until`` its secret is enough."""

    __slots__ = (
        "expires_at", "key_id", "previous_hash", "previous_until", "principal", "revoked", "secret_hash", "sure_until",
    )  # fmt: skip

    def __init__(self, row: Record, now: float, stale_at: float) -> None:
        self.key_id: str = row["id"]
        grant = Grant.of(row["scopes"], queues=row["queues"], types=row["types"], own_tasks=row["own_tasks"])
        allowance = Allowance.of(rate=row["rate"], burst=row["burst"], max_waiting=row["max_waiting"])
        self.principal = Principal(PrincipalKind.KEY, f"key:{row['id']}", row["name"], grant, allowance)
        self.secret_hash: bytes = row["secret_hash"]
        self.previous_hash: bytes | None = row["previous_hash"]
        self.previous_until = now + (row["previous_ends_in"] or 0.0)
        self.expires_at = float("inf") if row["expires_in"] is None else now + row["expires_in"]
        self.revoked: bool = row["revoked"]
        self.sure_until = now if self.revoked else min(self.expires_at, stale_at)

    def fits(self, digest: bytes, now: float) -> bool:
        """Whether this is its secret, or the one before within its grace."""
        if hmac.compare_digest(digest, self.secret_hash):
            return True
        previous = self.previous_hash
        return previous is not None and hmac.compare_digest(digest, previous) and now < self.previous_until


class Keyring:
    """Keys by id. ``refresh_seconds``: the longest time after which they are read again."""

    def __init__(
        self, database: Database, patient: PatientDatabase, *, refresh_seconds: float, stale_seconds: float
    ) -> None:
        self._database = database
        self._patient = patient
        self._interval = refresh_seconds
        self._stale_seconds = stale_seconds
        self._keys: dict[str, _Key] = {}
        self._recognised: dict[bytes, _Key] = {}  # since the keys were read, by the mark of their newest secret
        self._read_at = float("-inf")  # the latest read that went well began then
        self._rereading = Rereading(self._read)
        self._used: set[str] = set()  # since the last note of it
        self._noted: dict[str, float] = {}

    @property
    def loaded(self) -> bool:
        """Whether the keys were read once."""
        return self._read_at > float("-inf")

    async def run_once(self) -> float:
        """Read everything again, and note who was here; returns the seconds until the next time."""
        await self._rereading.now()
        await self._note_used()
        return self._interval

    async def look_for_more(self) -> None:
        """Read the keys again, because one that is not known may be new; raises DatabaseUnavailable."""
        await self._patient.outlast(self._rereading.soon)

    def known(self, token: bytes) -> Principal | None:
        """Return whom a key is of that ``principal`` has recognised lately, and that has surely not ended since.

        On the hot path: None for all that deserves a closer look.
        """
        key = self._recognised.get(secrets.mark(token))
        if key is None or time.monotonic() >= key.sure_until:
            return None
        self._used.add(key.key_id)
        return key.principal

    def principal(self, shown: Shown) -> Principal | None:
        """Return whom a key is of, None when the key is not known.

        Raises CredentialRefused for one that has ended, and DatabaseUnavailable when that cannot be known now.
        """
        found = self._found(shown)
        if found is None:
            return None
        now = time.monotonic()
        if found.revoked:
            raise CredentialRefused("revoked", "This key was revoked", credential=found.principal.id)
        if now >= found.expires_at:
            raise CredentialRefused("expired", "This key has expired", credential=found.principal.id)
        if now - self._read_at > self._stale_seconds:
            # A revocation may be waiting for us in a database that we cannot read.
            raise DatabaseUnavailable(f"keys were not read for {self._stale_seconds:g} s")
        self._used.add(shown.key_id)
        if shown.digest == found.secret_hash:  # the one before has an end of its own
            self._recognised[shown.mark] = found
        return found.principal

    def _found(self, shown: Shown) -> _Key | None:
        key = self._keys.get(shown.key_id)
        return key if key is not None and key.fits(shown.digest, time.monotonic()) else None

    async def _read(self) -> None:
        began = time.monotonic()
        rows = await keys.known(self._database)
        # Seconds that are left count from the statement, so that no key lives longer for a slow answer.
        fresh: dict[str, _Key] = {}
        for row in rows:
            try:
                fresh[row["id"]] = _Key(row, began, began + self._stale_seconds)
            except ValueError as error:  # of a later release, or written by hand: it opens nothing
                log.warning("access.key_unusable", key=row["id"], error=str(error))
        self._keys = fresh
        self._recognised = {}
        self._read_at = began

    async def _note_used(self) -> None:
        now = time.monotonic()
        due = {key_id for key_id in self._used if now - self._noted.get(key_id, float("-inf")) >= _TOUCH_SECONDS}
        if due:
            await keys.touch(self._database, due)
            self._used -= due
            self._noted = {key_id: at for key_id, at in self._noted.items() if key_id in self._keys}
            self._noted.update(dict.fromkeys(due, now))
