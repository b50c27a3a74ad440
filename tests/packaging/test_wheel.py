"""The wheel, installed into an empty environment."""

from __future__ import annotations

import json
import os
import subprocess
import zipfile
from collections.abc import Callable
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path

import pytest
import uv

import airflow_stepops

CHECKOUT = Path(__file__).resolve().parents[2]

Run = Callable[..., str]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([uv.find_uv_bin(), "build", "--quiet", "--wheel", "--out-dir", folder, CHECKOUT], check=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return HeaderParser().parsestr(archive.read(name).decode())


@pytest.fixture(scope="session")
def run(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run a program of a fresh environment that holds the wheel and what it declares, and return what it prints."""
    folder = tmp_path_factory.mktemp("fresh")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTHON"))}
    environment |= {"AIRFLOW_HOME": str(folder / "airflow"), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    python = folder / "venv" / "bin" / "python"
    subprocess.run([uv.find_uv_bin(), "venv", "--quiet", folder / "venv"], check=True)
    subprocess.run([uv.find_uv_bin(), "pip", "install", "--quiet", "--python", python, wheel], check=True)

    def run_program(*command: str) -> str:
        done = subprocess.run(
            [python.parent / command[0], *command[1:]], cwd=folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run_program


def test_the_wheel_holds_the_package_its_types_and_its_licence_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    info = f"airflow_stepops-{airflow_stepops.__version__}.dist-info"
    assert tops == {"airflow_stepops", info}
    assert "airflow_stepops/py.typed" in names
    assert f"{info}/licenses/LICENSE" in names


def test_every_module_of_the_checkout_is_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    modules = {str(path.relative_to(CHECKOUT)) for path in (CHECKOUT / "airflow_stepops").rglob("*.py")}
    assert modules - names == set()


def test_the_metadata_say_what_the_package_needs(metadata: Message) -> None:
    assert metadata["Name"] == "airflow-stepops"
    assert metadata["Version"] == airflow_stepops.__version__
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert set(metadata.get_all("Provides-Extra", [])) == {"amazon", "google", "azure", "docker"}
    assert "Framework :: Apache Airflow :: Provider" in metadata.get_all("Classifier", [])
    required = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert any(line.startswith("apache-airflow>=") for line in required)
    assert not any(line.startswith(("docker", "boto3", "pandas", "apache-airflow-providers")) for line in required)


def test_airflow_discovers_the_provider(run: Run) -> None:
    listed = json.loads(run("airflow", "providers", "list", "--output", "json"))
    (provider,) = [entry for entry in listed if entry["package_name"] == "airflow-stepops"]
    assert provider["version"] == airflow_stepops.__version__
    assert provider["description"].startswith("Run one step of a DAG on a managed ML service")


def test_the_settings_of_the_provider_have_their_defaults(run: Run) -> None:
    assert run("airflow", "config", "get-value", "stepops", "max_context_mb").strip() == "100"


def test_the_registry_connection_and_the_plugin_are_registered(run: Run) -> None:
    hooks = json.loads(run("airflow", "providers", "hooks", "--output", "json"))
    (hook,) = [entry for entry in hooks if entry["connection_type"] == "container_registry"]
    assert hook["package_name"] == "airflow-stepops"
    plugins = json.loads(run("airflow", "plugins", "--output", "json"))
    assert "stepops" in [plugin["name"] for plugin in plugins]


def test_modules_can_be_imported_with_the_declared_dependencies_alone_but_for_those_of_an_extra(run: Run) -> None:
    program = (
        "import importlib, json, pkgutil, airflow_stepops\n"
        "names = [m.name for m in pkgutil.walk_packages(airflow_stepops.__path__, 'airflow_stepops.')]\n"
        "names = [n for n in names if not n.endswith('__main__')]\n"
        "missing = {}\n"
        "for name in names:\n"
        "    try: importlib.import_module(name)\n"
        "    except ModuleNotFoundError as error: missing[name] = error.name\n"
        "print(json.dumps([len(names), missing]))\n"
    )
    count, missing = json.loads(run("python", "-c", program).splitlines()[-1])
    assert count > 60
    assert set(missing.values()) == {"botocore", "docker", "google.auth"}
    extras = ("airflow_stepops.clouds.docker.", "airflow_stepops.clouds.aws.", "airflow_stepops.clouds.gcp.")
    assert all(name.startswith(extras) for name in missing)


def test_a_dag_with_a_task_step_parses_in_a_fresh_environment(run: Run) -> None:
    program = (
        "from airflow.sdk import dag, task\n"
        "@task.step\n"
        "def double(value): return 2 * value\n"
        "@dag(schedule=None)\n"
        "def numbers(): double(double(1))\n"
        "print(sorted(numbers().task_ids))\n"
    )
    assert run("python", "-c", program).splitlines()[-1] == "['double', 'double__1']"
