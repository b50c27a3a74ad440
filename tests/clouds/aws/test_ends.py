"""How jobs of SageMaker end badly, as a person sees it: the kind, the reason, and whether Airflow tries again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from airflow_stepops.client import Client, Run
from airflow_stepops.clouds.aws.service import SageMakerJobService
from tests.airflow_env import DAGS, InProcessAirflow
from tests.clouds.aws.sagemaker import SageMaker

STEPS = """\
import os
import time

from airflow_stepops.dag import Image, pipeline, step

ON_AWS = {"step_operator": True, "image": Image(python="3.11"), "retries": 1, "retry_delay": 0}
WITHOUT_AN_IMAGE = {**ON_AWS, "image": Image(uri="127.0.0.1:1/nothing@sha256:" + "0" * 64)}


@step(**ON_AWS)
def raises():
    raise ValueError("the rate is negative")


@step(**ON_AWS)
def is_killed():
    os._exit(137)


@step(**ON_AWS, timeout=3)
def never_ends():
    time.sleep(600)


@step(**ON_AWS)
def finds_no_machine():
    return 1


@step(**ON_AWS)
def waits_for_spot_in_vain():
    return 1


@step(**WITHOUT_AN_IMAGE)
def has_no_image():
    return 1


@step(**ON_AWS, settings={"role": "arn:aws:iam::123456789012:role/nobody"})
def has_a_bad_role():
    return 1


@step(**ON_AWS, settings={"extra": {"ResourceConfig": {"InstanceTipe": "ml.m5.large"}}})
def is_misspelt():
    return 1


@pipeline(stack="aws")
def bad_ends():
    raises()
    is_killed()
    never_ends()
    finds_no_machine()
    waits_for_spot_in_vain()
    has_no_image()
    has_a_bad_role()
    is_misspelt()
"""


@pytest.fixture(scope="module")
def ends(
    migrated_database: None,
    emulated: SageMaker,
    airflow_settings: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Run]:
    airflow = InProcessAirflow(DAGS)
    airflow.write("bad_ends.py", STEPS)
    capacity = "CapacityError: Unable to provision requested ML compute capacity. Please retry using a different type."
    emulated.ends["finds_no_machine"] = ("Failed", "Failed", capacity)
    emulated.ends["waits_for_spot_in_vain"] = ("Stopped", "MaxWaitTimeExceeded", "")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in airflow_settings.items():
            patch.setenv(name, value)
        patch.setattr(SageMakerJobService, "poll_seconds", 0.5)
        run = airflow.run("bad_ends")
        yield Client().get_run("bad_ends", run.run_id, stack="aws")
    shutil.rmtree(DAGS)
    DAGS.mkdir()


@pytest.mark.parametrize(
    ("task", "kind", "reason"),
    [
        ("raises", "ValueError", "the rate is negative"),
        ("is_killed", "infrastructure", "exit code: 137"),
        ("never_ends", "timeout", "ran longer than it may"),
        ("finds_no_machine", "capacity", "Unable to provision"),
        ("waits_for_spot_in_vain", "capacity", "waited longer for spot capacity"),
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
        ("has_no_image", "image", "Cannot pull algorithm container"),
        ("has_a_bad_role", "invalid_request", "role/nobody"),
        ("is_misspelt", "invalid_request", "InstanceTipe"),
    ],
)
def test_what_a_retry_cannot_help_is_not_tried_again(ends: Run, task: str, kind: str, reason: str) -> None:
    only = ends.step(task)
    assert only.error is not None
    assert only.error.type == kind
    assert reason in only.error.message
    assert len(only.attempts) == 1
