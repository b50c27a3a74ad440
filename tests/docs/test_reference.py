"""The reference pages name everything that there is, and nothing else."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from airflow_stepops.dag import step
from airflow_stepops.errors import EndKind, StepDefinitionError
from airflow_stepops.get_provider_info import get_provider_info
from airflow_stepops.jobs.outcome import ADVICE, FINAL_KINDS
from airflow_stepops.options import Image, Resources
from airflow_stepops.stacks.components import Component
from airflow_stepops.stacks.flavors import KINDS, flavor_class, flavors

DOCS = Path(__file__).resolve().parents[2] / "docs"

SECTIONS = {
    "artifact_stores": "Artifact stores",
    "container_registries": "Container registries",
    "image_builders": "Image builders",
    "step_operators": "Step operators",
}


def section(page: str, title: str, level: int) -> str:
    """Return the text below a heading, up to the next one of its level or higher."""
    text = (DOCS / page).read_text()
    found = re.search(rf"^#{{{level}}} {re.escape(title)}$(.*?)(?=^#{{1,{level}}} |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"{page} has no section {title!r}"
    return found[1]


def rows(text: str) -> list[str]:
    """Return the names in the first column of the tables of a text."""
    return re.findall(r"^\| `([\w-]+)` ", text, re.MULTILINE)


def test_every_flavor_is_in_the_reference_and_no_other() -> None:
    for kind in KINDS:
        titles = re.findall(r"^### `([\w-]+)`$", section("stacks.md", SECTIONS[kind], 2), re.MULTILINE)
        assert sorted(titles) == flavors(kind)


@pytest.mark.parametrize(("kind", "flavor"), [(kind, flavor) for kind in KINDS for flavor in flavors(kind)])
def test_every_setting_of_a_flavor_is_in_the_reference_and_no_other(kind: str, flavor: str) -> None:
    page = section("stacks.md", SECTIONS[kind], 2)
    found = re.search(rf"^### `{flavor}`$(.*?)(?=^### |\Z)", page, re.MULTILINE | re.DOTALL)
    assert found is not None
    settings = set(flavor_class(kind, flavor, "test").model_fields) - set(KINDS[kind].model_fields)
    assert sorted(rows(found[1])) == sorted(settings)


@pytest.mark.parametrize("kind", KINDS)
def test_every_setting_that_all_flavors_of_a_kind_have_is_in_the_reference_and_no_other(kind: str) -> None:
    common = section("stacks.md", SECTIONS[kind], 2).partition("\n### ")[0]
    assert set(rows(common)) == set(KINDS[kind].model_fields) - set(Component.model_fields)


def test_every_argument_of_a_step_is_in_the_guide() -> None:
    with pytest.raises(StepDefinitionError) as error:
        step(nonsense=1)
    own = re.search(r"Its own: ([\w, ]+);", str(error.value))
    assert own is not None
    assert sorted(rows(section("writing-steps.md", "`@step`", 2))) == own[1].split(", ")


def test_every_field_of_an_image_is_in_the_guide() -> None:
    assert set(rows((DOCS / "images.md").read_text())) == set(inspect.signature(Image).parameters)


def test_every_field_of_resources_is_in_the_guide() -> None:
    shown = re.search(r"`Resources\((.*?)\)`", (DOCS / "writing-steps.md").read_text())
    assert shown is not None
    assert re.findall(r"(\w+)=", shown[1]) == list(inspect.signature(Resources).parameters)


def test_every_setting_of_the_installation_is_in_the_reference() -> None:
    options = get_provider_info()["config"]["stepops"]["options"]
    assert rows(section("configuration.md", "Settings", 2)) == list(options)


def test_every_kind_of_end_is_in_the_concepts_with_whether_it_is_retried() -> None:
    table = re.findall(r"^\| `(\w+)` \|.*\| (yes|no) \|$", (DOCS / "concepts.md").read_text(), re.MULTILINE)
    assert dict(table) == {kind.value: "no" if kind in FINAL_KINDS else "yes" for kind in EndKind}


def test_every_kind_of_end_is_explained_with_what_airflow_does_and_the_advice_of_the_error() -> None:
    table = re.findall(r"^\| `(\w+)` \| .+ \| (.+) \| (.+) \|$", section("ends.md", "Kinds of end", 2), re.MULTILINE)
    assert {kind: (airflow, advice) for kind, airflow, advice in table} == {
        kind.value: ("fails at once" if kind in FINAL_KINDS else "retries", ADVICE[kind]) for kind in EndKind
    }


def test_every_page_is_in_the_navigation() -> None:
    navigation = (DOCS.parent / "mkdocs.yml").read_text()
    missing = [page.name for page in DOCS.rglob("*.md") if page.name not in navigation]
    assert missing == []


def test_links_between_pages_lead_somewhere() -> None:
    pages = [*DOCS.rglob("*.md"), DOCS.parent / "README.md", DOCS.parent / "CONTRIBUTING.md"]
    broken = [
        f"{page.name}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert broken == []
