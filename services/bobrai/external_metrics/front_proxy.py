"""Whom to believe: the API server's front proxy, as the cluster itself describes it.

In: the ConfigMap ``kube-system/extension-apiserver-authentication``, read again every refresh period. Out: a Trust, for
``certificates`` (whose client certificates verify) and ``app`` (which names may speak for users).

No SubjectAccessReview follows. The API server asks RBAC whether a user may read
``external.metrics.k8s.io/bobrai_backlog`` before it passes the request on, and nobody but the API server has a
certificate that is believed here. So this process needs no right to ask about others (``system:auth-delegator``), only
to read that one ConfigMap.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from bobrai.domain.errors import ClusterUnavailable
from bobrai.external_metrics.kubernetes import Kubernetes
from bobrai.telemetry import logs

log = logs.get_logger(__name__)

NAMESPACE: Final = "kube-system"
CONFIG_MAP: Final = "extension-apiserver-authentication"
_USER_HEADERS: Final = ("X-Remote-User",)


@dataclass(frozen=True, slots=True)
class Trust:
    """Certificate authorities in PEM; the names that their certificates may have, none meaning any; the headers that
    name the user.
    """

    authorities: str = ""
    names: frozenset[str] = frozenset()
    user_headers: tuple[str, ...] = _USER_HEADERS

    def admits(self, name: str) -> bool:
        """Return whether a verified certificate with this common name is the front proxy's."""
        return bool(self.authorities) and (not self.names or name in self.names)


class FrontProxy:
    """The trust of now, and the duty to keep it so.

    ``apply`` takes new authorities; it raises ClusterUnavailable for what are none, and the old ones stay.
    """

    def __init__(self, kubernetes: Kubernetes, apply: Callable[[str], None]) -> None:
        self.trust = Trust()
        self._kubernetes = kubernetes
        self._apply = apply

    @property
    def known(self) -> bool:
        """Whether anybody can be believed yet."""
        return bool(self.trust.authorities)

    async def run_once(self) -> None:
        """Read the ConfigMap; raises ClusterUnavailable, and then everything stays as it was."""
        trust = parse(await self._kubernetes.config_map(NAMESPACE, CONFIG_MAP))
        if trust == self.trust:
            return
        if trust.authorities != self.trust.authorities:
            self._apply(trust.authorities)
        self.trust = trust
        log.info("front_proxy.changed", names=sorted(trust.names))


def parse(data: Mapping[str, str]) -> Trust:
    """Return what the ConfigMap says; raises ClusterUnavailable when it names no front proxy."""
    authorities = data.get("requestheader-client-ca-file", "").strip()
    if not authorities:
        raise ClusterUnavailable(f"ConfigMap {NAMESPACE}/{CONFIG_MAP} has no requestheader-client-ca-file")
    names = _names(data, "requestheader-allowed-names")
    return Trust(authorities, frozenset(names), _names(data, "requestheader-username-headers") or _USER_HEADERS)


def _names(data: Mapping[str, str], key: str) -> tuple[str, ...]:
    text = data.get(key, "").strip()
    try:
        return tuple(msgspec.json.decode(text, type=list[str] | None) or ()) if text else ()
    except msgspec.MsgspecError as error:
        raise ClusterUnavailable(f"ConfigMap {NAMESPACE}/{CONFIG_MAP}: {key} is not a list of names") from error
