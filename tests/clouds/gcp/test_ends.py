"""How jobs of Vertex AI end badly, as a person sees it: the kind, the reason, and whether Airflow tries again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from airflow_stepops.client import Client, Run
from airflow_stepops.clouds.gcp.service import VertexJobService
from tests.airflow_env import DAGS, InProcessAirflow
from tests.clouds.gcp.vertex import State, Vertex

STEPS = """\
import os
import time

from airflow_stepops.dag import Image, pipeline, step

ON_GCP = {"step_operator": True, "image": Image(python="3.11"), "retries": 1, "retry_delay": 0}
WITHOUT_AN_IMAGE = {**ON_GCP, "image": Image(uri="127.0.0.1:1/nothing@sha256:" + "0" * 64)}


@step(**ON_GCP)
def raises():
    raise ValueError("the rate is negative")


@step(**ON_GCP)
def is_killed():
    os._exit(137)


@step(**ON_GCP, timeout=3)
def never_ends():
    time.sleep(600)


@step(**ON_GCP)
def finds_no_machine():
    return 1


@step(**ON_GCP)
def waits_in_vain():
    return 1


@step(**ON_GCP)
def loses_its_machine():
    return 1


@step(**ON_GCP)
def may_not_read_its_image():
    return 1


@step(**WITHOUT_AN_IMAGE)
def has_no_image():
    return 1


@step(**ON_GCP, settings={"service_account": "nobody@steps-on-vertex.iam.gserviceaccount.com"})
def is_nobody():
    return 1


@step(**ON_GCP, settings={"extra": {"jobSpec": {"scheduling": {"timeoutt": "60s"}}}})
def is_misspelt():
    return 1


@pipeline(stack="gcp")
def bad_ends():
    raises()
    is_killed()
    never_ends()
    finds_no_machine()
    waits_in_vain()
    loses_its_machine()
    may_not_read_its_image()
    has_no_image()
    is_nobody()
    is_misspelt()
"""


@pytest.fixture(scope="module")
def ends(migrated_database: None, emulated: Vertex, airflow_settings: dict[str, str]) -> Iterator[Run]:
    airflow = InProcessAirflow(DAGS)
    airflow.write("bad_ends.py", STEPS)
    failed = State.JOB_STATE_FAILED
    emulated.ends |= {
        "finds_no_machine": (failed, 8, "Resources are insufficient in region: europe-west4. Please try another."),
        "waits_in_vain": (State.JOB_STATE_EXPIRED, 0, ""),
        "loses_its_machine": (failed, 10, "The Spot VM of the replica workerpool0-0 was preempted."),
        "may_not_read_its_image": (failed, 7, "Permission artifactregistry.repositories.downloadArtifacts denied"),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in airflow_settings.items():
            patch.setenv(name, value)
        patch.setattr(VertexJobService, "poll_seconds", 0.5)
        run = airflow.run("bad_ends")
        yield Client().get_run("bad_ends", run.run_id, stack="gcp")
    shutil.rmtree(DAGS)
    DAGS.mkdir()


@pytest.mark.parametrize(
    ("task", "kind", "reason"),
    [
        ("raises", "ValueError", "the rate is negative"),
        ("is_killed", "infrastructure", "non-zero status of 137"),
        ("never_ends", "timeout", "ran longer than it may"),
        ("finds_no_machine", "capacity", "Resources are insufficient"),
        ("waits_in_vain", "capacity", "JOB_STATE_EXPIRED"),
        ("loses_its_machine", "preempted", "Spot VM"),
    ],
)
def test_what_may_pass_by_itself_is_tried_again(ends: Run, task: str, kind: str, reason: str) -> None:
    first = ends.step(task).attempts[0]
    assert first.error is not None
    assert first.error.type == kind
    assert reason in first.error.message
    assert len(ends.step(task).attempts) == 2


@pytest.mark.parametrize(
    ("task", "kind", "reason"),
    [
        ("may_not_read_its_image", "permission", "artifactregistry.repositories.downloadArtifacts"),
        ("has_no_image", "image", "does not exist"),
        ("is_nobody", "permission", "act as service account"),
        ("is_misspelt", "invalid_request", "Did you mean 'timeout'?"),
    ],
)
def test_what_a_retry_cannot_help_is_not_tried_again(ends: Run, task: str, kind: str, reason: str) -> None:
    only = ends.step(task)
    assert only.error is not None
    assert only.error.type == kind
    assert reason in only.error.message
    assert len(only.attempts) == 1
