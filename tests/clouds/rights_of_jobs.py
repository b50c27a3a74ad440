"""What a job does with its artifact store, what only Airflow does, and names that make the one look like the other."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hypothesis import strategies as st

from airflow_stepops.artifacts import values
from airflow_stepops.artifacts.store import ArtifactStore
from airflow_stepops.runtime.call import encode_inputs
from airflow_stepops.runtime.result import FAILED, SUCCEEDED, JobResult
from airflow_stepops.runtime.spec import JobSpec, StepSource
from tests.runtime.conftest import ATTEMPT, StepImage

#: Of the task instance, below the root.
INSTANCE = "runs/churn/manual__1/train/-1/0195c3a2-7b6e-7cc0-9d5f-3a1b2c4d5e6f"
LARGE = 20 * 1024 * 1024

#: ``work`` makes all calls that the runtime knows: it reads an input, restores, keeps and deletes checkpoints, and
#: uploads in parts, also what breaks in the middle. ``forge`` does what a job has no business with.
STEPS = f"""
import threading
from airflow_stepops.artifacts.store import open_store
from airflow_stepops.errors import ArtifactError
from airflow_stepops import checkpoint_dir

def work(data, ends):
    folder = checkpoint_dir()
    (folder / "state").write_bytes(data + ends.encode())
    if ends == "raises":
        raise ValueError(ends)
    return {{"job": {{"score": 1}}, "result": [bytes({LARGE}), threading.Lock() if ends == "breaks" else None]}}

def forge(uris):
    def is_refused(call, *args):
        try:
            call(*args)
        except ArtifactError:
            return True
        return False

    stores = [(uri, open_store(uri)) for uri in uris]
    return [
        [uri, is_refused(store.put, uri, b"forged"), is_refused(store.delete, uri)] for uri, store in stores
    ]
"""


@dataclass(frozen=True)
class PolicedJob:
    """Jobs of one task instance.

    :param store: as Airflow sees it.
    :param variables: of the job: who it is.
    """

    image: StepImage
    store: ArtifactStore
    variables: Mapping[str, str]

    def run(self, try_number: int, step: str, *args: object, outputs: list[str] | None = None) -> JobResult:
        """Run a step of :data:`STEPS` as an attempt, and return its result."""
        self.image.write("steps.py", STEPS)
        attempt = dataclasses.replace(ATTEMPT, try_number=try_number)
        instance = f"{self.store.root}/{INSTANCE}"
        directory = f"{instance}/attempt-{try_number}"
        encoded, _ = encode_inputs(args, {}, self.store, directory)
        source = StepSource("steps.py", "steps", step, "0" * 64)
        spec = JobSpec(attempt, source, self.store.root, directory, encoded, outputs=outputs)
        spec = dataclasses.replace(spec, checkpoints=f"{instance}/checkpoints")
        self.store.put(spec.uri, spec.to_json())
        self.store.put(f"{directory}/job.json", b"of Airflow")
        process = self.image.start(spec.uri, **self.variables)
        _, stderr = process.communicate(timeout=120)
        assert self.store.exists(spec.result_uri), stderr
        return JobResult.from_json(self.store.get(spec.result_uri), attempt)

    def works(self) -> None:
        """Run attempts that fail, then one that succeeds: none of them is refused anything that it needs."""
        for number, ends, error in ((1, "raises", "raises"), (2, "breaks", "cannot pickle '_thread.lock' object")):
            result = self.run(number, "work", b"input", ends, outputs=["job", "result"])
            assert (result.status, error in str(result.error)) == (FAILED, True), result.error
        checkpoints = f"{self.store.root}/{INSTANCE}/checkpoints"
        assert len(self.store.list(checkpoints)) > 2
        result = self.run(3, "work", b"input", "succeeds", outputs=["job", "result"])
        assert result.status == SUCCEEDED, result.error
        assert result.outputs["job"].uri.endswith("/attempt-3/outputs/job.json")
        assert values.load(result.outputs["result"], self.store) == [bytes(LARGE), None]
        assert self.store.list(checkpoints) == [f"{checkpoints}/machine-0/attempt-3/manifest.json"]

    def forges_nothing(self) -> None:
        """Let a job try to write and to delete what only Airflow writes."""
        root, attempt = self.store.root, f"{self.store.root}/{INSTANCE}/attempt-9"
        places = ["stepops.yaml", "cache/0.json", "runs/stray", f"{INSTANCE}/stray", "sagemaker/stray"]
        names = [*OF_AIRFLOW, "inputs/0.pkl", "inputs/result.json", "inputs/of-another-stack/0.json"]
        uris = [*(f"{root}/{place}" for place in places), *(f"{attempt}/{name}" for name in names)]
        for uri in uris:
            self.store.put(uri, b"of Airflow")
        result = self.run(1, "forge", uris)
        assert result.values["return_value"] == [[uri, True, True] for uri in uris], result.error
        assert {self.store.get(uri) for uri in uris} == {b"of Airflow"}


#: Of an attempt's folder.
OF_AIRFLOW = ("spec.json", "job.json", "claim.json")

_WORDS = (
    *("attempt-", "attempt-1", "attempt-1.json", "cache", "checkpoints", "claim.json", "inputs", "job.json", "live"),
    *("machine-0", "manifest.json", "model.tar.gz", "of-another-stack", "output", "outputs", "result.json", "runs"),
    *("sagemaker", "spec.json", "-1", "team"),
)
_NAMES = st.sampled_from(_WORDS) | st.from_regex(r"[A-Za-z0-9_=-]{1,12}", fullmatch=True)
#: Such names, without those that look like parts of the layout.
_PLAIN_NAMES = st.from_regex(r"[a-z0-9_]{1,12}", fullmatch=True)
_DIGESTS = st.from_regex(r"[0-9a-f]{8}\.[a-z]{1,7}", fullmatch=True)
_FILES = st.sampled_from(_WORDS) | _DIGESTS


def _folders(names: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    indexes = st.integers(-1, 99).map(str)
    return st.tuples(st.just("runs"), names, names, names, indexes, names).map("/".join)


def _in_attempts(folders: st.SearchStrategy[str], paths: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(folders, st.integers(1, 300), paths).map(lambda parts: "{}/attempt-{}/{}".format(*parts))


def _files_of_jobs(folders: st.SearchStrategy[str], names: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    paths = [st.just("result.json"), *(names.map(f"{folder}/{{}}".format) for folder in ("outputs", "live"))]
    machines = folders.map("{}/checkpoints/machine-3".format)
    files = st.sampled_from(("begun", "manifest.json", "0f" * 32))
    return _in_attempts(folders, st.one_of(paths)) | _in_attempts(machines, files)


#: Objects that only Airflow writes, by their path below the root; what is called by people may be called anything.
KEPT = _in_attempts(
    _folders(_NAMES),
    st.sampled_from(OF_AIRFLOW) | _FILES.map("inputs/{}".format) | _DIGESTS.map("inputs/of-another-stack/{}".format),
)
#: Objects that jobs write.
WRITTEN = _files_of_jobs(_folders(_NAMES), _FILES)
#: Those of DAGs, runs and tasks whose names do not look like parts of the layout.
PLAINLY_WRITTEN = _files_of_jobs(_folders(_PLAIN_NAMES), _FILES)
#: Objects that are not in ``runs``.
ELSEWHERE = st.lists(_NAMES, min_size=1, max_size=9).map("/".join).filter(lambda path: not path.startswith("runs/"))


def is_like(text: str, patterns: Iterable[str]) -> bool:
    """Whether a text is like one of some patterns, as AWS and Azure say it: ``*`` any characters, ``?`` one."""
    wildcards = {"*": ".*", "?": "."}
    return any(
        re.fullmatch("".join(wildcards.get(character, re.escape(character)) for character in pattern), text, re.DOTALL)
        for pattern in patterns
    )
