"""The runtime in trouble: a right result or a clear error, whatever the disk, the store and the service do."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import time
from datetime import timedelta
from pathlib import Path

import pytest

from airflow_stepops.artifacts.bucket import PATIENCE
from airflow_stepops.artifacts.store import ArtifactStore
from airflow_stepops.artifacts.values import load
from airflow_stepops.runtime.result import FAILED, STOPPED, SUCCEEDED
from tests.runtime.conftest import Bucket, StepImage

#: That a store refuses before it is back: more than obstore itself would bear.
REFUSALS = 11
LARGE = 12 << 20

STEPS = """\
    import os
    import time
    from pathlib import Path
    from airflow_stepops import checkpoint_dir, log_metadata

    def large(size):
        return os.urandom(size)

    def twice(data):
        return data + data

    def length(data):
        return len(data)

    def fill(folder):
        try:
            with open(folder + "/full", "wb", buffering=0) as file:
                while file.write(bytes(4096)) == 4096:
                    pass
        except OSError:
            pass
        return "done"

    def leave(code):
        os._exit(code)

    def keep(size, then):
        (checkpoint_dir() / "state").write_bytes(os.urandom(size))
        if then:
            raise ValueError(then)

    def restore():
        return sorted(os.listdir(checkpoint_dir()))

    def endless():
        value = [1]
        value.append(value)
        return value

    def shared():
        value = ["part"]
        for _ in range(60):
            value = [value, value]
        return value

    def nested():
        value = []
        for _ in range(100_000):
            value = [value]
        return value

    class Recurses:
        def __reduce__(self):
            return type(self), (self.__reduce__(),)

    class Says:
        def __repr__(self):
            return repr(self)
        __str__ = __repr__

    class SaysNothing(Exception):
        def __str__(self):
            return str(self)

    def recurses():
        return Recurses()

    def says():
        return Says()

    def calls_itself():
        return calls_itself()

    def raises():
        raise SaysNothing

    def raises_an_odd_one():
        error = SyntaxError("in a template")
        error.filename, error.lineno, error.text, error.offset = "a.sql", 1, "SELECT", "end"
        raise error

    def says_what_changes():
        history = [1]
        log_metadata(history=history)
        history.append(history)
        history.append(object())
        return 1
"""


@pytest.fixture
def image(image: StepImage) -> StepImage:
    """An image with the steps above."""
    image.write("dag_file.py", STEPS)
    return image


@pytest.fixture
def in_bucket(image: StepImage, bucket: Bucket) -> StepImage:
    """The image, with an artifact store in the bucket."""
    return dataclasses.replace(image, store=ArtifactStore(bucket.root))


def outputs(image: StepImage) -> list[str]:
    return [uri for uri in image.store.list(image.store.root) if "/outputs/" in uri]


# Disks


def test_an_output_larger_than_the_disk_is_an_error_that_says_so(image: StepImage, small_disk: Path) -> None:
    image.store = ArtifactStore((small_disk / "store").as_uri())
    run = image.run("large", 4 << 20)
    assert run.exit_code == 1
    assert run.result is not None
    assert run.result.error is not None
    assert run.result.status == FAILED
    assert "outputs/return_value.pkl" in run.result.error.message
    assert "No space left on device" in run.result.error.message
    files = {path.name for path in small_disk.rglob("*") if path.is_file()}
    assert files == {"spec.json", "result.json"}


def test_a_disk_without_room_for_the_result_is_told_on_stderr(image: StepImage, small_disk: Path) -> None:
    image.store = ArtifactStore((small_disk / "store").as_uri())
    run = image.run("fill", str(small_disk))
    assert (run.exit_code, run.result) == (2, None)
    assert "cannot write the result of the step" in run.stderr
    assert "result.json: No space left on device" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_file_longer_than_allowed_is_an_error_that_says_so(image: StepImage) -> None:
    spec = image.spec("large", 4 << 20)
    process = image.start(spec.uri)
    subprocess.run(["prlimit", "--pid", str(process.pid), "--fsize=1000000"], check=True)
    run = image.finish(process)
    assert run.result is not None
    assert run.result.error is not None
    assert "File too large" in run.result.error.message


def test_an_input_larger_than_the_temporary_disk_is_named(
    in_bucket: StepImage, bucket: Bucket, small_disk: Path
) -> None:
    run = in_bucket.run("length", bytes(4 << 20), variables={**bucket.variables, "TMPDIR": str(small_disk)})
    assert run.result is not None
    assert run.result.error is not None
    assert "/inputs/0.pkl (4,194,3" in run.result.error.message
    assert "No space left on device. Ask for a larger disk" in run.result.error.message
    assert list(small_disk.iterdir()) == []


def test_checkpoints_larger_than_the_temporary_disk_are_named(image: StepImage, small_disk: Path) -> None:
    checkpoints = f"{image.store.root}/checkpoints"
    image.run("keep", 4 << 20, "first", checkpoints=checkpoints)
    again = image.run("restore", variables={"TMPDIR": str(small_disk)}, checkpoints=checkpoints)
    assert again.result is not None
    assert again.result.error is not None
    assert f"the checkpoints of {checkpoints}/machine-0/attempt-1/manifest.json" in again.result.error.message
    assert "No space left on device" in again.result.error.message
    third = image.run("restore", checkpoints=checkpoints)
    assert third.result is not None
    assert third.result.values == {"return_value": ["state"]}


# Stores


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "inputs/0"),
        ("PUT", "partNumber=2"),
        ("PUT", r"result\.json"),
    ],
)
def test_a_store_that_is_away_for_a_while_costs_nothing_but_time(
    method: str, path: str, in_bucket: StepImage, bucket: Bucket
) -> None:
    fault = bucket.proxy.add("reset", method, path, times=REFUSALS)
    run = in_bucket.run("twice", bytes(LARGE), variables=bucket.variables)
    assert run.exit_code == 0, run.stderr
    assert fault.hit == REFUSALS
    assert run.result is not None
    assert load(run.result.outputs["return_value"], in_bucket.store) == bytes(2 * LARGE)


def test_a_job_bears_a_store_that_is_away_for_two_minutes() -> None:
    assert timedelta(minutes=2) < PATIENCE["retry_timeout"] < timedelta(minutes=5)
    most = PATIENCE["max_retries"] * PATIENCE["backoff"]["init_backoff"]
    assert most * 2 > PATIENCE["retry_timeout"] / 2


# Stops


def test_a_job_that_is_stopped_while_it_saves_leaves_no_half_output(in_bucket: StepImage, bucket: Bucket) -> None:
    process = in_bucket.start(in_bucket.spec("large", 12 * LARGE).uri, **bucket.variables)
    on_sent = lambda: (process.send_signal(signal.SIGTERM), time.sleep(0.5))  # noqa: E731
    fault = bucket.proxy.add("header", "PUT", "partNumber=1", on_sent=on_sent)
    run = in_bucket.finish(process)
    assert fault.hit == 1
    assert run.exit_code == 143
    assert run.result is not None
    assert (run.result.status, run.result.outputs) == (STOPPED, {})
    assert outputs(in_bucket) == []
    assert bucket.proxy.count("DELETE", "uploadId=") == 1, "the parts that have arrived are not paid for"


def test_a_job_that_is_stopped_while_its_success_is_written_has_succeeded(in_bucket: StepImage, bucket: Bucket) -> None:
    process = in_bucket.start(in_bucket.spec("length", "four").uri, **bucket.variables)
    bucket.proxy.add("header", "PUT", "result.json", on_sent=lambda: process.send_signal(signal.SIGTERM))
    run = in_bucket.finish(process)
    assert run.result is not None
    assert (run.result.status, run.result.values) == (SUCCEEDED, {"return_value": 4})
    assert bucket.proxy.count("PUT", "result.json") == 1


def test_a_job_that_is_stopped_while_it_saves_its_last_checkpoints_says_why_it_failed(
    in_bucket: StepImage, bucket: Bucket
) -> None:
    spec = in_bucket.spec("keep", 1000, "its own", checkpoints=f"{bucket.root}/checkpoints")
    process = in_bucket.start(spec.uri, **bucket.variables)
    on_sent = lambda: (process.send_signal(signal.SIGTERM), time.sleep(0.5))  # noqa: E731
    fault = bucket.proxy.add("header", "PUT", "checkpoints/.*/[0-9a-f]{64}", on_sent=on_sent)
    run = in_bucket.finish(process)
    assert fault.hit == 1
    assert run.result is not None
    assert run.result.error is not None
    assert (run.result.status, run.result.error.message) == (FAILED, "its own")
    again = in_bucket.run("restore", variables=bucket.variables, checkpoints=f"{bucket.root}/checkpoints")
    assert again.result is not None
    assert again.result.values == {"return_value": ["state"]}


def test_a_step_that_leaves_by_itself_leaves_no_result(image: StepImage) -> None:
    run = image.run("leave", 7)
    assert (run.exit_code, run.result) == (7, None)


# Values


def test_a_value_that_holds_itself_comes_back_so(image: StepImage) -> None:
    run = image.run("endless")
    assert run.result is not None
    value = load(run.result.outputs["return_value"], image.store)
    assert value[0] == 1
    assert value[1] is value


def test_a_value_whose_parts_are_used_again_and_again_comes_back_so(image: StepImage) -> None:
    run = image.run("shared")
    assert run.result is not None
    value = load(run.result.outputs["return_value"], image.store)
    for _ in range(60):
        assert value[0] is value[1]
        value = value[0]
    assert value == ["part"]


@pytest.mark.parametrize("step", ["nested", "recurses"])
def test_a_value_that_cannot_be_pickled_for_its_depth_is_an_error_that_names_it(image: StepImage, step: str) -> None:
    run = image.run(step)
    assert run.exit_code == 1
    assert run.result is not None
    assert run.result.error is not None
    assert run.result.error.type == "airflow_stepops.errors.ArtifactError"
    assert "could not be saved" in run.result.error.message
    assert "recursion" in run.result.error.message
    assert outputs(image) == []


def test_a_value_that_cannot_say_what_it_is_is_saved_all_the_same(image: StepImage) -> None:
    run = image.run("says")
    assert run.exit_code == 0, run.stderr
    assert len(outputs(image)) == 1


@pytest.mark.parametrize(
    ("step", "kind", "said"),
    [
        ("calls_itself", "RecursionError", "return calls_itself()"),
        ("raises", "dag_file.SaysNothing", "raise SaysNothing"),
        ("raises_an_odd_one", "SyntaxError", "(the traceback cannot be made: TypeError)"),
    ],
)
def test_whatever_a_step_raises_is_told(image: StepImage, step: str, kind: str, said: str) -> None:
    run = image.run(step)
    assert run.exit_code == 1
    assert run.result is not None
    assert run.result.error is not None
    assert run.result.error.type == kind
    assert said in run.result.error.traceback


def test_metadata_is_what_it_was_when_it_was_logged(image: StepImage) -> None:
    run = image.run("says_what_changes")
    assert run.exit_code == 0, run.stderr
    assert run.result is not None
    assert run.result.metadata == {"history": [1]}
