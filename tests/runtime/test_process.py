"""``python -m airflow_stepops.runtime``: what a job does, and how it ends."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from airflow_stepops.artifacts.values import load
from airflow_stepops.runtime.result import FAILED, SUCCEEDED
from airflow_stepops.runtime.spec import SPEC_VARIABLE
from tests.runtime.conftest import ATTEMPT, StepImage

STEP = """\
from airflow_stepops import log_metadata
from airflow_stepops.dag import step

@step(step_operator=True)
def train(rate):
    print("training", rate)
    log_metadata(rows=3)
    return {"rate": rate}
"""


def test_a_job_calls_the_function_and_leaves_a_result(image: StepImage) -> None:
    image.write("dag_file.py", STEP)
    run = image.run("train", 0.1)
    assert (run.exit_code, run.stdout, run.stderr) == (0, "training 0.1\n", "")
    assert run.result is not None and run.result.attempt == ATTEMPT
    assert run.result.status == SUCCEEDED
    assert run.result.values == {"return_value": {"rate": 0.1}}
    assert run.result.metadata == {"rows": 3}
    assert load(run.result.outputs["return_value"], image.store) == {"rate": 0.1}
    assert run.result.outputs["return_value"].uri.endswith("/attempt-1/outputs/return_value.json")


def test_a_step_that_raises_leaves_its_own_traceback(image: StepImage) -> None:
    image.write(
        "dag_file.py",
        """\
        from airflow_stepops.dag import step

        def inner(value):
            return 1 / value

        @step
        def train(value):
            try:
                inner(value)
            except ZeroDivisionError as error:
                raise RuntimeError("no model") from error
        """,
    )
    run = image.run("train", 0)
    assert run.exit_code == 1
    assert run.result is not None and run.result.status == FAILED and run.result.error is not None
    assert (run.result.error.type, run.result.error.message) == ("RuntimeError", "no model")
    text = run.result.error.traceback
    assert "return 1 / value" in text and 'raise RuntimeError("no model") from error' in text
    assert "ZeroDivisionError: division by zero" in text
    assert "airflow_stepops" not in text, "frames of the runtime are nothing to the user"
    assert run.stderr == text, "the log of the job says it too"


def test_a_step_that_calls_sys_exit_has_failed(image: StepImage) -> None:
    image.write("dag_file.py", "import sys\ndef train():\n    sys.exit(0)\n")
    run = image.run("train")
    assert run.exit_code == 1
    assert run.result is not None and run.result.error is not None
    assert (run.result.status, run.result.error.type) == (FAILED, "SystemExit")


def test_a_missing_package_is_named_with_what_to_do(image: StepImage) -> None:
    image.write("dag_file.py", "import no_such_package\ndef train(): ...\n")
    run = image.run("train")
    assert run.exit_code == 2
    assert run.result is not None and run.result.error is not None
    assert run.result.error.type == "ModuleNotFoundError"
    assert "add its package to Image(requirements=[…])" in run.result.error.traceback
    assert "add its package to Image(requirements=[…])" in run.stderr


@pytest.mark.parametrize(
    ("file", "function", "problem"),
    [
        ("other.py", "train", "the step's file 'other.py' is not in the image"),
        ("dag_file.py", "gone", "has no function 'gone': the image holds another version"),
        ("dag_file.py", "NUMBER", "is a int, not a function"),
    ],
)
def test_an_image_without_the_function_says_so(image: StepImage, file: str, function: str, problem: str) -> None:
    image.write("dag_file.py", "NUMBER = 3\ndef train(): ...\n")
    run = image.run(function, file=file)
    assert run.exit_code == 2
    assert problem in run.stderr
    assert run.result is not None and run.result.error is not None
    assert problem in run.result.error.message


def test_an_output_that_cannot_be_saved_fails_the_job_and_is_named(image: StepImage) -> None:
    image.write("dag_file.py", "import threading\ndef train():\n    return threading.Lock()\n")
    run = image.run("train")
    assert run.exit_code == 1
    assert run.result is not None and run.result.status == FAILED and run.result.error is not None
    assert run.result.error.type == "airflow_stepops.errors.ArtifactError"
    assert "_thread.lock could not be saved" in run.result.error.message
    assert "This was the output 'return_value' of the step." in run.result.error.traceback
    assert not [uri for uri in image.store.list(image.store.root) if "/outputs/" in uri]


def test_a_value_nested_deeper_than_json_allows_comes_back_whole(image: StepImage) -> None:
    image.write(
        "dag_file.py",
        """\
        def train():
            value = []
            for _ in range(300):
                value = [value]
            return value
        """,
    )
    run = image.run("train")
    assert run.exit_code == 0 and run.result is not None
    assert run.result.values == {}, "only small plain values travel as themselves"
    value, depth = load(run.result.outputs["return_value"], image.store), 0
    while value:
        value, depth = value[0], depth + 1
    assert depth == 300


def test_environment_is_set_before_the_module_is_imported(image: StepImage) -> None:
    image.write("dag_file.py", "import os\nAT_IMPORT = os.environ['MODE']\ndef train():\n    return AT_IMPORT\n")
    run = image.run("train", environment={"MODE": "fast"})
    assert run.result is not None and run.result.values == {"return_value": "fast"}


def test_modules_of_the_code_folder_are_found_and_never_hide_the_standard_library(image: StepImage) -> None:
    image.write("package/__init__.py", "")
    image.write("package/steps.py", "from .numbers import two\nimport statistics\ndef train():\n    return two()\n")
    image.write("package/numbers.py", "def two():\n    return 2\n")
    image.write("statistics.py", "raise RuntimeError('hides the standard library')\n")
    run = image.run("train", file="package/steps.py")
    assert run.result is not None and run.result.values == {"return_value": 2}


@pytest.mark.parametrize("name", ["numbers.py", "random.py", "calendar.py", "queue.py", "json.py", "hashlib.py"])
def test_a_dag_file_may_be_called_like_a_module_of_the_standard_library(image: StepImage, name: str) -> None:
    image.write(name, f"def answer():\n    import {name[:-3]}\n    return {name[:-3]}.__file__\n")
    done = image.run("answer", file=name)
    assert done.exit_code == 0, done.stderr
    assert done.result is not None
    assert "code" not in Path(done.result.values["return_value"]).parts


def test_path_files_of_the_requirements_are_honoured(image: StepImage) -> None:
    (image.folder / "requirements" / "vendored").mkdir()
    (image.folder / "requirements" / "vendored" / "hidden_away.py").write_text("VALUE = 7\n")
    (image.folder / "requirements" / "vendored.pth").write_text("vendored\n")
    image.write("dag_file.py", "import hidden_away\ndef train():\n    return hidden_away.VALUE\n")
    run = image.run("train")
    assert run.result is not None and run.result.values == {"return_value": 7}


def test_without_a_spec_the_command_says_who_runs_it(image: StepImage) -> None:
    run = image.finish(image.start(""))
    assert run.exit_code == 2
    assert f"{SPEC_VARIABLE} is not set" in run.stderr


def test_a_spec_that_is_not_there_or_not_valid_is_refused(image: StepImage) -> None:
    spec = image.spec("train")
    gone = image.finish(image.start(spec.uri.replace("attempt-1", "attempt-2")))
    assert (gone.exit_code, gone.result) == (2, None)
    assert "there is nothing at" in gone.stderr and "attempt-2/spec.json" in gone.stderr
    image.store.put(spec.uri, b"{}")
    broken = image.finish(image.start(spec.uri))
    assert broken.exit_code == 2
    assert "version None is not 2" in broken.stderr


def test_a_spec_that_was_moved_is_refused(image: StepImage) -> None:
    spec = image.spec("train")
    elsewhere = f"{image.store.root}/elsewhere/spec.json"
    image.store.put(elsewhere, spec.to_json())
    run = image.finish(image.start(elsewhere))
    assert (run.exit_code, run.result) == (2, None)
    assert "says that it is" in run.stderr


def test_a_spec_with_a_root_that_it_is_not_below_is_refused(image: StepImage) -> None:
    spec = image.spec("train")
    document = json.loads(spec.to_json())
    document["root"] = "file:///etc"
    image.store.put(spec.uri, json.dumps(document).encode())
    run = image.finish(image.start(spec.uri))
    assert (run.exit_code, run.result) == (2, None)
    assert "file:///etc" in run.stderr


def test_a_dag_called_runs_is_as_good_as_any(image: StepImage) -> None:
    image.write("dag_file.py", STEP)
    spec = image.spec("train", 1)
    directory = spec.directory.replace("/churn/", "/runs/")
    moved = dataclasses.replace(spec, directory=directory)
    image.store.put(moved.uri, moved.to_json())
    run = image.finish(image.start(moved.uri))
    assert run.exit_code == 0 and run.result is not None and run.result.status == SUCCEEDED


def test_a_result_that_cannot_be_written_is_told_on_stderr(image: StepImage) -> None:
    image.write(
        "dag_file.py",
        """\
        import pathlib
        def train(folder):
            (pathlib.Path(folder) / "result.json" / "in the way").mkdir(parents=True)
        """,
    )
    folder = image.spec("train").directory.removeprefix("file://")
    run = image.run("train", folder)
    assert (run.exit_code, run.result) == (2, None)
    assert "cannot write the result of the step" in run.stderr
