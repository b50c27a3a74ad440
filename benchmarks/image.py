"""From an edit to the new image in the registry: ours against ``podman build`` and ``podman push``.

Both sides have the same base, requirements, code and runtime, the same registry, and take turns; medians are compared.
The Dockerfile is in the usual good order (requirements, runtime, then code), runs a plain ``pip install`` with a cache
mount, and Podman keeps its layer cache. Podman's side is the two whole commands. Ours is the one call that a worker
makes, ``plan_image(…).ensure()``, with a new client each time, in a process that has the modules loaded, as a worker
has; the time to load them is printed apart. In the end both images are pulled and must print the same.

Prints ``edit_ratio`` (one line of a step was edited), ``deps_ratio`` (the version of one requirement was changed) and
``unchanged_requests`` (counted by a proxy in front of the registry, when nothing was changed).
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.engines import BASE_PYTHON, Podman, push_base, running_registry

EDIT_ROUNDS = 9
DEPS_ROUNDS = 3
FILES = 200
LEAST_EDIT_RATIO = 10.0
LEAST_DEPS_RATIO = 3.0
REQUIREMENTS = ["scikit-learn==1.7.2", "pandas==2.3.3"]
#: Versions of the requirement that changes.
CHANGES = ["3.7", "3.8", "3.9", "3.10"]

_DOCKERFILE = """\
FROM {base}
COPY requirements.txt /tmp/requirements.txt
RUN --mount=type=cache,target=/root/.cache/pip pip install --target /opt/stepops/requirements -r /tmp/requirements.txt
COPY runtime /opt/stepops/runtime
COPY project /opt/stepops/code
ENV PYTHONPATH=/opt/stepops/code:/opt/stepops/requirements:/opt/stepops/runtime
WORKDIR /opt/stepops/code
CMD ["python", "-m", "airflow_stepops.runtime"]
"""

_CHECK = (
    "import idna, pandas, sklearn, steps, obstore, airflow_stepops.dag; "
    "print(steps.EDITS, idna.__version__, airflow_stepops.dag.__file__)"
)


@dataclass
class Sides:
    """The two ways to an image of the same project."""

    folder: Path
    host: str
    base: str
    podman: Podman
    edits: int = 0
    changed: str = CHANGES[0]

    @property
    def project(self) -> Path:
        """The code folder."""
        return self.folder / "project"

    @property
    def requirements(self) -> list[str]:
        """The requirements as they are now."""
        return [*REQUIREMENTS, f"idna=={self.changed}"]

    def write(self) -> None:
        """Write the project: many files, of which one is the step."""
        for number in range(FILES - 1):
            path = self.project / f"package{number % 10}" / f"module{number}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f'"""Module {number}."""\n' + "".join(f"VALUE_{n} = {n * number}\n" for n in range(60)))
        self.edit()
        self.change(CHANGES[0])
        (self.folder / "Dockerfile").write_text(_DOCKERFILE.format(base=self.base))

    def edit(self) -> None:
        """Edit one line of the step."""
        self.edits += 1
        (self.project / "steps.py").write_text(f"EDITS = {self.edits}\n")

    def change(self, version: str) -> None:
        """Change one requirement."""
        self.changed = version
        (self.folder / "requirements.txt").write_text("\n".join(self.requirements))

    def ours(self, host: str | None = None) -> str:
        """Make sure of the image in our way and return its reference."""
        from airflow_stepops.images.builder import plan_image
        from airflow_stepops.images.registry.client import RegistryClient
        from airflow_stepops.options import Image
        from airflow_stepops.stacks.components import ImageTarget

        return (
            plan_image(
                Image(requirements=tuple(self.requirements), python=BASE_PYTHON),
                target=ImageTarget(self.base, None),
                code_root=self.project,
                dag_file=self.project / "steps.py",
                repository=RegistryClient(f"{host or self.host}/bench/ours"),
                builder=None,
                report=lambda _: None,
            )
            .ensure()
            .reference
        )

    def theirs(self) -> str:
        """Make sure of the image with Podman and return its reference."""
        reference = f"{self.host}/bench/theirs:latest"
        volumes = ["--volume", "/etc/ssl/certs:/etc/ssl/certs:ro"]
        settings = [f"--env={name}={value}" for name, value in os.environ.items() if name.startswith("PIP_INDEX")]
        options = ["--network", "host", "--isolation", "chroot", *volumes, *settings]
        self.podman.run("build", "--quiet", *options, "--tag", reference, ".", cwd=self.folder)
        self.podman.run("push", "--quiet", "--tls-verify=false", reference)
        return reference


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def compare(sides: Sides, prepare: Callable[[int], None], rounds: int, what: str) -> float:
    """Let the sides take turns and return how many times faster ours is, by the medians."""
    ours, theirs = [], []
    for number in range(rounds):
        prepare(number)
        # Who goes first alternates, so that neither always finds the disk busy.
        for times, work in ((ours, sides.ours), (theirs, sides.theirs))[:: 1 if number % 2 else -1]:
            times.append(timed(work))
    middle, other = statistics.median(ours), statistics.median(theirs)
    print(f"{what}: ours {middle * 1000:,.0f} ms, podman {other * 1000:,.0f} ms (medians of {rounds})")
    print(f"    ours   {' '.join(f'{value * 1000:,.0f}' for value in ours)}")
    print(f"    podman {' '.join(f'{value * 1000:,.0f}' for value in theirs)}")
    return other / middle


def take_runtime(sides: Sides) -> None:
    """Give Podman's side the files of our runtime layer."""
    from airflow_stepops.images.registry.client import RegistryClient
    from airflow_stepops.images.unpack import unpack_layers

    repository = RegistryClient(f"{sides.host}/bench/ours")
    layers = unpack_layers(repository, sides.ours(), sides.folder / "unpacked")
    shutil.copytree(layers.runtime, sides.folder / "runtime")


def unchanged_requests(sides: Sides) -> int:
    """Count the requests for an image that is there."""
    from tests.images.faults import faulty_proxy

    sides.ours()
    with faulty_proxy(sides.host) as proxy:
        sides.ours(proxy.host)
        return len(proxy.seen)


def outputs(sides: Sides) -> list[str]:
    """Pull both images and return what they print."""
    found = []
    for reference in (sides.ours(), f"{sides.host}/bench/theirs:latest"):
        sides.podman.run("pull", "--quiet", "--tls-verify=false", reference)
        found.append(sides.podman.run("run", "--rm", reference, "python", "-c", _CHECK))
    return found


def measure(folder: Path) -> tuple[float, int, float]:
    """Run the comparison in a folder; return the two ratios and, between them, the requests for no change."""
    os.environ |= {"STEPOPS_HOME": str(folder / "home"), "UV_CACHE_DIR": str(folder / "uv")}
    with running_registry(folder / "registry") as host:
        podman = Podman.new(insecure=(host,))
        try:
            sides = Sides(folder, host, push_base(host), podman)
            sides.write()
            first = timed(sides.ours), timed(lambda: take_runtime(sides)), timed(sides.theirs)
            print(f"first build, nothing cached: ours {first[0]:,.1f} s, podman {first[2]:,.1f} s")
            edit = compare(sides, lambda _: sides.edit(), EDIT_ROUNDS, "one line of a step edited")
            deps = compare(sides, lambda n: sides.change(CHANGES[n + 1]), DEPS_ROUNDS, "one requirement changed")
            requests = unchanged_requests(sides)
            printed = outputs(sides)
            assert printed[0] == printed[1], printed
        finally:
            podman.remove()
    return round(edit, 1), requests, round(deps, 1)


def main() -> int:
    """Measure, print, and fail when a figure is not what it must be."""
    code = "import time; t = time.perf_counter(); import airflow_stepops.images.builder; print(time.perf_counter() - t)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    print(f"loading the modules, once in a process: {float(loaded) * 1000:,.0f} ms")
    with tempfile.TemporaryDirectory(prefix="stepops-bench-", ignore_cleanup_errors=True) as folder:
        edit, requests, deps = measure(Path(folder).resolve())
    good = edit >= LEAST_EDIT_RATIO and deps >= LEAST_DEPS_RATIO and requests == 1
    print(json.dumps({"name": "image", "edit_ratio": edit, "unchanged_requests": requests, "deps_ratio": deps}))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
