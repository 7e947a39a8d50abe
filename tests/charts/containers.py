"""Rendered containers as processes on this machine: scripts, settings and environment on the real programs.

In: a rendered object and what a cluster would give it: Secrets, its pod's name. Its volumes become folders, so paths in
scripts, settings and environment are replaced by those; what else must differ on one machine (ports, host names) the
test says, and nothing more. Out: `run` for a container that ends, `start` for one that stays.
"""

import base64
import re
import shlex
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.charts.helm import Manifest, Rendered
from tests.support import discovery
from tests.support.discovery import Installation
from tests.support.run_folder import RunFolder
from tests.support.server_process import ServerProcess

RUN_SECONDS = 60
LEFT_ALONE = ("/tmp", "/dev/shm", "/etc/passwd")  # this machine's own will do

Secrets = Mapping[str, Mapping[str, str]]


class Programs:
    """A server's programs, and as whom they run."""

    def __init__(self, run: RunFolder, server: str, program: str) -> None:
        found = discovery.find(run, server)
        if found.image is not None:
            raise discovery.ServerMissing(server, [f"{found.origin}: these tests need programs, not an image"])
        self.version = found.version
        self.user = found.user
        path = Path(found.programs[program])
        wrapper = re.search(r"^exec (chroot .*?/\S+) (/\S+) \"\$@\"$", _text(path), re.MULTILINE)
        self.prefix = shlex.split(wrapper[1]) if wrapper else []
        self.folder = Path(wrapper[2] if wrapper else path.resolve()).parent

    def script(self, command: list[str], environment: Mapping[str, str]) -> str:
        """A shell script that becomes this command, with this environment and nothing else."""
        given = {"PATH": f"{self.folder}:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", **environment}
        words = [*self.prefix, "env", "-i", *(f"{name}={value}" for name, value in given.items()), *command]
        return f"#!/bin/sh\nexec {shlex.join(words)}\n"


def secrets_of(rendered: Rendered) -> dict[str, dict[str, str]]:
    """The Secrets that the chart itself makes, decoded."""
    return {
        secret.name: {key: base64.b64decode(value).decode() for key, value in secret.body["data"].items()}
        for secret in rendered.all("Secret")
    }


class Pod:
    """One pod of a rendered object."""

    def __init__(
        self,
        run: RunFolder,
        programs: Programs,
        rendered: Rendered,
        manifest: Manifest,
        *,
        secrets: Secrets,
        name: str = "",
        replace: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        claims: Mapping[str, Path] | None = None,
    ) -> None:
        self.manifest = manifest
        self.name = name or f"{manifest.name}-0"
        self._run = run
        self._programs = programs
        self._rendered = rendered
        self._secrets = secrets
        self._replace = dict(replace or {})
        self._environment = dict(environment or {})
        self.folder = run.folder(f"pod-{self.name}-{run.free_port()}")
        self._volumes = {volume["name"]: volume for volume in (manifest.pod or {}).get("volumes", [])}
        self._claims = dict(claims or {})

    def volume(self, name: str) -> Path:
        """The folder that a volume is here; what is in it outlives containers, as in a pod."""
        folder = self._claims.get(name, self.folder / f"volume-{name}")
        if not folder.exists():
            folder.mkdir()
            folder.chmod(0o777)
        return folder

    def run(self, container: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a container to its end; `environment` is laid over its own."""
        command = [str(self._prepared(container, environment))]
        user = self._programs.user
        return subprocess.run(
            command, capture_output=True, text=True, timeout=RUN_SECONDS, check=False, cwd="/", user=user,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def start(self, container: str) -> ServerProcess:
        """Start a container that stays; wait for it with the process's `wait_ready`."""
        script = self._prepared(container, {})
        installation = Installation(
            "container", self._programs.version, str(script), {container: str(script)}, user=self._programs.user
        )
        process = ServerProcess(self._run, installation, self.folder, stop_signal=signal.SIGKILL)
        process.start(container)
        return process

    def execute(self, container: str, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run another command in a container, as `kubectl exec` would."""
        words = [self._local(self.manifest.container(container), word) for word in command]
        script = self._write(f"exec-{container}", words, self._environment_of(container, environment))
        return subprocess.run(
            [str(script)], capture_output=True, text=True, timeout=RUN_SECONDS, check=False, cwd="/",
            user=self._programs.user, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def _prepared(self, container: str, environment: Mapping[str, str]) -> Path:
        found = self.manifest.container(container)
        self._write_files(found)
        command = [self._local(found, word) for word in [*found["command"], *found.get("args", [])]]
        return self._write(container, command, self._environment_of(container, environment))

    def _write(self, name: str, command: list[str], environment: Mapping[str, str]) -> Path:
        script = self.folder / name
        script.write_text(self._programs.script(command, environment))
        script.chmod(0o755)
        return script

    def _write_files(self, container: dict[str, Any]) -> None:
        for mount in container.get("volumeMounts", []):
            if mount["mountPath"] in LEFT_ALONE:
                continue
            folder = self.volume(mount["name"])
            source = self._volumes.get(mount["name"], {}).get("configMap")
            if source:
                for name, text in self._rendered.one("ConfigMap", source["name"]).body["data"].items():
                    (folder / name).write_text(self._local(container, text))
                    (folder / name).chmod(0o644)

    def _environment_of(self, name: str, environment: Mapping[str, str]) -> dict[str, str]:
        container = self.manifest.container(name)
        found: dict[str, str] = {}
        for entry in container.get("env", []):
            value = self._value(entry)
            if value is not None:
                expanded = re.sub(r"\$\((\w+)\)", lambda match: found.get(match[1], match[0]), value)
                literal = "valueFrom" in entry
                found[entry["name"]] = expanded if literal else self._local(container, expanded)
        return {**found, **self._environment, **environment}

    def _value(self, entry: dict[str, Any]) -> str | None:
        source = entry.get("valueFrom")
        if source is None:
            return str(entry["value"])
        if "fieldRef" in source:
            return {"metadata.name": self.name}[source["fieldRef"]["fieldPath"]]
        wanted = source["secretKeyRef"]
        found = self._secrets.get(wanted["name"], {}).get(wanted["key"])
        if found is None and not wanted.get("optional"):
            raise AssertionError(f"{self.manifest} needs the key {wanted['key']} of the Secret {wanted['name']}")
        return found

    def _local(self, container: dict[str, Any], text: str) -> str:
        mounts = [mount for mount in container.get("volumeMounts", []) if mount["mountPath"] not in LEFT_ALONE]
        folders = {mount["mountPath"]: str(self.volume(mount["name"])) for mount in mounts}
        places = folders | self._replace
        # a folder's name is not part of a longer name
        patterns = [
            rf"(?<![\w.-]){re.escape(place)}(?![\w.-])" if place in folders else re.escape(place)
            for place in sorted(places, key=len, reverse=True)
        ]
        return re.sub("|".join(patterns), lambda match: places[match[0]], text) if places else text


def _text(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(1000).decode("utf-8", "replace")
