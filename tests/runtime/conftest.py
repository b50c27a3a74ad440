"""A step's image without an engine: folders with exactly what is shipped, and a Python that sees nothing else."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import blake3
import cloudpickle
import obstore
import pytest

import airflow_stepops
from airflow_stepops.artifacts.store import ArtifactStore
from airflow_stepops.runtime.call import encode_inputs
from airflow_stepops.runtime.result import JobResult
from airflow_stepops.runtime.spec import SPEC_VARIABLE, Attempt, JobSpec, StepSource
from tests.artifacts.conftest import s3_root as s3_root
from tests.artifacts.conftest import s3_server as s3_server
from tests.images.faults import FaultyProxy, faulty_proxy

ATTEMPT = Attempt("churn", "manual__1", "train", -1, 1, "instance", "ti-1")


def copy_runtime(target: Path) -> None:
    """Copy what the runtime layer holds: our own files, and its wheels."""
    package = Path(airflow_stepops.__file__).parent
    ours = target / "airflow_stepops"
    for name in ("artifacts", "runtime"):
        shutil.copytree(package / name, ours / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("__init__.py", "errors.py", "options.py"):
        shutil.copy(package / name, ours / name)
    shutil.copy(package / "runtime" / "steps.py", ours / "dag.py")
    for library in (blake3, cloudpickle, obstore):
        folder = Path(library.__file__).parent
        shutil.copytree(folder, target / folder.name, ignore=shutil.ignore_patterns("__pycache__"))


@dataclasses.dataclass
class Run:
    """One job that has ended."""

    exit_code: int
    stdout: str
    stderr: str
    result: JobResult | None


@dataclasses.dataclass
class StepImage:
    """The folders of an image, an artifact store beside, and the jobs that run in it."""

    folder: Path
    runtime: Path
    store: ArtifactStore

    def write(self, name: str, source: str) -> None:
        """Put a file into the code layer."""
        path = self.folder / "code" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))

    def spec(self, function: str, *args: Any, file: str = "dag_file.py", try_number: int = 1, **fields: Any) -> JobSpec:
        """Write the spec of a job that calls a function of a file."""
        directory = f"{self.store.root}/runs/churn/manual__1/train/-1/attempt-{try_number}"
        encoded, _ = encode_inputs(args, {}, self.store, directory)
        module = file.removesuffix(".py").replace("/", ".")
        source = StepSource(file, module, function, "0" * 64)
        attempt = dataclasses.replace(ATTEMPT, try_number=try_number)
        spec = JobSpec(attempt, source, self.store.root, directory, encoded, **fields)
        self.store.put(spec.uri, spec.to_json())
        return spec

    def start(self, spec_uri: str, **variables: str) -> subprocess.Popen[str]:
        """Start a job: this Python without its site-packages, and a clean environment."""
        python = getattr(sys, "_base_executable", sys.executable)
        path = [self.folder / "code", self.folder / "requirements", self.runtime]
        return subprocess.Popen(
            [python, "-S", "-m", "airflow_stepops.runtime"],
            cwd=self.folder / "code",
            env={
                "PATH": os.defpath,
                "PYTHONPATH": os.pathsep.join(map(str, path)),
                "PYTHONPYCACHEPREFIX": str(self.runtime.parent / "bytecode"),
                SPEC_VARIABLE: spec_uri,
                **variables,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, process: subprocess.Popen[str], try_number: int = 1) -> Run:
        """Wait for a job's end and read its result."""
        stdout, stderr = process.communicate(timeout=120)
        place = f"/attempt-{try_number}/result.json"
        uris = [uri for uri in self.store.list(self.store.root) if uri.endswith(place)]
        attempt = dataclasses.replace(ATTEMPT, try_number=try_number)
        result = JobResult.from_json(self.store.get(uris[0]), attempt) if uris else None
        return Run(process.returncode, stdout, stderr, result)

    def run(self, function: str, *args: Any, variables: dict[str, str] | None = None, **fields: Any) -> Run:
        """Run a function of the code layer as a job.

        :param variables: of the container, beside what the spec says.
        """
        return self.finish(self.start(self.spec(function, *args, **fields).uri, **(variables or {})))


@pytest.fixture(scope="session")
def runtime_layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the runtime layer."""
    folder = tmp_path_factory.mktemp("layers") / "runtime"
    copy_runtime(folder)
    return folder


@dataclasses.dataclass
class Bucket:
    """An S3 bucket behind a proxy that breaks what it is told to.

    :param root: of an empty artifact store in it.
    :param variables: with which a job gets there, through the proxy.
    """

    proxy: FaultyProxy
    root: str
    variables: dict[str, str]


@pytest.fixture
def bucket(s3_server: str, s3_root: str) -> Iterator[Bucket]:
    """A bucket that this process reaches directly, and jobs through a proxy."""
    with faulty_proxy(s3_server.removeprefix("http://")) as proxy:
        variables = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        yield Bucket(proxy, s3_root, {**variables, "AWS_ENDPOINT": f"http://{proxy.host}"})


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 2 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def image(tmp_path: Path, runtime_layer: Path) -> StepImage:
    """An image with an empty code layer."""
    folder = tmp_path / "image"
    (folder / "code").mkdir(parents=True)
    (folder / "requirements").mkdir()
    return StepImage(folder, runtime_layer, ArtifactStore((tmp_path / "store").as_uri()))
