"""Logs of Vertex AI's jobs in Cloud Logging: nothing lost, nothing twice, and no more calls than there may be."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_stepops.clouds.gcp import service as service_module
from airflow_stepops.clouds.gcp.logs import Pace
from airflow_stepops.clouds.gcp.service import VertexJobService
from airflow_stepops.clouds.gcp.step_operator import VertexStepOperator
from airflow_stepops.errors import TransientServiceError
from tests.clouds.gcp.cloud_logging import CloudLogging
from tests.clouds.gcp.emulated import EmulatedGcp
from tests.clouds.gcp.vertex import REGION
from tests.clouds.ground import all_lines

FIRST, SECOND = "workerpool0-0", "workerpool1-0"
SECOND_NS = 10**9


@pytest.fixture
def entries(gcp: EmulatedGcp) -> Iterator[CloudLogging]:
    """An empty log."""
    before = gcp.apis.get("logging")
    fresh = gcp.apis["logging"] = CloudLogging()
    yield fresh
    if before is not None:
        gcp.apis["logging"] = before


@pytest.fixture
def component(connection: str) -> VertexStepOperator:
    return VertexStepOperator(region=REGION, connection=connection)


@pytest.fixture
def service(component: VertexStepOperator) -> VertexJobService:
    return VertexJobService(component)


@pytest.fixture(autouse=True)
def _no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no quota, but where a test says so."""
    pace = Pace(seconds=0.0)
    monkeypatch.setattr(service_module, "_pace", lambda project: pace)


def test_lines_of_other_machines_and_jobs_are_told_apart(entries: CloudLogging, service: VertexJobService) -> None:
    entries.write("1", "service", "Job is provisioning.")
    entries.write("1", FIRST, "one")
    entries.write("1", SECOND, "two")
    entries.write("2", FIRST, "of another job")
    entries.write("1", FIRST, "three\nfour\n\n")
    assert all_lines(service, "1") == ["one", "[workerpool1-0] two", "three", "four"]


def test_an_entry_is_text_a_message_or_any_document(entries: CloudLogging, service: VertexJobService) -> None:
    entries.write("1", FIRST, "", textPayload="as text")
    entries.write("1", FIRST, "", jsonPayload={"loss": 0.5, "epoch": 1})
    entries.write("1", FIRST, "")
    assert all_lines(service, "1") == ["as text", '{"loss": 0.5, "epoch": 1}', ""]


def test_an_entry_of_many_lines_is_cut_where_the_limit_is(entries: CloudLogging, component: VertexStepOperator) -> None:
    entries.write("1", FIRST, "\n".join(map(str, range(5))), at=100 * SECOND_NS)
    first = VertexJobService(component).logs("1", "", 2)
    assert (list(first.lines), first.more) == (["0", "1"], True)
    # What comes late, before the entry that is not whole yet, changes nothing for it.
    entries.write("1", SECOND, "late", at=99 * SECOND_NS)
    assert all_lines(VertexJobService(component), "1", first.cursor, 2) == ["[workerpool1-0] late", "2", "3", "4"]


def test_entries_that_come_late_are_neither_lost_nor_repeated(
    entries: CloudLogging, service: VertexJobService, component: VertexStepOperator
) -> None:
    now = time.time_ns()
    entries.write("1", FIRST, "10", at=now + 10 * SECOND_NS)
    entries.write("1", FIRST, "20", at=now + 20 * SECOND_NS)
    chunk = service.logs("1")
    assert list(chunk.lines) == ["10", "20"]
    entries.write("1", SECOND, "5", at=now + 5 * SECOND_NS)
    entries.write("1", FIRST, "15", at=now + 15 * SECOND_NS)
    late = service.logs("1", chunk.cursor)
    assert list(late.lines) == ["[workerpool1-0] 5", "15"]
    assert list(VertexJobService(component).logs("1", late.cursor).lines) == []


def test_entries_of_one_moment_are_told_apart_by_their_ids(entries: CloudLogging, service: VertexJobService) -> None:
    for number in range(5):
        entries.write("1", FIRST, str(number), at=SECOND_NS)
    assert sorted(all_lines(service, "1", limit=2)) == ["0", "1", "2", "3", "4"]


def test_an_empty_page_is_not_the_last_one(entries: CloudLogging, service: VertexJobService) -> None:
    for number in range(1500):
        entries.write("1", FIRST, str(number))
    entries.empty_pages = 2
    assert all_lines(service, "1") == [str(number) for number in range(1500)]


def test_a_long_log_takes_a_call_for_a_thousand_lines_however_few_are_asked_for(
    entries: CloudLogging, service: VertexJobService
) -> None:
    for number in range(5500):
        entries.write("1", FIRST, str(number))
    assert len(all_lines(service, "1", limit=200)) == 5500
    assert entries.reads == 6


def test_a_quiet_job_takes_one_call_a_look_and_a_talkative_one_three(
    entries: CloudLogging, service: VertexJobService
) -> None:
    for number in range(10_000):
        entries.write("1", FIRST, str(number))
    cursor = ""
    while (chunk := service.logs("1", cursor)).more:
        cursor = chunk.cursor
    before = entries.reads
    entries.write("1", FIRST, "one more")
    assert list(service.logs("1", chunk.cursor).lines) == ["one more"]
    assert entries.reads - before <= 3
    assert len(chunk.cursor) < 200_000


@given(
    st.lists(st.tuples(st.integers(0, 50), st.sampled_from([FIRST, SECOND]), st.integers(1, 3)), max_size=25),
    st.integers(1, 4),
    st.randoms(use_true_random=False),
)
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_each_line_comes_once_whatever_comes_when(
    entries: CloudLogging,
    component: VertexStepOperator,
    written: list[tuple[int, str, int]],
    limit: int,
    chance: random.Random,
) -> None:
    entries.entries.clear()
    service, cursor, lines, expected = VertexJobService(component), "", [], []
    for number, (seconds, machine, count) in enumerate(written):
        told = [f"{number}.{part}" for part in range(count)]
        expected += told
        entries.write("1", machine, "\n".join(told), at=(1000 + seconds) * SECOND_NS)
        if chance.random() < 0.5:
            service = VertexJobService(component)
        chunk = service.logs("1", cursor, limit)
        lines += chunk.lines
        cursor = chunk.cursor
    more = True
    while more:
        chunk = service.logs("1", cursor, limit)
        assert len(chunk.lines) <= limit
        lines += chunk.lines
        cursor, more = chunk.cursor, chunk.more
    lines += all_lines(service, "1", cursor, limit)
    assert sorted(line.rpartition(" ")[2] for line in lines) == sorted(expected)


def test_a_call_that_fails_for_now_goes_on_where_it_was(
    entries: CloudLogging, service: VertexJobService, gcp: EmulatedGcp
) -> None:
    for number in range(2500):
        entries.write("1", FIRST, str(number))
    chunk = service.logs("1", "", 1000)
    failing = gcp.fail("logging", "entries:list", 429, "RESOURCE_EXHAUSTED")
    with pytest.raises(TransientServiceError):
        service.logs("1", chunk.cursor, 1000)
    failing.times = 0
    lines = [*chunk.lines, *all_lines(service, "1", chunk.cursor)]
    assert lines == [str(number) for number in range(2500)]


def test_the_quota_of_the_project_is_not_exceeded_by_many_jobs_at_once(
    entries: CloudLogging, component: VertexStepOperator, monkeypatch: pytest.MonkeyPatch
) -> None:
    pace = Pace()
    monkeypatch.setattr(service_module, "_pace", lambda project: pace)
    entries.quota = 60
    for number in range(100):
        entries.write(str(number), FIRST, f"line of {number}")

    def look(number: int) -> list[str]:
        try:
            return list(VertexJobService(component).logs(str(number)).lines)
        except TransientServiceError as error:
            assert "60 reads a minute" in str(error)
            return []

    with ThreadPoolExecutor(20) as threads:
        found = [lines for lines in threads.map(look, range(100)) if lines]
    assert 20 <= len(found) <= 60
    assert entries.refused == 0


def test_who_follows_waits_for_nobody_and_who_comes_at_a_job_s_end_goes_first(
    entries: CloudLogging, service: VertexJobService, monkeypatch: pytest.MonkeyPatch
) -> None:
    pace = Pace(seconds=0.3, burst=2)
    monkeypatch.setattr(service_module, "_pace", lambda project: pace)
    entries.write("1", FIRST, "one")
    cursor = service.logs("1").cursor
    entries.write("1", FIRST, "two")
    monkeypatch.setattr(VertexJobService, "poll_seconds", 0.0)
    with pytest.raises(TransientServiceError, match="60 reads a minute"):
        for _ in range(10):
            service.logs("1", cursor)
    monkeypatch.setattr(VertexJobService, "poll_seconds", 15.0)
    assert list(service.logs("1", cursor).lines) == ["two"]
    assert entries.refused == 0
