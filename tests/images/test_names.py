"""Names of images are read as Docker reads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_stepops.errors import ImageError
from airflow_stepops.images.names import ImageName

DIGEST = "sha256:" + "ab" * 32

_part = st.from_regex(r"[a-z0-9]+(?:[._-][a-z0-9]+){0,2}", fullmatch=True)
_registry = st.one_of(
    st.just("localhost"),
    st.from_regex(r"[a-z0-9]{1,8}\.[a-z]{2,5}", fullmatch=True),
    st.from_regex(r"[a-z0-9]{1,8}:[1-9][0-9]{1,4}", fullmatch=True),
)
_tag = st.one_of(st.none(), st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", fullmatch=True))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("python", "docker.io/library/python:latest"),
        ("python:3.12-slim", "docker.io/library/python:3.12-slim"),
        ("team/base", "docker.io/team/base:latest"),
        ("index.docker.io/team/base", "docker.io/team/base:latest"),
        ("localhost/base", "localhost/base:latest"),
        ("host:5000/base", "host:5000/base:latest"),
        ("host:5000/a/b__c:v1", "host:5000/a/b__c:v1"),
        ("[::1]:5000/base", "[::1]:5000/base:latest"),
        (f"ghcr.io/a/b@{DIGEST}", f"ghcr.io/a/b@{DIGEST}"),
        (f"ghcr.io/a/b:v1@{DIGEST}", f"ghcr.io/a/b:v1@{DIGEST}"),
    ],
)
def test_what_is_left_out_is_filled_in(text: str, expected: str) -> None:
    assert str(ImageName.parse(text)) == expected


@given(_registry, st.lists(_part, min_size=1, max_size=3), _tag, st.booleans())
def test_every_valid_name_reads_back_to_its_parts(
    registry: str, parts: list[str], tag: str | None, pinned: bool
) -> None:
    text = f"{registry}/{'/'.join(parts)}" + (f":{tag}" if tag else "") + (f"@{DIGEST}" if pinned else "")
    name = ImageName.parse(text)
    assert (name.registry, name.path) == (registry, "/".join(parts))
    assert name.tag == (tag or (None if pinned else "latest"))
    assert name.digest == (DIGEST if pinned else None)
    assert ImageName.parse(str(name)) == name


@given(st.text(max_size=40))
def test_any_text_is_a_name_or_a_clear_refusal(text: str) -> None:
    try:
        name = ImageName.parse(text)
    except ImageError as error:
        assert "is not the name of an image" in str(error)
    else:
        assert ".." not in name.path.split("/")
        assert ImageName.parse(str(name)) == name


@pytest.mark.parametrize(
    "text",
    ["", "../../etc/passwd", "/etc/passwd", "host/../x", "oci:/tmp/x", "docker://python", "Python", "a//b", "a:b:c",
     "python@sha256:short", "python@md5:" + "a" * 32, "host:5000/", "-x/y", "python:" + "a" * 129, "a b", "ho_st.x/y"],
)  # fmt: skip
def test_paths_and_other_schemes_are_refused(text: str) -> None:
    with pytest.raises(ImageError, match="is not the name of an image in a registry"):
        ImageName.parse(text)
