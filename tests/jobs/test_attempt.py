"""Names and folders of attempts."""

from __future__ import annotations

import dataclasses
import re

from hypothesis import given
from hypothesis import strategies as st

from airflow_stepops.jobs.attempt import attempt_directory, job_name, segment, task_directory
from airflow_stepops.runtime.spec import Attempt

texts = st.text(min_size=1, max_size=250)
attempts = st.builds(
    Attempt,
    texts,
    texts,
    texts,
    st.integers(min_value=-1, max_value=100_000),
    st.integers(min_value=1, max_value=999),
    texts,
    texts,
)

#: The narrowest of the services: SageMaker's pattern and length; Azure ML and container engines allow more.
NARROWEST = re.compile(r"[a-z0-9](-*[a-z0-9]){0,62}")


@given(attempts)
def test_a_job_name_fits_every_service(attempt: Attempt) -> None:
    assert NARROWEST.fullmatch(job_name("s3://bucket/prefix", attempt))


@given(attempts, attempts)
def test_different_attempts_have_different_job_names_and_folders(one: Attempt, other: Attempt) -> None:
    root = "file:///store"
    assert (one == other) == (job_name(root, one) == job_name(root, other))
    same_folder = attempt_directory(root, one) == attempt_directory(root, other)
    assert same_folder == (dataclasses.replace(one, ti_id="") == dataclasses.replace(other, ti_id=""))


@given(attempts)
def test_two_installations_with_the_same_dags_have_different_job_names(attempt: Attempt) -> None:
    assert job_name("s3://one", attempt) != job_name("s3://other", attempt)


@given(texts, texts)
def test_a_path_segment_is_safe_and_belongs_to_one_text(one: str, other: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_.=-]{1,140}", segment(one))
    assert segment(one).strip(".")
    assert (one == other) == (segment(one) == segment(other))


def test_the_parts_of_an_ordinary_run_can_be_read_in_its_path_and_name() -> None:
    attempt = Attempt("churn", "scheduled__2026-01-01T00:00:00+00:00", "models.train", 3, 2, "instance", "ti-2")
    directory = attempt_directory("s3://bucket/team", attempt)
    assert re.fullmatch(
        r"s3://bucket/team/runs/churn/scheduled__2026-01-01T00_00_00_00_00-[0-9a-f]{8}/models\.train/3/instance/attempt-2",
        directory,
    )
    assert directory.startswith(task_directory("s3://bucket/team", dataclasses.replace(attempt, try_number=1)))
    assert re.fullmatch(r"churn-models-train-2-[0-9a-f]{16}", job_name("s3://bucket/team", attempt))
