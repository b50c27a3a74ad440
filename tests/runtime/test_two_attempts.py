"""Two attempts of one task at the same time: neither spoils what the other leaves."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import pytest

from airflow_stepops.artifacts.values import load
from airflow_stepops.errors import SpecError
from airflow_stepops.runtime.result import JobResult
from tests.runtime.conftest import ATTEMPT, Run, StepImage

#: Says what it began with, waits for its turn, writes, and ends as it is told to.
STEP = """\
    import sys
    import time
    from pathlib import Path
    from airflow_stepops import checkpoint_dir

    def train(turn, text, fails):
        state = checkpoint_dir() / "state"
        print("began with", state.read_text() if state.exists() else "nothing", flush=True)
        while not Path(turn).exists():
            time.sleep(0.05)
        (state if text else state.with_name("beside")).write_text(text)
        if fails:
            raise ValueError(text)
        return ("a tuple is pickled", text)
"""


class Attempts:
    """Attempts of one task, each a process."""

    def __init__(self, image: StepImage, turns: Path) -> None:
        self._image = image
        self._turns = turns
        self._processes: dict[int, tuple[subprocess.Popen[str], Path]] = {}

    def begin(self, try_number: int, text: str, *, fails: bool) -> str:
        """Start an attempt and return what it says of its checkpoints; it does no more before :meth:`end`."""
        turn = self._turns / f"{try_number}-{text}"
        spec = self._image.spec(
            "train",
            str(turn),
            text,
            fails,
            try_number=try_number,
            checkpoints=f"{self._image.store.root}/runs/churn/manual__1/train/-1/checkpoints",
        )
        process = self._image.start(spec.uri)
        self._processes[try_number] = process, turn
        assert process.stdout is not None
        return process.stdout.readline().strip().removeprefix("began with ")

    def end(self, try_number: int) -> Run:
        """Let an attempt go on, and wait for its end."""
        process, turn = self._processes.pop(try_number)
        turn.touch()
        return self._image.finish(process, try_number)


@pytest.fixture
def attempts(image: StepImage, tmp_path: Path) -> Attempts:
    image.write("dag_file.py", STEP)
    return Attempts(image, tmp_path)


def test_each_of_two_attempts_leaves_its_own_outputs_and_result(attempts: Attempts, image: StepImage) -> None:
    attempts.begin(1, "one", fails=False)
    attempts.begin(2, "two", fails=False)
    later, earlier = attempts.end(2), attempts.end(1)
    for number, text, run in ((1, "one", earlier), (2, "two", later)):
        assert run.result is not None
        output = run.result.outputs["return_value"]
        assert f"/attempt-{number}/outputs/" in output.uri
        assert load(output, image.store) == ("a tuple is pickled", text)


def test_the_result_of_one_attempt_is_none_of_another(attempts: Attempts, image: StepImage) -> None:
    attempts.begin(1, "one", fails=False)
    attempts.end(1)
    (uri,) = [uri for uri in image.store.list(image.store.root) if uri.endswith("attempt-1/result.json")]
    forged = uri.replace("attempt-1", "attempt-2")
    image.store.put(forged, image.store.get(uri))
    with pytest.raises(SpecError, match=r"try_number=1.*, not of .*try_number=2"):
        JobResult.from_json(image.store.get(forged), dataclasses.replace(ATTEMPT, try_number=2))
    attempts.begin(2, "two", fails=False)
    run = attempts.end(2)
    assert run.result is not None, "its own result takes the place of the forged one"
    assert run.result.attempt.try_number == 2


def test_an_old_attempt_that_succeeds_late_deletes_nothing_of_a_newer_one(attempts: Attempts) -> None:
    attempts.begin(1, "first", fails=True)
    attempts.end(1)
    assert attempts.begin(2, "old", fails=False) == "first"
    assert attempts.begin(3, "", fails=True) == "first"
    assert attempts.end(2).exit_code == 0
    attempts.end(3)
    assert attempts.begin(4, "", fails=False) == "first"
    attempts.end(4)


def test_an_old_attempt_that_writes_on_changes_nothing_of_a_newer_one(attempts: Attempts) -> None:
    attempts.begin(1, "first", fails=True)
    attempts.end(1)
    # The service began the old one anew; it goes on with its own file, which the newer one has too.
    assert attempts.begin(1, "old", fails=True) == "first"
    assert attempts.begin(2, "", fails=True) == "first"
    attempts.end(1)
    attempts.end(2)
    assert attempts.begin(3, "new", fails=True) == "first"
    assert attempts.begin(2, "old again", fails=True) == "first"
    attempts.end(3)
    attempts.end(2)
    assert attempts.begin(4, "", fails=False) == "new"
    attempts.end(4)


def test_an_old_attempt_that_begins_late_sees_nothing_of_a_newer_one(attempts: Attempts) -> None:
    attempts.begin(2, "new", fails=True)
    attempts.end(2)
    assert attempts.begin(1, "old", fails=False) == "nothing"
    attempts.end(1)
    assert attempts.begin(3, "", fails=False) == "new"
    attempts.end(3)


def test_when_the_newest_attempt_has_succeeded_nothing_comes_back(attempts: Attempts) -> None:
    attempts.begin(1, "old", fails=True)
    attempts.begin(2, "new", fails=False)
    assert attempts.end(2).exit_code == 0
    attempts.end(1)
    assert attempts.begin(3, "", fails=False) == "nothing", "the task was cleared: it begins again"
    attempts.end(3)
