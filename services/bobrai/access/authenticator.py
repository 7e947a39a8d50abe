"""Whom a request is from: by the key or the token that it shows, or nobody in particular.

In: the Authorization header. Out: a principal, or CredentialRefused. A credential that proves nothing is refused, also
where a request without any would be let in: whoever shows one wants to know.
"""

from typing import Final

from bobrai.access import secrets
from bobrai.access.keyring import Keyring
from bobrai.domain.access import Principal
from bobrai.domain.errors import CredentialRefused

_BEARER: Final = b"bearer "


class Authenticator:
    """Turns headers into principals."""

    def __init__(self, keyring: Keyring, anonymous: Principal) -> None:
        self._keyring = keyring
        self.anonymous = anonymous

    @property
    def loaded(self) -> bool:
        """Whether keys can be told from what is none."""
        return self._keyring.loaded

    async def principal(self, header: bytes | None) -> Principal:
        """Return whom a request with this header is from.

        Raises CredentialRefused, or Unavailable when that cannot be known now. Another scheme than Bearer is for
        somebody else on the way, such as a gateway, and says nothing here.
        """
        if header is None or header[: len(_BEARER)].lower() != _BEARER:
            return self.anonymous
        token = header[len(_BEARER) :].strip()
        shown = secrets.read(token)
        if shown is None:
            raise CredentialRefused("malformed", "The bearer token has not the form of a key: bobrai_<id>_<secret>")
        return await self._keyring.principal(shown)
