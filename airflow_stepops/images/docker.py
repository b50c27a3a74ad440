"""The docker builder: a base made by Docker or Podman, once, and put into the repository of the images.

Only bases are built so. Requirements, runtime and code lie on top as on every other base, so an edit builds no base.
"""

from __future__ import annotations

import gzip
import json
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from airflow_stepops.errors import BuildEngineError
from airflow_stepops.images.bases import Base, BaseImage, read_image
from airflow_stepops.images.cache import ImageCache
from airflow_stepops.images.dockerfile import BaseRecipe
from airflow_stepops.images.engine import connect
from airflow_stepops.images.layers import Entry, compress, write_layer
from airflow_stepops.images.manifests import DOCKER, Descriptor, Manifest
from airflow_stepops.images.registry.blobs import CHUNK, BytesBlob
from airflow_stepops.images.registry.repository import ImageRepository

if TYPE_CHECKING:
    from docker import DockerClient

_DOCKERFILE = ".stepops.Dockerfile"
_TAIL = 30
_BUILD_TIMEOUT = 3600


class EngineBase(Base):
    """A base that an engine builds from a recipe, unless the repository has it.

    :param address: where the engine listens; ``None`` to look in the usual places.
    :param report: called with lines for the task's log.
    """

    def __init__(
        self,
        recipe: BaseRecipe,
        address: str | None,
        repository: ImageRepository,
        cache: ImageCache,
        report: Callable[[str], None],
    ) -> None:
        self._recipe = recipe
        self._address = address
        self._repository = repository
        self._cache = cache
        self._report = report
        self.identity: str = recipe.tag

    def load(self) -> BaseImage:
        """Return the base from the repository; build and push it when it is not there.

        :raises BuildEngineError: when no engine answers, or the build fails, with the end of its output.
        """
        with self._cache.engine.making(self._recipe.tag) as folder:
            digest = self._repository.head_manifest(self._recipe.tag)
            if digest is None:
                digest = self._build_and_push(folder)
        media_type, data = self._repository.get_manifest(digest)
        name = f"{self._repository.name}:{self._recipe.tag}"
        config = self._repository.get_document(Manifest.read(media_type, data, name).config)
        return read_image(name, self._repository, media_type, data, config)

    def _build_and_push(self, folder: Path) -> str:
        with closing(connect(self._address, _BUILD_TIMEOUT)) as client:
            self._report(f"builds base {self._recipe.tag} with the container engine")
            image = _build(client, self._recipe, folder)
            archive = folder / "image.tar"
            with archive.open("wb") as out:
                for chunk in image.save(chunk_size=CHUNK):
                    out.write(chunk)
            return _push(archive, folder, self._recipe.tag, self._repository)


def _build(client: DockerClient, recipe: BaseRecipe, folder: Path) -> Any:
    from docker.errors import APIError, BuildError

    text = recipe.dockerfile.encode()
    entries = [*recipe.files, Entry(_DOCKERFILE, text, len(text))]
    context = write_layer(entries, folder / "context.tar.gz")
    try:
        with context.path.open("rb") as stream:
            image, _ = client.images.build(
                fileobj=stream,
                custom_context=True,
                encoding="gzip",
                dockerfile=_DOCKERFILE,
                platform=recipe.platform,
                rm=True,
                forcerm=True,
            )
    except BuildError as error:
        said = "".join(_text(line) for line in error.build_log).splitlines()
        tail = "\n".join(line for line in said if line.strip())
        raise BuildEngineError(
            f"the base image could not be built: {error.msg}. The end of the build's output:\n"
            + "\n".join(tail.splitlines()[-_TAIL:])
        ) from error
    except APIError as error:
        raise BuildEngineError(f"the container engine refused the build: {error.explanation or error}.") from error
    return image


def _text(line: dict[str, Any]) -> str:
    text = line.get("stream") or line.get("error") or ""
    return text if text.endswith("\n") else f"{text}\n"


def _push(archive: Path, folder: Path, tag: str, repository: ImageRepository) -> str:
    """Put an image that an engine saved into a repository and return its digest."""
    with tarfile.open(archive) as tar:
        described = json.loads(_member(tar, "manifest.json").read())[0]
        config = BytesBlob.of(_member(tar, described["Config"]).read())
        layers = []
        for number, name in enumerate(described["Layers"]):
            with _member(tar, name) as stream:
                layer = compress(_chunks(stream), folder / f"{number}.tar.gz")
            repository.put_blob(layer)
            layer.path.unlink()
            layers.append(Descriptor(DOCKER.layer, layer.digest, layer.size))
    repository.put_blob(config)
    manifest = Manifest(DOCKER, Descriptor(DOCKER.config, config.digest, config.size), tuple(layers))
    return repository.put_manifest(tag, DOCKER.manifest, manifest.to_json())


def _member(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    stream = tar.extractfile(name)
    if stream is None:
        raise BuildEngineError(f"the container engine saved an image in which {name} is no file: upgrade the engine.")
    return stream


def _chunks(stream: IO[bytes]) -> Iterator[bytes]:
    """Return the bytes of a layer's tar; some engines save layers compressed."""
    compressed = stream.read(2) == b"\x1f\x8b"
    stream.seek(0)
    plain = gzip.GzipFile(fileobj=stream) if compressed else stream
    while chunk := plain.read(CHUNK):
        yield chunk
