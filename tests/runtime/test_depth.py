"""Documents that are nested deeply: they are read, or refused with a SpecError, however near they are to the limit."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from airflow_stepops.errors import SpecError
from airflow_stepops.jobs.ledger import LedgerEntry
from airflow_stepops.runtime.checkpoints import read_manifest
from airflow_stepops.runtime.result import JobResult
from airflow_stepops.runtime.spec import JobSpec, decode_value
from tests.jobs.test_ledger import ENTRY
from tests.runtime.test_result import ATTEMPT, RESULT
from tests.runtime.test_spec import SPEC


def use_spec(data: bytes) -> Any:
    spec = JobSpec.from_json(data)
    return decode_value([spec.args, spec.kwargs])


CHECKPOINTS = json.dumps({"version": 2, "files": {}}).encode()
READERS: dict[str, tuple[Callable[[bytes], Any], bytes, str]] = {
    "spec": (use_spec, SPEC.to_json(), "args"),
    "result": (lambda data: JobResult.from_json(data, ATTEMPT), RESULT.to_json(), "values"),
    "ledger": (LedgerEntry.from_json, ENTRY.to_json(), "component"),
    "checkpoints": (lambda data: read_manifest(data, "it"), CHECKPOINTS, "files"),
}


@pytest.mark.parametrize(("use", "document", "field"), READERS.values(), ids=READERS.keys())
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('{"$tuple":[', "]}")])
def test_any_depth_is_read_or_refused(
    use: Callable[[bytes], Any], document: bytes, field: str, opening: str, closing: str
) -> None:
    for depth in [1, 50, *range(100, 1100, 25), 5_000, 100_000]:
        nested = f"{opening * depth}{closing * depth}".replace('"a":}', '"a":1}')
        text = json.dumps({**json.loads(document), field: "HERE"}).replace('"HERE"', nested)
        try:
            use(text.encode())
        except SpecError:
            continue
