"""The page "Azure ML from zero": what it tells people to write works."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from azure.ai.ml import load_compute

from airflow_stepops.clouds.azure.artifact_store import AzureBlobArtifactStore
from airflow_stepops.clouds.azure.container_registry import AcrContainerRegistry
from airflow_stepops.clouds.azure.step_operator import AzureMLStepOperator
from airflow_stepops.stacks.file import read
from tests.engines import run

GUIDE = (Path(__file__).resolve().parents[3] / "docs" / "azure-ml.md").read_text()


def titled(title: str) -> str:
    """Return the file of the page that has a title."""
    found = re.search(rf'^```\w+ title="{re.escape(title)}"\n(.*?)^```', GUIDE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture
def guide(tmp_path: Path) -> Path:
    """A folder with the files of the page."""
    for name in ("dags/stepops.yaml", "dags/spectrum.py", "cluster.yml"):
        (tmp_path / Path(name).name).write_text(titled(name))
    return tmp_path


def test_the_stack_of_the_guide_is_what_its_commands_make(guide: Path) -> None:
    stack = read(guide / "stepops.yaml").stack(None)
    assert isinstance(stack.artifact_store, AzureBlobArtifactStore)
    assert isinstance(stack.container_registry, AcrContainerRegistry)
    (operator,) = stack.step_operators
    assert isinstance(operator, AzureMLStepOperator)
    registry = stack.container_registry.uri.removesuffix(".azurecr.io")
    names = f"STORAGE={stack.artifact_store.account_name} REGISTRY={registry} WORKSPACE={operator.workspace_name}"
    assert names in GUIDE
    assert f"SUBSCRIPTION={operator.subscription_id} GROUP={operator.resource_group} " in GUIDE
    assert f"container-rm create --name {stack.artifact_store.container} " in GUIDE


def test_the_cluster_of_the_guide_is_one_with_the_identity_that_gets_the_rights(guide: Path) -> None:
    cluster = load_compute(guide / "cluster.yml")
    operator = read(guide / "stepops.yaml").stack(None).step_operators[0]
    assert isinstance(operator, AzureMLStepOperator)
    assert (cluster.name, cluster.type, cluster.min_instances) == (operator.compute_name, "amlcompute", 0)
    (identity,) = cluster.identity.user_assigned_identities
    assert identity.resource_id.endswith("/userAssignedIdentities/stepops-job")
    assert identity.resource_id.startswith(f"/subscriptions/{operator.subscription_id}/resourceGroups/steps/")


def test_the_assignments_of_the_guide_are_those_that_the_stack_needs(guide: Path) -> None:
    stack = read(guide / "stepops.yaml").stack(None)
    needed = stack.step_operators[0].permissions(stack.artifact_store, stack.container_registry)
    known = {"STORAGE": "mysteps12345", "REGISTRY": "mysteps12345", "WORKSPACE": "steps"}
    known |= {"ROOT": "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/steps/providers"}
    given = set()
    for who, quoted, bare, scope in re.findall(r'grant \$(\w+) (?:"([^"]+)"|(\w+)) (?:\\\n\s+)?(\S+)', GUIDE):
        place = re.sub(r"\$(\w+)", lambda found: known[found[1]], scope)
        given.add((who.replace("JOB", "COMPUTE") + "_IDENTITY", quoted or bare, place))
    assert given == {(one["assignee"], one["role"], one["scope"]) for one in needed["assignments"]}
    assert (needed["worker_role"]["Name"], needed["job_role"]["Name"]) == ("stepops worker", "stepops job")


def test_the_pipeline_of_the_guide_is_one(guide: Path) -> None:
    run(sys.executable, "-c", "from spectrum import spectrum; print(spectrum)", cwd=guide)
