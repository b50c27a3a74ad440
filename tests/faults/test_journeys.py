"""A slice of the fault matrix; the whole of it is ``make bench NAME=faults``, and ``fault_pairs`` for two faults."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.engines import Podman
from tests.faults.amazon import amazon
from tests.faults.google import google
from tests.faults.journey import FAULTS, HANG, KILLED_AFTER, KILLED_ANSWERED, KILLED_BEFORE, Journey, Place, travel
from tests.faults.microsoft import microsoft

CLOUDS = {"aws": amazon, "gcp": google, "azure": microsoft}
#: What is most likely to make a second job.
_TELLING = (KILLED_AFTER, KILLED_ANSWERED, "lose_answer", HANG)

every_cloud = pytest.mark.parametrize("place", CLOUDS, indirect=True)


@pytest.fixture(scope="module")
def place(
    request: pytest.FixtureRequest,
    podman: Podman,
    registry: str,
    base_image: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Place]:
    with CLOUDS[request.param](tmp_path_factory.mktemp("journeys"), podman, registry, base_image) as found:
        travel(found)  # makes the image
        yield found


@pytest.fixture(scope="module")
def clean(place: Place) -> Journey:
    return travel(place)


@every_cloud
def test_a_journey_without_faults_has_one_attempt_and_one_job(place: Place, clean: Journey) -> None:
    assert clean.is_well, clean
    assert clean.attempts == 1
    assert sum(re.search(place.create, call) is not None for call in clean.calls) == 1


@pytest.mark.parametrize(
    ("place", "fault"),
    [*(("aws", fault) for fault in FAULTS), *((cloud, fault) for cloud in ("gcp", "azure") for fault in _TELLING)],
    indirect=["place"],
)
def test_a_fault_at_the_call_that_makes_the_job_leaves_one_job_and_the_result(
    place: Place, clean: Journey, fault: str
) -> None:
    create = next(spot for spot in clean.spots if re.search(place.create, spot[0]))
    journey = travel(place, (create, fault))
    assert journey.fired
    assert journey.is_well, journey


@pytest.mark.parametrize("place", ["aws"], indirect=True)
@pytest.mark.parametrize(
    ("part", "fault"),
    [(0.1, KILLED_AFTER), (0.3, KILLED_BEFORE), (0.5, KILLED_ANSWERED), (0.7, KILLED_BEFORE), (0.9, KILLED_BEFORE)],
)
def test_a_process_that_is_killed_on_the_way_loses_nothing(
    place: Place, clean: Journey, part: float, fault: str
) -> None:
    first_of_its_kind = [spot for spot in clean.spots if spot[1] == 0]
    journey = travel(place, (first_of_its_kind[int(part * len(first_of_its_kind))], fault))
    assert journey.fired
    assert journey.is_well, journey


@pytest.mark.parametrize("place", ["aws"], indirect=True)
@pytest.mark.parametrize("fault", [KILLED_AFTER, KILLED_ANSWERED])
def test_a_success_that_was_written_down_by_a_process_that_is_killed_is_that_of_the_next_try(
    place: Place, clean: Journey, fault: str
) -> None:
    written = [spot for spot in clean.spots if re.search("^PUT .*/job.json$", spot[0])]
    journey = travel(place, (written[-1], fault))
    assert journey.fired
    assert journey.is_well, journey


@every_cloud
@pytest.mark.parametrize(
    ("first", "later", "second"),
    [(KILLED_AFTER, 2, KILLED_BEFORE), ("lose_answer", 1, KILLED_ANSWERED), (KILLED_BEFORE, 4, "503")],
)
def test_two_faults_from_the_call_that_makes_the_job_leave_one_job_and_the_result(
    place: Place, clean: Journey, first: str, later: int, second: str
) -> None:
    create = next(spot for spot in clean.spots if re.search(place.create, spot[0]))
    journey = travel(place, (create, first), (later, second))
    assert journey.fired
    assert journey.is_well, journey


@pytest.mark.parametrize("place", ["aws"], indirect=True)
def test_a_second_fault_happens_so_many_calls_after_the_first(place: Place, clean: Journey) -> None:
    journey = travel(place, (clean.spots[0], KILLED_BEFORE), (1, KILLED_BEFORE))
    assert journey.fired
    assert journey.attempts == 3
    assert journey.is_well, journey
