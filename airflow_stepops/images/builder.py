"""The image of a step: what it is made of, whether it is there, and building and pushing what is missing."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from airflow_stepops.errors import BuildEngineError, ImageError
from airflow_stepops.images import manifests
from airflow_stepops.images.bases import Base, BaseImage, NoBase, RegistryBase
from airflow_stepops.images.cache import ImageCache, key_of
from airflow_stepops.images.contents import code_layer, requirements_layer, runtime_digest, runtime_layer
from airflow_stepops.images.context import Context, read_context
from airflow_stepops.images.docker import EngineBase
from airflow_stepops.images.dockerfile import recipe_from_dockerfile, recipe_from_packages
from airflow_stepops.images.layers import Layer
from airflow_stepops.images.plan import LAYERS, ImagePlan, Machine, environment, folder, history_of
from airflow_stepops.images.registry.blobs import BytesBlob, is_digest
from airflow_stepops.images.registry.repository import ImageRepository
from airflow_stepops.images.requirements import mask, read_requirements
from airflow_stepops.images.transfer import copy_blob
from airflow_stepops.options import Image
from airflow_stepops.runtime.spec import COMMAND
from airflow_stepops.stacks.components import ImageBuilderComponent, ImageTarget

#: Uploads at a time.
_UPLOADS = 6


@dataclass(frozen=True)
class BuiltImage:
    """An image that is in its repository.

    :param reference: what a step operator is given.
    :param digest: of its manifest; ``""`` for a finished image that is not pinned.
    :param tag: its name in the repository; ``""`` for a finished image.
    :param recipe: stands for what was asked for, beside code: base, platform, Python and requirements.
    :param uploaded_bytes: sent now, with layers of the base unless an engine built it.
    :param requests: network requests that it took.
    :param reused: whether it was there already.
    """

    reference: str
    digest: str
    tag: str
    recipe: str
    uploaded_bytes: int
    uploaded_blobs: int
    requests: int
    reused: bool


def plan_image(
    image: Image,
    *,
    target: ImageTarget,
    code_root: Path,
    dag_file: Path,
    repository: ImageRepository,
    builder: ImageBuilderComponent | None,
    report: Callable[[str], None],
    without: Iterable[Path] = (),
) -> PlannedImage | FinishedImage:
    """Return the image of a step, which may be in the repository already; its ``ensure()`` builds what is missing.

    A step operator without a base (``target.base is None``) runs our layers on this machine's Python, so what ``image``
    says of the machine (base, python, platform, Debian packages) has no effect.

    :param code_root: the folder whose files go into the image.
    :param dag_file: relative paths of ``image`` count from its folder.
    :param builder: builds bases from a Dockerfile or Debian packages.
    :param report: called with lines for the task's log.
    :param without: folders in the code folder that are no code.
    :raises ImageError: or one of its kinds, saying what to do.
    """
    if image.uri is not None:
        return FinishedImage(image.uri)
    cache = ImageCache()
    context = read_context(code_root, without)
    request = _Request(image, target, dag_file, repository, builder, report)
    if target.base is None:
        _report_unused(image, report)
        machine = Machine(_here(), _worker_python(), here=True)
        base: Base = NoBase(machine.platform)
    else:
        machine = Machine(
            image.platform or target.platform or manifests.host_platform(), image.python or _worker_python()
        )
        base = _base(request, machine, context, cache)
    lines = read_requirements(image.requirements, dag_file, code_root)
    plan = ImagePlan(base.identity, machine, tuple(map(mask, lines)), runtime_digest(), context.digest)
    return PlannedImage(plan, base, lines, context, repository, cache, report)


@dataclass(frozen=True)
class _Request:
    """What was asked for."""

    image: Image
    target: ImageTarget
    dag_file: Path
    repository: ImageRepository
    builder: ImageBuilderComponent | None
    report: Callable[[str], None]


@dataclass(frozen=True)
class FinishedImage:
    """An image that somebody else has made.

    :param uri: its name, pinned by digest or not.
    """

    uri: str

    def is_there(self) -> bool:
        """Return True: whoever names it says so."""
        return True

    def ensure(self) -> BuiltImage:
        """Return the image as it is."""
        pinned = self.uri.rpartition("@")[2]
        return BuiltImage(self.uri, pinned if is_digest(pinned) else "", "", self.uri, 0, 0, 0, True)


@dataclass(frozen=True)
class PlannedImage:
    """An image of which all is known that it is made of; it may be in its repository already."""

    plan: ImagePlan
    base: Base
    lines: tuple[str, ...]
    context: Context
    repository: ImageRepository
    cache: ImageCache
    report: Callable[[str], None]

    def is_there(self) -> bool:
        """Whether the repository has it."""
        return self.repository.head_manifest(self.plan.tag) is not None

    def ensure(self) -> BuiltImage:
        """Build and push what is not there; an image that is there costs one request.

        :raises ImageError: or one of its kinds, saying what to do.
        """
        before = self.repository.requests
        digest = self.repository.head_manifest(self.plan.tag)
        sent: list[int] = []
        if digest is None:
            self.report(f"builds image {self.plan.tag}")
            digest, sent = self._build()
            self.report(f"uploaded {len(sent)} blobs, {sum(sent) / 10**6:,.2f} MB, to {self.repository.name}")
        else:
            self.report(f"image {self.plan.tag} is in {self.repository.name}")
        return BuiltImage(
            reference=self.repository.reference(digest),
            digest=digest,
            tag=self.plan.tag,
            recipe=key_of(self.base.asked, asdict(self.plan.machine), self.plan.requirements),
            uploaded_bytes=sum(sent),
            uploaded_blobs=len(sent),
            requests=self.repository.requests - before + self.base.requests,
            reused=not sent,
        )

    def _build(self) -> tuple[str, list[int]]:
        with ThreadPoolExecutor(_UPLOADS) as pool:
            try:
                manifest, sent = self._put_parts(pool)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        # Last, so that the tag never points to something that is not whole.
        digest = self.repository.put_manifest(self.plan.tag, manifest.family.manifest, manifest.to_json())
        return digest, sent

    def _put_parts(self, pool: ThreadPoolExecutor) -> tuple[manifests.Manifest, list[int]]:
        """Make layers and config and put them, and the base's layers, into the repository."""
        base = pool.submit(self._load_base)
        ours = [
            pool.submit(requirements_layer, self.cache, self.lines, self.plan.machine, self.context.root),
            pool.submit(runtime_layer, self.cache, self.plan.machine),
            pool.submit(code_layer, self.cache, self.context),
        ]
        below, layers = base.result(), [future.result() for future in ours]
        config, manifest = _documents(below, layers)
        uploads = [pool.submit(self._copy, below, descriptor) for descriptor in below.layers]
        uploads += [pool.submit(self.repository.put_blob, blob) for blob in (*layers, config)]
        return manifest, [size for upload in uploads if (size := upload.result())]

    def _load_base(self) -> BaseImage:
        base = self.base.load()
        found = dict(entry.partition("=")[::2] for entry in base.environment).get("PYTHON_VERSION")
        wanted = self.plan.machine.python
        if found and ".".join(found.split(".")[:2]) != wanted:
            minor = ".".join(found.split(".")[:2])
            raise ImageError(
                f"base image {base.name} has Python {found}, and the image is for Python {wanted}. Set "
                f"Image(python={minor!r}), or choose a base with Python {wanted}."
            )
        return base

    def _copy(self, base: BaseImage, layer: manifests.Descriptor) -> int:
        assert base.repository is not None
        return copy_blob(layer, base.repository, self.repository)


def _documents(base: BaseImage, layers: list[Layer]) -> tuple[BytesBlob, manifests.Manifest]:
    config = BytesBlob.of(
        manifests.layer_config(
            base.config,
            [layer.diff_id for layer in layers],
            [history_of(name) for name in LAYERS],
            environment(base.environment),
            COMMAND,
            f"/{folder(LAYERS[-1])}",
        )
    )
    family = base.family
    descriptors = [manifests.Descriptor(family.layer, layer.digest, layer.size) for layer in layers]
    described = manifests.Descriptor(family.config, config.digest, config.size)
    return config, manifests.Manifest(family, described, (*base.layers, *descriptors))


def _worker_python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _here() -> str:
    return f"{platform.system().lower()}/{manifests.host_platform().partition('/')[2]}"


def _report_unused(image: Image, report: Callable[[str], None]) -> None:
    unused = [name for name in ("base", "python", "platform", "apt_packages", "dockerfile") if getattr(image, name)]
    if unused:
        report(
            f"runs on this machine's Python {_worker_python()}: {', '.join(unused)} of the image have no effect here"
        )


def _base(request: _Request, machine: Machine, context: Context, cache: ImageCache) -> Base:
    """Return what the image lies on: an image of a registry, or one that an engine builds."""
    image, repository = request.image, request.repository
    named = image.base or request.target.base or ""
    if image.dockerfile is None and not image.apt_packages:
        return RegistryBase(named, machine.platform, repository, cache)
    if request.builder is None or not request.builder.builds_dockerfiles:
        asked = "dockerfile" if image.dockerfile else "apt_packages"
        raise BuildEngineError(
            f"Image({asked}=…) needs a container engine, and the stack's image builder has none. Set 'image_builder: "
            "{flavor: docker}' in the stack, or bring a finished image with Image(uri=…)."
        )
    if image.dockerfile is not None:
        recipe = recipe_from_dockerfile(
            image.dockerfile, image.apt_packages, machine.platform, context, request.dag_file
        )
    else:
        pinned = RegistryBase(named, machine.platform, repository, cache).identity
        recipe = recipe_from_packages(pinned, image.apt_packages, machine.platform)
    return EngineBase(recipe, request.builder.engine_address(), repository, cache, request.report)
