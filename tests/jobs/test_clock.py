"""The clock of a service."""

from __future__ import annotations

import time

import pytest

from airflow_stepops.jobs.clock import ServiceClock


def test_before_the_first_answer_it_is_this_machine_s() -> None:
    before = time.time()
    assert before <= ServiceClock().now() <= time.time()


def test_it_goes_on_from_the_last_answer() -> None:
    clock = ServiceClock()
    clock.read("Tue, 15 Nov 1994 08:12:31 GMT")
    clock.read("Tue, 15 Nov 1994 08:12:41 GMT")
    first = clock.now()
    assert 0 <= first - 784887161 < 60
    assert clock.now() >= first


@pytest.mark.parametrize("date", [None, "", "soon", "Tue, 99 Nov 1994 08:12:31 GMT"])
def test_an_answer_without_a_date_sets_nothing(date: str | None) -> None:
    clock = ServiceClock()
    clock.read("Tue, 15 Nov 1994 08:12:31 GMT")
    clock.read(date)
    assert 0 <= clock.now() - 784887151 < 60
