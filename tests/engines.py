"""Real parts for tests of images: a registry, a base image and Podman. Used by fixtures and by benchmarks.

Needs the Debian packages docker-registry, mmdebstrap, podman, runc and skopeo, and root.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml
from filelock import FileLock

CACHE = Path("~/.cache/stepops-tests").expanduser()

#: Python of the base image: that of Debian 12.
BASE_PYTHON = "3.11"

_LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")


def free_port() -> int:
    """Return a port of this machine that nothing listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(*command: str, environment: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run a command and return its output; its error output is in the error when it fails."""
    done = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@contextmanager
def running(*command: str, environment: Mapping[str, str] | None = None, log: Path) -> Iterator[None]:
    """Run a server for the time of the block."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            command, env=environment, cwd=log.parent, stdout=out, stderr=out, stdin=subprocess.DEVNULL
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until(ready: Any, what: str, log: Path, seconds: float = 20.0) -> None:
    """Wait until a function returns something true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, httpx.HTTPError):
            if ready():
                return
        time.sleep(0.02)
    raise AssertionError(f"{what} did not start in {seconds:.0f} s:\n{log.read_text()[-4000:]}")


@contextmanager
def running_registry(
    folder: Path,
    auth: Mapping[str, Any] | None = None,
    http: Mapping[str, Any] | None = None,
    *,
    address: str = "127.0.0.1",
    ca: Path | None = None,
) -> Iterator[str]:
    """Run the CNCF registry and give its ``host:port``.

    :param folder: for its data, configuration and log.
    :param auth: the ``auth`` section of its configuration.
    :param http: what to add to its ``http`` section.
    :param address: of this machine.
    :param ca: certificates to trust, for a registry with TLS.
    """
    folder.mkdir(parents=True, exist_ok=True)
    host = f"{address}:{free_port()}"
    configuration: dict[str, Any] = {
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": True}},
        "http": {"addr": host, "secret": "of these tests", **(http or {})},
    }
    if auth is not None:
        configuration["auth"] = dict(auth)
    file, log = folder / "config.yml", folder / "log"
    file.write_text(yaml.safe_dump(configuration))
    with running("docker-registry", "serve", str(file), log=log):
        scheme, verify = ("https", httpx.create_ssl_context(str(ca))) if ca else ("http", True)
        url = f"{scheme}://{host}/v2/"
        wait_until(lambda: httpx.get(url, verify=verify).status_code in (200, 401), "the registry", log)
        yield host


def base_layout() -> Path:
    """Return an OCI layout with a Debian that has Python, tagged ``base``; made once on a machine (about a minute)."""
    layout = CACHE / "base-1"
    CACHE.mkdir(parents=True, exist_ok=True)
    with FileLock(CACHE / "base.lock", timeout=900):
        if not layout.is_dir():
            _make_base(layout)
    return layout


def _make_base(layout: Path) -> None:
    work = CACHE / "making-base"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        options = [f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT]
        link = '--customize-hook=ln -s python3 "$1/usr/bin/python"'
        include = "--include=python3,python3-pip,ca-certificates"
        run("mmdebstrap", "--quiet", "--variant=minbase", include, *options, link, "bookworm", str(work / "base.tar"))
        podman = Podman.new()
        changes = [
            "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            f"ENV PYTHON_VERSION={BASE_PYTHON}.2",
            'CMD ["python"]',
        ]
        arguments = [part for change in changes for part in ("--change", change)]
        podman.run("import", "--quiet", *arguments, str(work / "base.tar"), "localhost/base:1")
        podman.run("save", "--quiet", "--output", str(work / "base.docker.tar"), "localhost/base:1")
        run("skopeo", "copy", "--quiet", f"docker-archive:{work / 'base.docker.tar'}", f"oci:{work / 'layout'}:base")
        podman.remove()
        (work / "layout").rename(layout)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def push_base(host: str, name: str = "base", *, docker: bool = False) -> str:
    """Push the base image into a registry and return its reference by digest.

    :param docker: as a Docker manifest rather than an OCI one.
    """
    family = ["--format", "v2s2"] if docker else []
    target = f"docker://{host}/{name}:latest"
    run("skopeo", "copy", "--quiet", "--dest-tls-verify=false", *family, f"oci:{base_layout()}:base", target)
    inspected = json.loads(run("skopeo", "inspect", "--tls-verify=false", target))
    return f"{host}/{name}@{inspected['Digest']}"


@dataclass(frozen=True)
class Podman:
    """A Podman with storage and configuration of its own.

    :param environment: for ``podman`` and ``skopeo`` commands.
    :param socket: of its Docker API, for ``DOCKER_HOST``, while :meth:`service` runs.
    """

    folder: Path
    environment: Mapping[str, str]

    @classmethod
    def new(cls, insecure: tuple[str, ...] = ()) -> Podman:
        """Make one, to be removed by :meth:`remove`.

        :param insecure: registries (``host:port``) to talk to by plain HTTP.
        """
        # With more than 45 characters the names of Podman's sockets are too long: it does not notice that a container
        # has ended, and takes 20 seconds to give up.
        folder = Path(tempfile.mkdtemp(prefix="podman-"))
        assert len(str(folder)) <= 45, f"{folder}: too long; set TMPDIR to a folder with a shorter name"
        # Works without CAP_SYS_RESOURCE, systemd and a container network.
        (folder / "containers.conf").write_text(
            '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\nnetns = "host"\n'
            'log_driver = "k8s-file"\n'
            '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
            f'tmp_dir = "{folder / "tmp"}"\n'
        )
        (folder / "storage.conf").write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{folder / "graph"}"\nrunroot = "{folder / "run"}"\n'
        )
        (folder / "registries.conf").write_text(
            "".join(f'[[registry]]\nlocation = "{host}"\ninsecure = true\n' for host in insecure)
        )
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("STEPOPS_")},
            "CONTAINERS_CONF": str(folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
            "CONTAINERS_REGISTRIES_CONF": str(folder / "registries.conf"),
            "BUILDAH_ISOLATION": "chroot",
        }
        return cls(folder, environment)

    @property
    def socket(self) -> str:
        """Address of the Docker API."""
        return f"unix://{self.folder / 'podman.sock'}"

    def run(self, *arguments: str, cwd: Path | None = None) -> str:
        """Run a podman command and return its output."""
        return run("podman", *arguments, environment=self.environment, cwd=cwd or self.folder)

    @contextmanager
    def service(self) -> Iterator[str]:
        """Serve the Docker API for the time of the block, and give its address."""
        log = self.folder / "service.log"
        command = ("podman", "system", "service", "--time=0", self.socket)
        with running(*command, environment=self.environment, log=log):
            wait_until(lambda: _pings(self.folder / "podman.sock"), "podman's service", log)
            yield self.socket

    def remove(self) -> None:
        """Remove containers, images and storage."""
        subprocess.run(["podman", "rm", "--all", "--force"], env=self.environment, capture_output=True, check=False)
        subprocess.run(["podman", "umount", "--all"], env=self.environment, capture_output=True, check=False)
        subprocess.run(["umount", str(self.folder / "graph" / "overlay")], capture_output=True, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


def _pings(path: Path) -> bool:
    transport = httpx.HTTPTransport(uds=str(path))
    with httpx.Client(transport=transport) as client:
        return client.get("http://podman/_ping").status_code == 200
