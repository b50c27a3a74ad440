"""Materializers of one's own, and what is said where a materializer or its library is missing."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, ClassVar

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression

from airflow_stepops.artifacts import Materializer, materializers, register_materializer
from airflow_stepops.artifacts import values as artifacts
from airflow_stepops.artifacts.store import ArtifactStore
from airflow_stepops.errors import ArtifactError


@dataclasses.dataclass
class Words:
    """What the materializers below are for."""

    words: list[str]


class ManyWords(Words):
    """A subclass."""


class WordsMaterializer(Materializer):
    """Plain text, with the class beside."""

    name: ClassVar[str] = "words"
    extension: ClassVar[str] = ".txt"
    kinds: ClassVar[tuple[type, ...]] = (Words, ManyWords)

    def handles(self, value: Any) -> bool:
        return isinstance(value, Words)

    def save(self, value: Words, file: BinaryIO) -> dict[str, Any]:
        file.write(" ".join(value.words).encode())
        return {"class": type(value).__name__}

    def load(self, file: BinaryIO, metadata: Mapping[str, Any]) -> Words:
        kind = {kind.__name__: kind for kind in self.kinds}[metadata["class"]]
        found: Words = kind(file.read().decode().split(" "))
        return found


class ManyWordsMaterializer(WordsMaterializer):
    """Only the subclass."""

    name: ClassVar[str] = "many-words"

    def handles(self, value: Any) -> bool:
        return type(value) is ManyWords


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Materializer], None]]:
    """Register materializers until the test's end."""
    monkeypatch.setattr(materializers, "_registered", {})
    yield register_materializer


def test_a_registered_materializer_saves_its_type_and_subclasses(
    register: Callable[[Materializer], None], store: ArtifactStore
) -> None:
    register(WordsMaterializer())
    for value in (Words(["a", "b"]), ManyWords(["c"])):
        reference = artifacts.save(value, store, f"{store.root}/value")
        assert (reference.uri, reference.metadata) == (f"{store.root}/value.txt", {"class": type(value).__name__})
        assert store.get(reference.uri) == " ".join(value.words).encode()
        assert artifacts.load(reference, store) == value
        assert type(artifacts.load(reference, store)) is type(value)


def saved_by(value: Any, store: ArtifactStore) -> str:
    return artifacts.save(value, store, f"{store.root}/value").materializer


def test_of_two_materializers_the_one_registered_last_is_asked_first(
    register: Callable[[Materializer], None], folder_store: ArtifactStore
) -> None:
    register(ManyWordsMaterializer())
    register(WordsMaterializer())
    assert saved_by(ManyWords([]), folder_store) == "words"
    register(ManyWordsMaterializer())
    assert saved_by(ManyWords([]), folder_store) == "many-words"
    assert saved_by(Words([]), folder_store) == "words"


def test_a_materializer_cannot_take_the_name_of_a_built_in_one(register: Callable[[Materializer], None]) -> None:
    class Mine(WordsMaterializer):
        name: ClassVar[str] = "pandas"

    with pytest.raises(ArtifactError, match="built-in materializer 'pandas'"):
        register(Mine())


def test_a_materializer_that_is_not_registered_here_is_asked_for(folder_store: ArtifactStore) -> None:
    reference = artifacts.save([1], folder_store, f"{folder_store.root}/value")
    with pytest.raises(ArtifactError, match=r"'words' is not registered here: call register_materializer\(\)"):
        artifacts.load(dataclasses.replace(reference, materializer="words"), folder_store)


WITHOUT = """
import json, sys
sys.modules[sys.argv[1]] = None
from airflow_stepops.artifacts import ArtifactReference
from airflow_stepops.errors import ArtifactError
try:
    ArtifactReference.deserialize(json.loads(sys.argv[2])).load()
except ArtifactError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("value", "library"),
    [
        (pl.DataFrame({"a": [1]}), "polars"),
        (np.zeros(2), "numpy"),
        (pd.DataFrame({"a": [1, 2]}), "pyarrow"),
        (LogisticRegression(), "sklearn"),
    ],
    ids=["polars", "numpy", "pyarrow", "sklearn"],
)
def test_a_library_that_is_missing_where_a_value_is_loaded_is_advised(
    value: Any, library: str, folder_store: ArtifactStore
) -> None:
    reference = artifacts.save(value, folder_store, f"{folder_store.root}/runs/value")
    document = json.dumps(reference.serialize())
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, library, document], stdout=subprocess.PIPE, text=True, check=True, timeout=60
    )
    assert reference.uri in done.stdout
    assert library in done.stdout
    assert "Add its package to Image(requirements=[…])" in done.stdout
