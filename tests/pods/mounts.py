"""Volumes of a pod as the kubelet makes them: root's, and the pod's group may write to those that hold data.

In: a mount of a container. Out: the folder or file of this machine that is mounted.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.charts.helm import Manifest

if TYPE_CHECKING:
    from tests.pods.node import Node

Body = dict[str, Any]


class Mounts:
    """The volumes of one pod; claims outlive it, and all else is made once."""

    def __init__(self, node: "Node", pod: str, spec: Body, workload: Manifest) -> None:
        self._node = node
        self._pod = pod
        self._group: int = spec["securityContext"]["fsGroup"]
        self._volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
        templates = workload.spec.get("volumeClaimTemplates", [])
        self._claims = {claim["metadata"]["name"] for claim in templates}

    def source(self, mount: Body) -> Path:
        """Return what is mounted."""
        name = mount["name"]
        if name in self._claims:
            return self._data(self._node.folder / "claims" / f"{name}-{self._pod}")
        volume = self._volumes[name]
        if claim := volume.get("persistentVolumeClaim"):
            return self._data(self._node.folder / "claims" / claim["claimName"])
        folder = self._node.folder / "pods" / self._pod / name
        if "emptyDir" in volume:
            return self._data(folder)
        if "projected" in volume:
            for source in volume["projected"]["sources"]:
                items = {item["key"]: item["path"] for item in source["secret"]["items"]}
                mode = volume["projected"].get("defaultMode", 0o644)
                self._files(folder, "Secret", source["secret"]["name"], mode, items)
            return folder
        secret = volume.get("secret")
        kind, held = ("Secret", secret["secretName"]) if secret else ("ConfigMap", volume["configMap"]["name"])
        self._files(folder, kind, held, (secret or volume["configMap"]).get("defaultMode", 0o644))
        return folder / mount["subPath"] if "subPath" in mount else folder

    def _data(self, folder: Path) -> Path:
        if not folder.exists():
            folder.mkdir(parents=True)
            os.chown(folder, 0, self._group)
            folder.chmod(0o2775)
        return folder

    def _files(self, folder: Path, kind: str, name: str, mode: int, items: dict[str, str] | None = None) -> None:
        for key, content in self._node.content(kind, name).items():
            if items is not None and key not in items:
                continue
            path = folder / (key if items is None else items[key])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            os.chown(path, 0, self._group)
            path.chmod(mode | 0o040)  # fsGroup makes it readable to the group
