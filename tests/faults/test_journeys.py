"""A slice of the fault matrix; the whole of it is ``make bench NAME=faults``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.engines import Podman
from tests.faults.amazon import amazon
from tests.faults.journey import FAULTS, KILLED_AFTER, KILLED_BEFORE, Journey, Place, travel


@pytest.fixture(scope="module")
def place(podman: Podman, registry: str, base_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with amazon(tmp_path_factory.mktemp("journeys"), podman, registry, base_image) as found:
        travel(found)  # makes the image
        yield found


@pytest.fixture(scope="module")
def clean(place: Place) -> Journey:
    return travel(place)


def test_a_journey_without_faults_has_one_attempt_and_one_job(clean: Journey) -> None:
    assert clean.is_well, clean
    assert clean.attempts == 1
    assert any(call.endswith("#CreateTrainingJob") for call in clean.calls)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_at_the_call_that_makes_the_job_leaves_one_job_and_the_result(
    place: Place, clean: Journey, fault: str
) -> None:
    number = next(number for number, call in enumerate(clean.calls) if call.endswith("#CreateTrainingJob"))
    journey = travel(place, (number, fault))
    assert journey.fired
    assert journey.is_well, journey


@pytest.mark.parametrize("fault", [KILLED_BEFORE, KILLED_AFTER])
@pytest.mark.parametrize("part", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_process_that_is_killed_on_the_way_loses_nothing(
    place: Place, clean: Journey, part: float, fault: str
) -> None:
    journey = travel(place, (int(part * len(clean.calls)), fault))
    assert journey.fired
    assert journey.is_well, journey
