"""Logs of containers, put together from an engine's frames."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from airflow_stepops.clouds.docker.logs import Frame, Place, lines_after
from airflow_stepops.clouds.lines import LONGEST_LINE
from tests.clouds.ground import Ground, all_lines, ended

STAMPS = ["2026-01-31T12:00:00Z", "2026-01-31T12:00:01Z", "2026-01-31T12:00:01.5Z", "2026-01-31T12:00:02.123456789Z"]

texts = st.lists(
    st.sampled_from([b"a", b"b\n", b"\n", b"c\nd\n", b"e\nf", "é".encode(), b"x" * (LONGEST_LINE - 1)]), max_size=25
)


@st.composite
def logs(draw: st.DrawFn) -> list[Frame]:
    """Frames of two streams with time stamps that many of them share."""
    found = draw(texts)
    stamps = sorted(draw(st.lists(st.sampled_from(STAMPS), min_size=len(found), max_size=len(found))), key=STAMPS.index)
    return [(draw(st.sampled_from([1, 2])), stamp, text) for stamp, text in zip(stamps, found, strict=True)]


@given(frames=logs(), cut=st.integers(0, 40))
def test_reading_on_from_any_line_gives_the_rest(frames: list[Frame], cut: int) -> None:
    everything = list(lines_after(frames, Place(), complete=True))
    place = everything[min(cut, len(everything)) - 1][1] if everything and cut else Place()
    again = Place.parse(str(place))
    rest = [line for line, _ in lines_after(frames, again, complete=True)]
    assert rest == [line for line, _ in everything[cut:]]


@given(frames=logs(), known=st.integers(0, 25))
def test_a_log_that_grows_is_read_once(frames: list[Frame], known: int) -> None:
    place = Place()
    lines = []
    for part, complete in ((frames[:known], False), (frames, True)):
        for line, after in lines_after(part, place, complete=complete):
            lines.append(line)
            place = after
    assert lines == [line for line, _ in lines_after(frames, Place(), complete=True)]


@given(frames=logs(), known=st.integers(0, 25))
def test_an_engine_may_leave_out_what_is_before_the_place(frames: list[Frame], known: int) -> None:
    whole = list(lines_after(frames, Place(), complete=True))
    if not whole:
        return
    place = whole[min(known, len(whole) - 1)][1]
    since = [frame for frame in frames if not place.stamp or STAMPS.index(frame[1]) >= STAMPS.index(place.stamp)]
    assert list(lines_after(since, place, complete=True)) == list(lines_after(frames, place, complete=True))


def test_lines_of_two_streams_are_not_mixed_up(docker: Ground) -> None:
    service, request = docker.connect(), docker.request("two_streams")
    service.submit(request)
    lines: list[str] = []
    cursor = ""
    while not service.describe(request.name).state.ended:
        chunk = docker.connect().logs(request.name, cursor)
        lines += chunk.lines
        cursor = chunk.cursor
    lines += all_lines(service, request.name, cursor)
    assert lines == ["meanwhile", "begun and ended"]


def test_a_hundred_thousand_lines_arrive_complete_and_in_order(docker: Ground) -> None:
    service, request = docker.connect(), docker.request("count", 100_000)
    service.submit(request)
    ended(service, request.name)
    lines = all_lines(service, request.name, limit=200)
    assert lines == [*(f"line {number}" for number in range(100_000)), "no end of line"]
