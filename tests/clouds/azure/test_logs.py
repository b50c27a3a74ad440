"""Logs of jobs on an emulated Azure ML: files in Blob Storage at signed addresses."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from airflow_stepops.errors import TransientServiceError
from tests.clouds.azure.azureml import AzureML
from tests.clouds.azure.emulated import ADDRESS, EmulatedAzure
from tests.clouds.azure.ground import OnAzureML
from tests.clouds.ground import all_lines, ended
from tests.clouds.test_job_service import (  # noqa: F401 - they run here with the ground of Azure ML
    test_a_job_without_a_log_has_no_lines,
    test_a_very_long_line_comes_in_pieces,
    test_another_process_goes_on_at_the_cursor,
    test_no_line_is_lost_or_repeated_while_the_job_prints,
)
from tests.engines import free_port


def test_signed_addresses_that_have_ended_are_asked_for_anew(
    ground: OnAzureML, workspace: AzureML, azure: EmulatedAzure
) -> None:
    service, request = ground.connect(), ground.request("count", 3)
    job_id = service.submit(request).id
    ended(service, job_id)
    good, details = workspace.signed, workspace.history
    workspace.signed = timedelta(hours=-1)

    def once_more(call: Any) -> Any:
        workspace.signed = good if looked else timedelta(hours=-1)
        looked.append(call)
        return details(call)

    looked: list[Any] = []
    azure.apis["runs"] = once_more
    assert all_lines(service, job_id) == ["line 0", "line 1", "line 2", "no end of line"]
    azure.apis["runs"] = details
    assert len(looked) == 2


def test_a_log_that_may_not_be_read_is_said_without_its_address(ground: OnAzureML, workspace: AzureML) -> None:
    service = ground.connect()
    job_id = service.submit(ground.request("count", 3)).id
    ended(service, job_id)
    good, workspace.signed = workspace.signed, timedelta(hours=-1)
    with pytest.raises(TransientServiceError, match=r"std_log\.txt cannot be read: Blob Storage answers 403") as caught:
        service.logs(job_id)
    workspace.signed = good
    assert "sig=" not in str(caught.value)


def test_a_log_that_cannot_be_reached_for_a_while_loses_and_repeats_no_line(
    ground: OnAzureML, workspace: AzureML
) -> None:
    service = ground.connect()
    job_id = service.submit(ground.request("count", 3)).id
    ended(service, job_id)
    first = service.logs(job_id, limit=2)
    assert (first.lines, first.more) == (["line 0", "line 1"], True)
    workspace.logs_at = f"https://{ADDRESS}:{free_port()}"
    with pytest.raises(TransientServiceError, match=r"std_log\.txt cannot be read: ConnectError") as caught:
        service.logs(job_id, first.cursor)
    workspace.logs_at = None
    assert "sig=" not in str(caught.value)
    assert all_lines(service, job_id, first.cursor) == ["line 2", "no end of line"]


def test_a_log_is_read_by_parts(ground: OnAzureML) -> None:
    service = ground.connect()
    job_id = service.submit(ground.request("count", 60_000)).id  # more than two parts
    ended(service, job_id)
    assert all_lines(service, job_id) == [*(f"line {number}" for number in range(60_000)), "no end of line"]
