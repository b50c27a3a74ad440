"""Jobs as processes of this machine: what they see, and what happens when something around them dies."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_stepops.clouds.lines import LONGEST_LINE, next_line
from airflow_stepops.clouds.local.job_folder import JobFolder
from airflow_stepops.clouds.local.logs import read_lines
from airflow_stepops.clouds.local.service import LocalJobService
from airflow_stepops.errors import EndKind, JobNotFoundError, JobRefusedError
from airflow_stepops.images.cache_folder import CacheFolder
from airflow_stepops.images.manifests import encode_json
from airflow_stepops.images.registry.blobs import BytesBlob
from airflow_stepops.images.registry.repository import ImageRepository
from airflow_stepops.jobs.protocol import JobRequest, JobState
from tests.clouds.ground import Ground, all_lines, ended, running, wait_for

SUPERVISOR = "airflow_stepops.clouds.local.supervisor"


def folder_of(home: Path, job_id: str) -> JobFolder:
    return JobFolder(home / "jobs" / job_id)


def processes_of(home: Path, request: JobRequest) -> dict[int, list[str]]:
    """Return the command lines of the living processes that have to do with a job, by number."""
    found = {}
    for process in psutil.process_iter():
        try:
            command = process.cmdline()
            ours = process.environ().get("STEPOPS_SPEC") == request.spec_uri
            if process.status() != psutil.STATUS_ZOMBIE and (ours or str(home / "jobs" / request.name) in command):
                found[process.pid] = command
        except psutil.Error:
            continue
    return found


def supervisor_of(home: Path, request: JobRequest) -> int:
    return next(pid for pid, command in processes_of(home, request).items() if SUPERVISOR in command)


def gone(home: Path, request: JobRequest) -> bool:
    return not processes_of(home, request)


def test_a_job_sees_its_layers_and_nothing_of_this_machine(local: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(pytest.__file__).parents[1]))
    service = local.connect()
    ours = ["airflow_stepops", "blake3", "cloudpickle", "obstore"]
    request = local.request("found", ["pytest", "pydantic", "httpx", "sqlalchemy", "pip", "yaml", *ours])
    service.submit(request)
    assert ended(service, request.name).state is JobState.SUCCEEDED
    assert local.value(request) == ours


def test_a_job_has_an_environment_of_its_own(local: Ground, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of the worker")
    service, request = local.connect(), local.request("variables")
    service.submit(request)
    ended(service, request.name)
    scratch = folder_of(home, request.name).scratch
    variables = local.value(request)
    assert variables.pop("HOME") == str(scratch / "home")
    assert variables.pop("TMPDIR") == str(scratch / "tmp")
    assert variables.pop("PYTHONPATH").split(":")[0] == str(scratch / "code")
    assert variables.pop("PATH").endswith(":/usr/local/bin:/usr/bin:/bin")
    assert set(variables) <= {"LANG", "LC_CTYPE", "PYTHONPYCACHEPREFIX", "PYTHONUNBUFFERED", "STEPOPS_SPEC"}


def test_what_a_step_writes_beside_itself_is_seen_by_no_other(local: Ground, home: Path) -> None:
    service = local.connect()
    first, second = local.request("write_beside"), local.request("write_beside")
    for request in (first, second):
        service.submit(request)
        assert ended(service, request.name).state is JobState.SUCCEEDED
    assert local.value(first)[0] != local.value(second)[0]
    assert not list((home / "cache").rglob("written.txt"))


def test_an_ended_job_leaves_its_record_and_no_copy_of_the_code(local: Ground, home: Path) -> None:
    service, request = local.connect(), local.request("count", 1)
    service.submit(request)
    ended(service, request.name)
    wait_for(lambda: gone(home, request), "the end of its supervisor")
    files = {path.name for path in folder_of(home, request.name).path.iterdir()}
    assert files == {"request.json", "state.json", "log", "lock", "supervisor.log"}
    assert not list((home / "cache" / "bytecode").rglob(f"*{request.name}*"))


def test_layers_that_a_job_runs_on_are_not_taken_for_unused(local: Ground, home: Path) -> None:
    service, request = local.connect(), local.request("wait")
    service.submit(request)
    running(service, request.name)
    (requirements, runtime) = json.loads((folder_of(home, request.name).path / "request.json").read_text())[
        "environment"
    ]["PYTHONPATH"].split(":")[1:]
    layers = [Path(layer).parents[2] for layer in (requirements, runtime)]
    for layer in layers:
        os.utime(layer, (0, 0))
    folder = CacheFolder(home / "cache" / "layers")
    folder.clean()
    assert all(layer.is_dir() for layer in layers)
    service.cancel(request.name)
    ended(service, request.name)
    wait_for(lambda: gone(home, request), "the end of its supervisor")
    folder.clean()
    assert not any(layer.exists() for layer in layers)


def test_a_job_outlives_the_process_that_launched_it_and_its_session(local: Ground, home: Path) -> None:
    request = local.request("wait", 1.5)
    launcher = subprocess.Popen(
        [sys.executable, "-c", _LAUNCH, _as_json(local, request)],
        start_new_session=True,
        cwd=Path(__file__).parents[3],
        stdout=subprocess.PIPE,
    )
    assert launcher.stdout is not None
    assert launcher.stdout.readline() == b"launched\n"
    service = local.connect()
    assert not service.describe(request.name).state.ended
    supervisor = psutil.Process(supervisor_of(home, request))
    assert os.getsid(supervisor.pid) != os.getsid(launcher.pid)
    assert supervisor.pid not in [child.pid for child in psutil.Process(launcher.pid).children(recursive=True)]
    os.killpg(launcher.pid, signal.SIGKILL)
    assert launcher.stdout.read() == b""  # and it holds nothing of the launcher's open
    launcher.wait()
    assert ended(service, request.name).state is JobState.SUCCEEDED


@pytest.mark.parametrize("moment", ["unpack_layers", "copytree", "rename", "Popen"])
def test_a_launcher_that_dies_half_way_leaves_a_job_that_the_next_one_launches(
    local: Ground, home: Path, moment: str
) -> None:
    request = local.request("add", 1, 2)
    command = [sys.executable, "-c", _DIE + _LAUNCH, _as_json(local, request), moment]
    done = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    service = local.connect()
    before = service.find(request.name)
    assert before is None or before.state is JobState.PENDING
    service.submit(request)
    assert ended(service, request.name).state is JobState.SUCCEEDED
    assert local.value(request) == 3


def test_a_job_that_nobody_launches_again_fails_in_the_end(local: Ground, home: Path) -> None:
    request = local.request("add", 1, 2)
    _made_but_not_begun(local, request)
    service, path = local.connect(), folder_of(home, request.name).path
    assert service.describe(request.name).state is JobState.PENDING
    os.utime(path, (time.time() - 3600, time.time() - 3600))
    status = service.describe(request.name)
    assert (status.state, status.kind) == (JobState.FAILED, EndKind.INFRASTRUCTURE)
    assert status.reason == "its launcher died before it began"


def test_a_job_that_was_cancelled_before_it_began_never_runs(local: Ground, home: Path) -> None:
    request = local.request("add", 1, 2)
    _made_but_not_begun(local, request)
    service = local.connect()
    service.cancel(request.name)
    status = service.submit(request)
    assert ended(service, request.name).state is JobState.STOPPED
    assert service.describe(request.name).kind is EndKind.CANCELLED
    assert status.started_at is None
    assert not folder_of(home, request.name).log.exists()


def test_a_job_that_was_cancelled_before_it_began_ends_without_a_launcher(local: Ground) -> None:
    request = local.request("add", 1, 2)
    _made_but_not_begun(local, request)
    service = local.connect()
    service.cancel(request.name)
    status = service.describe(request.name)
    assert (status.state, status.kind) == (JobState.STOPPED, EndKind.CANCELLED)


def test_a_killed_supervisor_leaves_no_process_and_a_failed_job(local: Ground, home: Path) -> None:
    service, request = local.connect(), local.request("wait_with_a_child")
    service.submit(request)
    running(service, request.name)
    (child,) = (int(line) for line in service.logs(request.name).lines)
    assert psutil.pid_exists(child)
    os.kill(supervisor_of(home, request), signal.SIGKILL)
    status = ended(service, request.name)
    assert (status.state, status.kind) == (JobState.FAILED, EndKind.INFRASTRUCTURE)
    assert status.reason == "its supervisor was killed"
    wait_for(lambda: gone(home, request), "the end of what it ran")
    assert service.describe(request.name) == status


def test_a_number_that_is_another_process_by_now_is_left_alone(local: Ground, home: Path) -> None:
    bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
    service, request = local.connect(), local.request("wait")
    service.submit(request)
    running(service, request.name)
    folder = folder_of(home, request.name)
    os.kill(supervisor_of(home, request), signal.SIGKILL)
    folder.write_state({**folder.state(), "pid": bystander.pid})
    assert ended(service, request.name).state is JobState.FAILED
    assert bystander.poll() is None
    bystander.communicate(b"\n")
    assert bystander.returncode == 0
    wait_for(lambda: gone(home, request), "the end of what it ran")


def test_what_a_step_leaves_running_ends_with_it(local: Ground) -> None:
    service, request = local.connect(), local.request("leave_a_child")
    service.submit(request)
    assert ended(service, request.name).state is JobState.SUCCEEDED
    child = local.value(request)
    wait_for(lambda: not psutil.pid_exists(child), "the end of the child")


def test_a_step_that_runs_too_long_is_stopped(local: Ground) -> None:
    service, request = local.connect(), local.request("wait", timeout=1)
    service.submit(request)
    status = ended(service, request.name)
    assert (status.state, status.kind) == (JobState.STOPPED, EndKind.TIMEOUT)
    assert status.reason == "ran longer than timeout=1 s"
    assert local.result(request).status == "stopped"


def test_a_signal_from_elsewhere_is_no_fault_of_the_step(local: Ground, home: Path) -> None:
    service, request = local.connect(), local.request("wait")
    service.submit(request)
    running(service, request.name)
    os.kill(int(folder_of(home, request.name).state()["pid"]), signal.SIGTERM)
    status = ended(service, request.name)
    assert (status.state, status.kind) == (JobState.FAILED, EndKind.INFRASTRUCTURE)
    assert status.reason == "killed by signal 15 (SIGTERM)"


def test_a_hundred_thousand_lines_arrive_complete_and_in_order(local: Ground) -> None:
    service, request = local.connect(), local.request("count", 100_000)
    service.submit(request)
    ended(service, request.name)
    assert all_lines(service, request.name) == [*(f"line {number}" for number in range(100_000)), "no end of line"]


def test_what_was_printed_before_a_kill_is_in_the_log(local: Ground) -> None:
    service, request = local.connect(), local.request("wait")
    service.submit(request)
    running(service, request.name)
    local.kill(request.name)
    ended(service, request.name)
    assert all_lines(service, request.name) == ["waiting"]


def test_no_secret_is_on_disk(local: Ground, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUR_TOKEN", "hunter2-is-nowhere")
    service, request = local.connect(), local.request("wait", 0.5, secrets={"TOKEN": "env:OUR_TOKEN"})
    service.submit(request)
    running(service, request.name)
    files = [path for path in folder_of(home, request.name).path.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if b"hunter2-is-nowhere" in path.read_bytes()]
    ended(service, request.name)


def test_resources_that_are_not_enforced_are_said(local: Ground) -> None:
    service, request = local.connect(), local.request("add", 1, 1, resources={"gpus": 1, "memory": "1TiB"})
    assert service.submit(request).detail == "gpus, memory not enforced on this machine"
    ended(service, request.name)


def test_an_image_for_another_python_is_refused(local: Ground) -> None:
    def for_another_python(config: dict[str, object]) -> dict[str, object]:
        return {**config, "config": {"Env": ["PYTHON_VERSION=3.99.1"]}}

    image = _changed_image(local.repository, local.image.digest, for_another_python)
    service, request = local.connect(), local.request("add", 1, 1, image=image)
    with pytest.raises(JobRefusedError, match=r"is for Python 3\.99 .* docker step operator") as caught:
        service.submit(request)
    assert caught.value.kind is EndKind.IMAGE
    assert service.find(request.name) is None


def test_old_jobs_are_tidied_away_but_never_one_that_runs(local: Ground, tmp_path: Path) -> None:
    service = LocalJobService(tmp_path / "jobs")
    first = local.request("wait")
    service.submit(first)
    running(service, first.name)
    for number in range(210):
        old = JobFolder(tmp_path / "jobs" / f"old-{number:03}")
        old.path.mkdir()
        (old.path / "request.json").write_text('{"created_at": 1, "note": ""}')
        old.write_state({"state": "succeeded", "ended_at": number + 1.0})
    second = local.request("add", 1, 1)
    service.submit(second)
    ended(service, second.name)
    kept = sorted(path.name for path in (tmp_path / "jobs").glob("old-*"))
    assert kept == [f"old-{number:03}" for number in range(10, 210)]
    assert service.describe(first.name).state is JobState.RUNNING
    service.cancel(first.name)
    ended(service, first.name)


def test_a_name_that_leads_out_of_the_folder_is_no_job(local: Ground) -> None:
    with pytest.raises(JobNotFoundError):
        local.connect().describe("../artifacts")
    assert local.connect().find("..") is None


def test_a_log_that_grows_while_it_is_read_shows_whole_lines_only(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert list(read_lines(path, "", 10, complete=False).lines) == []
    path.write_bytes(b"first\nsec")
    first = read_lines(path, "", 10, complete=False)
    assert list(first.lines) == ["first"]
    with path.open("ab") as file:
        file.write(b"ond\n")
    assert list(read_lines(path, first.cursor, 10, complete=False).lines) == ["second"]


@given(
    text=st.lists(st.sampled_from([b"\n", b"a", "é".encode(), b"\xff", b"x" * LONGEST_LINE]), max_size=30),
    limit=st.integers(1, 5),
)
def test_any_log_is_cut_into_lines_without_loss(
    tmp_path_factory: pytest.TempPathFactory, text: list[bytes], limit: int
) -> None:
    path = tmp_path_factory.mktemp("logs") / "log"
    data = b"".join(text)
    path.write_bytes(data)
    lines: list[str] = []
    cursor, more = "", True
    while more:
        chunk = read_lines(path, cursor, limit, complete=True)
        lines += chunk.lines
        cursor, more = chunk.cursor, chunk.more
    expected: list[str] = []
    start = 0
    while found := next_line(data, start, complete=True):
        expected.append(found[0])
        start = found[1]
    assert lines == expected
    assert "".join(lines) == data.replace(b"\n", b"").decode(errors="replace")
    shutil.rmtree(path.parent)


def _made_but_not_begun(local: Ground, request: JobRequest) -> None:
    """Make a job as a launcher does that dies before the supervisor starts."""
    command = [sys.executable, "-c", _DIE + _LAUNCH, _as_json(local, request), "Popen"]
    done = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


def _as_json(local: Ground, request: JobRequest) -> str:
    return json.dumps([request.name, request.attempt.__dict__, request.image, request.spec_uri, local.repository.path])


#: A launcher: submits the request it is given, says so, and waits.
_LAUNCH = """
import json, sys, time
from pathlib import Path
from airflow_stepops.clouds.local.step_operator import LocalStepOperator
from airflow_stepops.images.registry.layout import LayoutRepository
from airflow_stepops.jobs.protocol import JobRequest
from airflow_stepops.runtime.spec import Attempt

name, attempt, image, spec_uri, images = json.loads(sys.argv[1])
repository = LayoutRepository(Path(images))
LocalStepOperator().connect().submit(JobRequest(name, Attempt(**attempt), image, spec_uri, repository=repository))
print("launched", flush=True)
time.sleep(300)
"""

#: Kills the launcher at the moment it calls a function.
_DIE = """
import os, pathlib, shutil, signal, subprocess, sys
import airflow_stepops.images.unpack

def die(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)

images = airflow_stepops.images.unpack
place = {"unpack_layers": images, "copytree": shutil, "rename": pathlib.Path, "Popen": subprocess}
setattr(place[sys.argv[2]], sys.argv[2], die)
"""


def test_a_job_whose_files_cannot_be_read_does_not_fail_the_sweep(local: Ground, home: Path) -> None:
    service, request = local.connect(), local.request("add", 1, 1)
    job_id = service.submit(request).id
    ended(service, job_id)
    broken = home / "jobs" / f"{job_id[:-6]}-torn"
    shutil.copytree(home / "jobs" / job_id, broken)
    (broken / "request.json").write_text("{")
    changed = service.changed(0.0)
    assert changed[broken.name] is None
    assert changed[job_id].state is JobState.SUCCEEDED
    with pytest.raises(ValueError, match="line 1"):
        service.describe(broken.name)
    shutil.rmtree(broken)


def _changed_image(
    repository: ImageRepository, digest: str, change: Callable[[dict[str, object]], dict[str, object]]
) -> str:
    """Push an image with another config and return its reference."""
    media_type, data = repository.get_manifest(digest)
    manifest = json.loads(data)
    with repository.get_blob(manifest["config"]["digest"]) as stream:
        config = BytesBlob.of(encode_json(change(json.loads(stream.read()))))
    repository.put_blob(config)
    manifest["config"] |= {"digest": config.digest, "size": config.size}
    return repository.reference(repository.put_manifest("changed", media_type, encode_json(manifest)))
