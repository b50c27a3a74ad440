"""``stepops doctor``: tries each part of a stack for real, and says what to mend."""

from __future__ import annotations

import os
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from airflow_stepops.cli import place
from airflow_stepops.cli.local_airflow import output_into
from airflow_stepops.cli.output import json_option, print_json, print_table
from airflow_stepops.errors import ArtifactExistsError, ConfigurationError, StepopsError

if TYPE_CHECKING:
    from airflow_stepops.images.registry.repository import ImageRepository
    from airflow_stepops.stacks.components import ArtifactStoreComponent, StepOperatorComponent
    from airflow_stepops.stacks.models import Stack

#: The name of no attempt's job: those end in sixteen hex digits.
_NO_JOB = "stepops-doctor-asks"
_TAG = "stepops-doctor"


@dataclass(frozen=True)
class Check:
    """What came of one check.

    :param what: the part that was tried.
    :param said: what was tried, or what is wrong and how to mend it.
    """

    what: str
    passed: bool
    said: str


@click.command("doctor", help="Try each part of a stack for real; the exit code is 1 when something is wrong.")
@click.option("--stack", shell_complete=place.complete("stacks"), help="Default: the active one.")
@json_option
def doctor(stack: str | None, as_json: bool) -> int:
    """Check a stack."""
    # A command line that is no task finds connections in the metadata database only when it says that it may.
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    with output_into(Path(os.devnull)):  # Airflow logs on standard output
        checks = list(_checks(stack))
    if as_json:
        print_json([asdict(check) for check in checks])
    else:
        rows = [("ok" if check.passed else "FAILED", check.what, check.said) for check in checks]
        print_table(("", "PART", ""), rows)
    return 0 if all(check.passed for check in checks) else 1


def _checks(stack: str | None) -> Iterator[Check]:
    yield _checked("stack file", _stack_file)
    try:
        found = place.to_read().stack(stack)
    except ConfigurationError as error:
        yield Check("stack", False, str(error))
        return
    yield _checked(f"artifact store {found.artifact_store.name}", lambda: _artifact_store(found.artifact_store))
    yield _checked(f"container registry {found.container_registry.name}", lambda: _container_registry(found))
    if found.image_builder.builds_dockerfiles:
        yield _checked(f"image builder {found.image_builder.name}", lambda: _image_builder(found))
    for operator in found.step_operators:
        yield _checked(f"step operator {operator.name}", _asks(operator))


def _checked(what: str, check: Callable[[], str]) -> Check:
    try:
        return Check(what, True, check())
    except StepopsError as error:
        return Check(what, False, " ".join(str(error).split()))
    except Exception as error:  # noqa: BLE001 - whatever a component raises is what is wrong with it
        return Check(what, False, " ".join(f"{type(error).__name__}: {error}".split()))


def _stack_file() -> str:
    from airflow_stepops.stacks.file import find_file

    path = find_file(Path.cwd())
    if path is None:
        return "there is none: the built-in stack 'local' is used"
    place.to_read().check()
    if not path.stat().st_mode & stat.S_IROTH:
        raise ConfigurationError(
            f"{path} cannot be read by other users, and Airflow's components run as others often: chmod o+r {path}"
        )
    return f"{path}: valid, and readable by all users"


def _artifact_store(component: ArtifactStoreComponent) -> str:
    store = component.open()
    uri = f"{store.root}/doctor/{uuid.uuid4().hex}"
    store.put_if_absent(uri, b"hello")
    try:
        with suppress(ArtifactExistsError):
            store.put_if_absent(uri, b"again")
            raise ConfigurationError(
                f"{store.root} overwrites where it must not (put-if-absent): jobs may be launched twice. Use a store "
                "with conditional writes."
            )
        if store.get(uri) != b"hello" or store.list(f"{store.root}/doctor").count(uri) != 1:
            raise ConfigurationError(f"{store.root} does not give back what was written.")
    finally:
        store.delete(uri)
    return f"{store.root}: writes, reads, lists, deletes, and writes only once what must be written once"


def _container_registry(stack: Stack) -> str:
    repository = stack.container_registry.open()
    digest = _push_nothing(repository)
    found = repository.head_manifest(_TAG)
    if found != digest:
        raise ConfigurationError(f"{repository.name}: {_TAG} is {found} and not {digest}, which was pushed just now.")
    repository.get_manifest(digest)
    return f"{repository.name}: pushes and pulls"


def _push_nothing(repository: ImageRepository) -> str:
    """Push an image without layers, the same each time, and return its digest."""
    from airflow_stepops.images.manifests import OCI, Descriptor, Manifest, encode_json
    from airflow_stepops.images.registry.blobs import BytesBlob

    document = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": []}}
    config = BytesBlob.of(encode_json(document))
    repository.put_blob(config)
    manifest = Manifest(OCI, Descriptor(OCI.config, config.digest, config.size), ())
    return repository.put_manifest(_TAG, OCI.manifest, manifest.to_json())


def _image_builder(stack: Stack) -> str:
    from airflow_stepops.images.engine import connect

    engine = connect(stack.image_builder.engine_address())
    version: dict[str, Any] = engine.version()
    return f"an engine answers, version {version.get('Version')}"


def _asks(operator: StepOperatorComponent) -> Callable[[], str]:
    def ask() -> str:
        service = operator.connect()
        if service.find_now(_NO_JOB) is not None:
            raise ConfigurationError(f"there is a job called {_NO_JOB!r}, which nobody should have made.")
        return f"{operator.flavor}: answers"

    return ask
