"""The plan of an image: data whose digest is the image's name."""

from __future__ import annotations

import dataclasses

import pytest

from airflow_stepops.images.plan import ImagePlan, Machine, environment

PLAN = ImagePlan("host/base@sha256:1", Machine("linux/amd64", "3.12"), ("idna==3.10",), "sha256:2", "sha256:3")


def test_equal_plans_have_equal_tags() -> None:
    assert dataclasses.replace(PLAN).tag == PLAN.tag
    assert PLAN.tag == f"stepops-{PLAN.digest[7:39]}"
    assert len(PLAN.tag) == 40


@pytest.mark.parametrize(
    "change",
    [
        {"base": None},
        {"machine": Machine("linux/arm64", "3.12")},
        {"machine": Machine("linux/amd64", "3.11")},
        {"machine": Machine("linux/amd64", "3.12", here=True)},
        {"requirements": ()},
        {"requirements": ("idna==3.9",)},
        {"runtime": "sha256:4"},
        {"code": "sha256:4"},
    ],
)
def test_every_part_of_the_plan_is_in_its_tag(change: dict[str, object]) -> None:
    assert dataclasses.replace(PLAN, **change).tag != PLAN.tag  # type: ignore[arg-type]


def test_a_plan_prints_what_goes_in() -> None:
    lines = str(PLAN).splitlines()
    assert lines[0] == "base          host/base@sha256:1"
    assert lines[1] == "platform      linux/amd64, Python 3.12"
    assert lines[-1] == f"tag           {PLAN.tag}"


def test_our_folders_come_before_those_of_the_base() -> None:
    ours = environment(["PATH=/opt/conda/bin:/bin", "PYTHONPATH=/opt/lib", "EMPTY=", "EQ=a=b"])
    assert ours == [
        "PATH=/opt/stepops/requirements/bin:/opt/conda/bin:/bin",
        "PYTHONPATH=/opt/stepops/code:/opt/stepops/requirements:/opt/stepops/runtime:/opt/lib",
        "EMPTY=",
        "EQ=a=b",
    ]
