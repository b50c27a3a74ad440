"""Components: their documents, their step-level settings, and flavors of other packages."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_stepops.clouds.docker.step_operator import DockerStepOperator
from airflow_stepops.clouds.generic.container_registry import GenericContainerRegistry
from airflow_stepops.clouds.local.artifact_store import LocalArtifactStore
from airflow_stepops.errors import StackError
from airflow_stepops.stacks.components import ArtifactStoreComponent, ContainerRegistryComponent, StepOperatorComponent
from airflow_stepops.stacks.file import load
from airflow_stepops.stacks.flavors import KINDS, component_from_document, flavor_class, flavors
from tests.stacks.conftest import USUAL, Write


def test_a_document_holds_what_differs_from_the_defaults() -> None:
    assert DockerStepOperator(name="engine", network="host").document() == {
        "flavor": "docker",
        "name": "engine",
        "network": "host",
    }


@given(
    name=st.text(max_size=10),
    network=st.none() | st.text(max_size=10),
    platform=st.sampled_from([None, "linux/amd64", "linux/arm64"]),
    extra=st.dictionaries(st.sampled_from(["shm_size", "privileged"]), st.text(max_size=5) | st.booleans()),
)
def test_a_component_comes_back_from_its_document(
    name: str, network: str | None, platform: str | None, extra: dict[str, object]
) -> None:
    made = DockerStepOperator(name=name, network=network, platform=platform, extra=extra)  # type: ignore[arg-type]
    assert component_from_document(StepOperatorComponent, made.document()) == made


def test_every_kind_comes_back_from_its_document(write: Write) -> None:
    stack = load(write(USUAL)).stack()
    assert component_from_document(ArtifactStoreComponent, stack.artifact_store.document()) == stack.artifact_store
    registry = stack.container_registry
    assert component_from_document(ContainerRegistryComponent, registry.document()) == registry
    assert LocalArtifactStore.model_fields["path"].default is None


def test_a_document_of_a_newer_release_is_refused_with_the_setting() -> None:
    with pytest.raises(StackError, match=r"component 'engine'\.queue: unknown setting"):
        component_from_document(StepOperatorComponent, {"flavor": "docker", "name": "engine", "queue": 3})


def test_step_level_settings_go_over_those_of_the_file() -> None:
    component = DockerStepOperator(name="engine", network="host", base_image="a")
    changed = component.overridden({"base_image": "b"})
    assert (changed.name, changed.network, changed.base_image) == ("engine", "host", "b")
    assert component.base_image == "a"
    assert component.overridden({}) == component


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"base_imag": "x"}, "settings of 'engine': base_imag: unknown setting. Did you mean 'base_image'?"),
        ({"base_image": 3}, "settings of 'engine': base_image: 3 is not allowed: input should be a valid string."),
        ({"name": "other"}, "settings of 'engine': name: unknown setting."),
        ({"extra": {"environment": {"TOKEN": "hunter2"}}}, "settings of 'engine': extra.environment.TOKEN: looks like"),
    ],
)
def test_wrong_step_level_settings_are_said(settings: dict[str, object], said: str) -> None:
    with pytest.raises(StackError) as caught:
        DockerStepOperator(name="engine").overridden(settings)
    assert str(caught.value).startswith(said)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "uri", ["registry.example.com", "registry.example.com/team", "127.0.0.1:5000/a/b-c", "localhost:5000"]
)
def test_a_registry_is_named_by_host_and_prefix(uri: str) -> None:
    repository = GenericContainerRegistry(uri=uri, repository="steps").open()
    assert repository.name == f"{uri}/steps"
    assert repository.login() is None


def test_every_built_in_flavor_is_of_its_kind() -> None:
    for kind, base in KINDS.items():
        for flavor in flavors(kind):
            found = flavor_class(kind, flavor, "test")
            assert issubclass(found, base)
            assert found.flavor == flavor


PLUGIN = """
from typing import ClassVar
from airflow_stepops.stacks.components import StepOperatorComponent, ImageTarget

class Slurm(StepOperatorComponent):
    flavor: ClassVar[str] = "slurm"
    partition: str
    def target(self): return ImageTarget(None, None)
    def connect(self): raise NotImplementedError
    def account_key(self): return "slurm"
"""


def run_with_plugin(folder: Path, code: str) -> str:
    """Run code where another package brings flavors, and return what it prints."""
    package = folder / "site"
    (package / "slurm_1.dist-info").mkdir(parents=True)
    (package / "slurm_flavor.py").write_text(PLUGIN)
    (package / "slurm_1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: slurm\nVersion: 1\n")
    (package / "slurm_1.dist-info" / "entry_points.txt").write_text(
        "[airflow_stepops.step_operators]\nslurm = slurm_flavor:Slurm\nbroken = json:dumps\n"
        "local = slurm_flavor:Slurm\n"
    )
    code = f"import sys; sys.path.insert(0, {str(package)!r})\n{code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_another_package_brings_flavors_by_entry_points(tmp_path: Path) -> None:
    printed = run_with_plugin(
        tmp_path,
        """
from airflow_stepops.errors import StackError
from airflow_stepops.stacks.components import StepOperatorComponent
from airflow_stepops.stacks.flavors import component_from_document, flavors
print(flavors("step_operators"))
print(component_from_document(StepOperatorComponent, {"flavor": "slurm", "partition": "gpu"}).partition)
print(type(component_from_document(StepOperatorComponent, {"flavor": "local"})).__module__)
for document in ({"flavor": "slurm", "partitio": "gpu"}, {"flavor": "slrm"}, {"flavor": "broken"}):
    try:
        component_from_document(StepOperatorComponent, document)
    except StackError as error:
        print(error)
""",
    ).splitlines()
    assert {"broken", "slurm", "local"} <= set(ast.literal_eval(printed[0]))
    assert printed[1] == "gpu"
    assert printed[2] == "airflow_stepops.clouds.local.step_operator"  # what is built in cannot be replaced
    assert "unknown setting. Did you mean 'partition'?" in printed[3]
    assert "unknown flavor. Did you mean 'slurm'?" in printed[4]
    assert "json:dumps of flavor 'broken' is not a StepOperatorComponent" in printed[5]


def test_a_flavor_that_cannot_be_imported_is_said(tmp_path: Path) -> None:
    printed = run_with_plugin(
        tmp_path,
        """
import slurm_flavor, pathlib
pathlib.Path(slurm_flavor.__file__).unlink()
del sys.modules["slurm_flavor"]
import shutil; shutil.rmtree(pathlib.Path(slurm_flavor.__file__).parent / "__pycache__", ignore_errors=True)
import importlib; importlib.invalidate_caches()
from airflow_stepops.errors import StackError
from airflow_stepops.stacks.components import StepOperatorComponent
from airflow_stepops.stacks.flavors import component_from_document
try:
    component_from_document(StepOperatorComponent, {"flavor": "slurm", "partition": "gpu"})
except StackError as error:
    print(error)
""",
    )
    assert "slurm_flavor:Slurm of flavor 'slurm' cannot be imported: No module named 'slurm_flavor'" in printed
