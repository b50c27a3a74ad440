"""The compose file, as far as it can be held against the product without a Docker daemon."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load((CHECKOUT / "docker-compose.yaml").read_text())


def airflow_services(compose: dict[str, Any]) -> dict[str, Any]:
    return {name: service for name, service in compose["services"].items() if "build" in service}


def test_each_service_runs_a_command_that_airflow_has(compose: dict[str, Any]) -> None:
    from airflow.cli.cli_parser import get_parser

    commands = {name: service["command"] for name, service in airflow_services(compose).items() if "command" in service}
    assert set(commands) == {"migrate", "api-server", "scheduler", "dag-processor", "triggerer"}
    for command in commands.values():
        assert callable(get_parser().parse_args(command).func)


def test_services_depend_on_services_that_are_there(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for service in services.values():
        assert set(service.get("depends_on", {})) <= set(services)
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            assert source in compose["volumes"] or (CHECKOUT / source).is_dir()


def test_the_environment_sets_options_that_airflow_and_stepops_have(compose: dict[str, Any]) -> None:
    from airflow.configuration import conf

    from airflow_stepops.get_provider_info import get_provider_info

    own = get_provider_info()["config"]["stepops"]["options"]
    for service in airflow_services(compose).values():
        for name in service["environment"]:
            if name.startswith("STEPOPS_"):
                assert name.removeprefix("STEPOPS_").lower() in own
            else:
                _, section, option = name.lower().split("__")
                known = conf.configuration_description.get(section, {}).get("options", {})
                assert option in known, f"{name} is no option of Airflow"


def test_the_stack_file_in_it_is_valid(
    compose: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_stepops.stacks.file import load

    file = tmp_path / "stepops.yaml"
    file.write_text(compose["configs"]["stacks"]["content"])
    monkeypatch.setenv("STEPOPS_CONFIG", str(file))
    stack = load().stack()
    assert stack.name == "compose"
    assert [operator.flavor for operator in stack.step_operators] == ["local"]
    host = stack.container_registry.model_dump()["uri"].split(":")[0]
    assert host in compose["services"]


def test_the_files_that_the_image_copies_are_in_the_checkout(compose: dict[str, Any]) -> None:
    lines = compose["x-airflow"]["build"]["dockerfile_inline"].splitlines()
    copies = [line.split()[2:-1] for line in lines if line.startswith("COPY")]
    assert copies
    for sources in copies:
        assert all((CHECKOUT / source).exists() for source in sources)
