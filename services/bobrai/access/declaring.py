"""Declared keys become rows: made when new, changed when their declaration is, never brought back when revoked.

In: declarations, and the files that hold their secrets, which may change while the process runs. Out: rows of
``api_keys``. Any number of processes may do so at once. What is declared no longer stays until somebody revokes it: a
process of the release before may still be starting.
"""

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bobrai.access import secrets
from bobrai.access.secrets import Shown
from bobrai.domain import limits
from bobrai.domain.audit import Author
from bobrai.domain.errors import ConfigurationError
from bobrai.settings.declared import DeclaredKey
from bobrai.store import keys
from bobrai.store.pool import Transactional

_AUTHOR: Final = Author("declared", "BOBRAI_AUTH_KEYS")
_GRACE_SECONDS: Final = 3_600.0  # in which the secret before another one in the file works as well
_FORM: Final = re.compile(r"bobrai_[a-z0-9]{1,32}_[A-Za-z0-9_-]{40,}")
_NAME: Final = re.compile(limits.KEY_NAME_PATTERN)


class Declarations:
    """The declared keys of a process, and what of them was made last."""

    def __init__(self, database: Transactional, declared: Sequence[DeclaredKey], *, refresh_seconds: float) -> None:
        self._database = database
        self._declared = declared
        self._interval = refresh_seconds
        self._made: dict[str, Shown] = {}
        self.tried = not declared
        """Whether all were tried once, so that those that can be made are: one that cannot keeps nobody else out."""

    async def run_once(self) -> float:
        """Make or change what is not made as its file says; returns the seconds until the next look.

        Raises ConfigurationError for files and names that will not do, once all others are made. What was made is left
        alone until its file changes, so that processes with different files do not undo each other's work again and
        again.
        """
        faults = []
        for key in self._declared:
            try:
                shown = await asyncio.to_thread(_read, key)
                if self._made.get(key.name) != shown:
                    self._refuse_twin(key, shown)
                    await self._make(key, shown)
                    self._made[key.name] = shown
            except ConfigurationError as error:
                faults.append(str(error))
        self.tried = True
        if faults:
            raise ConfigurationError("; ".join(faults))
        return self._interval

    def _refuse_twin(self, key: DeclaredKey, shown: Shown) -> None:
        for name, made in self._made.items():
            if name != key.name and made.key_id == shown.key_id:
                raise ConfigurationError(
                    f"BOBRAI_AUTH_KEYS: {key.name!r} and {name!r} have keys of one id, {shown.key_id}; each needs one"
                )

    async def _make(self, key: DeclaredKey, shown: Shown) -> None:
        taken_by = await keys.declare(
            self._database,
            shown.key_id,
            name=key.name,
            secret_hash=shown.digest,
            grant=key.grant(),
            allowance=key.allowance(),
            grace_seconds=_GRACE_SECONDS,
            by=_AUTHOR,
        )
        if taken_by:
            raise ConfigurationError(
                f"BOBRAI_AUTH_KEYS: the name {key.name!r} or its id is taken by the key {taken_by}, which was not "
                "declared so: revoke that one, or declare another"
            )


def _read(key: DeclaredKey) -> Shown:
    if not _NAME.fullmatch(key.name):
        raise ConfigurationError(f"BOBRAI_AUTH_KEYS: {key.name!r}: a name has {limits.KEY_NAME_RULE}")
    try:
        secret = Path(key.file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigurationError(f"BOBRAI_AUTH_KEYS: {key.name}: {key.file} cannot be read: {reason}") from error
    shown = secrets.read(secret.encode())
    if shown is None or not _FORM.fullmatch(secret):
        raise ConfigurationError(
            f"BOBRAI_AUTH_KEYS: {key.name}: {key.file} must hold bobrai_<id>_<secret>: an id of a-z and 0-9, and a "
            "secret of at least 40 random letters and digits"
        )
    return shown
