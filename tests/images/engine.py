"""A small container engine for the tests: images built by buildah, on a base made by mmdebstrap, and run with unshare.

Neither needs a daemon. Both need root. Nothing is pulled from a registry of images: the base is Debian with the Python
that the Dockerfiles name, at the paths that their instructions rely on.
"""

import configparser
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil  # type: ignore[import-untyped]

from tests.conftest import REPOSITORY

#: The Debian release with the Python of the Dockerfiles, 3.13.
SUITE: Final = "trixie"
MIRROR: Final = "http://deb.debian.org/debian"
#: The base is kept between runs: making it takes a minute or two. The number changes with how it is made.
BASE: Final = f"localhost/twofold-test-base:{SUITE}-1"
USER: Final = 10001
_DROPPED: Final = ("doc", "man", "locale")
_WHEELS: Final = "/usr/share/python-wheels"
_PIP: Final = f"python $(echo {_WHEELS}/pip-*.whl)/pip install --no-cache-dir --no-index --find-links {_WHEELS} pip"

#: Starts a command in the root folder $1 as the user $2, with nothing writable but /tmp and the folder of the host $3,
#: if it is given, at $4. The shell is process 1 of a PID namespace, and becomes the command.
_START: Final = """
set -e
root=$1 user=$2 from=$3 to=$4; shift 4
mount --bind "$root" "$root"
if [ -n "$from" ]; then mkdir -p "$root$to"; fi
mount -o remount,bind,ro "$root"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
if [ -n "$from" ]; then mount --bind "$from" "$root$to"; fi
exec chroot --userspec="$user" "$root" "$@"
"""


def missing() -> str | None:
    """Returns why images cannot be built on this machine, or None if they can."""
    if sys.platform != "linux":
        return "images are built on Linux"
    if os.geteuid() != 0:
        return "building images takes root"
    absent = [name for name in ("buildah", "mmdebstrap", "unshare", "nsenter", "chroot") if not shutil.which(name)]
    return f"not installed: {', '.join(absent)} (apt-get install buildah mmdebstrap)" if absent else None


def command(*arguments: str, timeout_s: float = 1800, cwd: Path = REPOSITORY) -> str:
    """Runs a program of the host and returns its output."""
    done = subprocess.run(
        arguments, cwd=cwd, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=timeout_s
    )
    assert done.returncode == 0, f"{' '.join(arguments[:3])}: {(done.stderr or done.stdout)[-3000:]}"
    return done.stdout.strip()


def make_base(folder: Path) -> str:
    """Makes the base image, if there is none yet, and returns its name."""
    known = subprocess.run(["buildah", "inspect", "--type", "image", BASE], capture_output=True, check=False)
    if known.returncode != 0:
        packages = "python3.13,python3-pip-whl,python-is-python3,ca-certificates"
        options = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _DROPPED]
        # Debian keeps pip out of its own Python. The base of the Dockerfiles has pip there.
        hooks = ['rm "$1"/usr/lib/python3.*/EXTERNALLY-MANAGED', f"chroot \"$1\" sh -c '{_PIP}'"]
        hooked = [f"--customize-hook={hook}" for hook in hooks]
        what = ["--variant=minbase", f"--include={packages}", *options, *hooked]
        command("mmdebstrap", *what, SUITE, str(folder / "base.tar"), MIRROR)
        path = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        (folder / "Dockerfile").write_text(f"FROM scratch\nADD base.tar /\n{path}\n")
        _buildah_bud("--tag", BASE, "--file", str(folder / "Dockerfile"), str(folder))
    return BASE


def _buildah_bud(*arguments: str) -> str:
    isolation = ("--isolation", "chroot", "--network", "host")
    return command("buildah", "bud", "--format", "docker", *isolation, *arguments)


def run_in_build(base: str, folder: Path, name: str, options: str) -> str:
    """Runs ``pip install`` with a file of requirements on the base, and returns its log. The image is removed."""
    tag = f"localhost/twofold-test-pip:{os.getpid()}"
    install = f"pip install --no-cache-dir --require-hashes {options} --requirement /tmp/{name}-requirements.txt"
    steps = [f"FROM {base}", f"COPY infra/{name}-requirements.txt /tmp/", f"RUN {install}"]
    (folder / "Dockerfile").write_text("\n".join(steps) + "\n")
    log = _buildah_bud(*pip_options(folder), "--tag", tag, "--file", str(folder / "Dockerfile"), str(REPOSITORY))
    command("buildah", "rmi", tag)
    return log


def pip_options(folder: Path) -> list[str]:
    """Returns options of a build that give its pip this machine's index, from the environment and pip's own settings.

    They are mounted while the image is built and are in none of its layers.
    """
    found = _pip_settings()
    mounts = []
    if certificate := found.get("cert"):
        mounts.append(f"{certificate}:/run/pip-cert.pem:ro")
        found["cert"] = "/run/pip-cert.pem"
    settings = configparser.RawConfigParser()
    settings["global"] = found
    with (folder / "pip.conf").open("w") as file:
        settings.write(file)
    mounts.append(f"{folder / 'pip.conf'}:/etc/pip.conf:ro")
    return [part for mount in mounts for part in ("--volume", mount)]


def _pip_settings() -> dict[str, str]:
    """Those that say where packages come from. What lies on this machine's disk is of no use in a build."""
    names = ("index-url", "extra-index-url", "cert", "timeout", "trusted-host", "proxy")
    pip = shutil.which("pip") or shutil.which("pip3")
    listed = command(pip, "config", "list").splitlines() if pip else []
    found = {line.partition("=")[0].partition(".")[2]: line.partition("=")[2].strip("'") for line in listed}
    own = {name: os.environ.get(f"PIP_{name.replace('-', '_').upper()}") for name in names}
    kept = {name: value for name in names if (value := own[name] or found.get(name))}
    return {name: value for name, value in kept.items() if "file://" not in value}


@dataclass(frozen=True)
class Image:
    """An image, and the folder where its root is mounted."""

    name: str
    root: Path
    config: Mapping[str, Any]
    size_bytes: int

    @classmethod
    def build(cls, kind: str, base: str, folder: Path, **arguments: str) -> "Image":
        """Builds the image of ``infra/KIND.Dockerfile`` and mounts it."""
        name = f"localhost/twofold-test-{kind}:{os.getpid()}"
        given = [f"{key}={value}" for key, value in ({"PYTHON": base} | arguments).items()]
        options = [part for value in given for part in ("--build-arg", value)]
        file = f"infra/{kind}.Dockerfile"
        _buildah_bud(*pip_options(folder), *options, "--tag", name, "--file", file, str(REPOSITORY))
        return cls.open(name)

    @classmethod
    def open(cls, name: str) -> "Image":
        """Mounts an image that is there."""
        container = command("buildah", "from", "--pull-never", "--name", name.replace("/", "-").replace(":", "-"), name)
        described = json.loads(command("buildah", "inspect", "--type", "image", name))
        root = Path(command("buildah", "mount", container))
        return cls(name, root, described["Docker"]["config"], _size(name))

    def remove(self) -> None:
        """Removes the image, and unmounts it."""
        command("buildah", "rm", self.name.replace("/", "-").replace(":", "-"))
        command("buildah", "rmi", self.name)

    def start(
        self,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        entry: list[str] | None = None,
        folder: tuple[Path, str] | None = None,
        user: int | None = None,
    ) -> "Container":
        """Starts a command as process 1, with nothing writable but /tmp and the given folder.

        It runs as the image's user, which is root if it names none, or as another one.
        """
        started = self.config["Entrypoint"] if entry is None else entry
        program = [*started, *(arguments or self.config["Cmd"] or ())]
        settings = [*self.config["Env"], *(f"{name}={value}" for name, value in (environment or {}).items())]
        source, target = folder or ("", "")
        inside = ["env", "-i", f"--chdir={self.config['WorkingDir']}", *settings, *program]
        prefix = ["unshare", "--mount", "--pid", "--fork", "sh", "-c", _START, "start"]
        # An engine of containers gives a user that the image does not know the group 0.
        identity = self.config.get("User") or "0:0" if user is None else f"{user}:0"
        place = [str(self.root), identity, str(source), target]
        return Container(
            self,
            subprocess.Popen([*prefix, *place, *inside], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True),
            settings,
        )


def _size(name: str) -> int:
    listed = json.loads(command("buildah", "images", "--json", name))
    units = {"KB": 1e3, "MB": 1e6, "GB": 1e9}
    number, unit = listed[0]["size"].split()
    return int(float(number) * units[unit])


@dataclass(frozen=True)
class Container:
    """A running command. Its standard output and standard error are one stream."""

    image: Image
    process: "subprocess.Popen[str]"
    settings: list[str]

    @functools.cached_property
    def pid(self) -> int:
        """Process 1, as this machine numbers it."""
        while not (children := psutil.Process(self.process.pid).children()):
            assert self.process.poll() is None, self.end()
        return int(children[0].pid)

    def wait_for_python(self) -> None:
        """Waits until process 1 is the interpreter, which may have done nothing yet."""
        while "python" not in os.path.basename(os.readlink(f"/proc/{self.pid}/exe")):  # noqa: PTH115, PTH119 - speed
            assert self.process.poll() is None, self.end()

    def wait_for(self, text: str, *, timeout_s: float = 300) -> None:
        """Waits until a line of the log has this text. A container that does not write it in time is killed."""
        assert self.process.stdout
        seen = []
        limit = threading.Timer(timeout_s, self.kill)
        limit.start()
        try:
            for line in self.process.stdout:
                seen.append(line)
                if text in line:
                    return
        finally:
            limit.cancel()
        raise AssertionError(f"it ended without {text!r}:\n{''.join(seen)[-3000:]}")

    def run(self, *arguments: str) -> int:
        """Runs another command in the container, as its health check is run, and returns its exit status."""
        enter = ["nsenter", "--target", str(self.pid), "--mount", "--pid", "--root", "--setuid", str(USER)]
        inside = [*enter, "--setgid", str(USER), "env", "-i", *self.settings, *arguments]
        return subprocess.run(inside, check=False, capture_output=True, timeout=120).returncode

    def end(self, timeout_s: float = 300) -> tuple[int, str]:
        """Waits for its end, and returns its exit status and log. One that does not end is killed, which is 137."""
        try:
            log, _ = self.process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            log, _ = self.process.communicate()
            return 137, log
        return self.process.returncode, log

    def kill(self) -> None:
        """Kills process 1, and all others of the container with it."""
        if self.process.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
