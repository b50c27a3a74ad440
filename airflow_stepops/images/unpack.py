"""Our layers of an image, unpacked on this machine for a step operator that runs them without a container."""

from __future__ import annotations

import gzip
import posixpath
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from airflow_stepops.errors import ImageError
from airflow_stepops.images.cache_folder import CacheFolder, touch
from airflow_stepops.images.manifests import Descriptor, Manifest, read_config
from airflow_stepops.images.plan import CODE, LAYERS, REQUIREMENTS, RUNTIME, folder, history_of
from airflow_stepops.images.registry.blobs import CHUNK, is_digest, verified
from airflow_stepops.images.registry.repository import ImageRepository


@dataclass(frozen=True)
class UnpackedLayers:
    """The folders that hold what the image has below ``/opt/stepops``. Nobody may write into them.

    :param locks: files to lock, shared with others, while the folders are used for more than some hours.
    """

    requirements: Path
    runtime: Path
    code: Path
    locks: tuple[Path, ...]


def unpack_layers(repository: ImageRepository, image: str, into: Path) -> UnpackedLayers:
    """Unpack our layers of an image, once: what is there already is used as it is.

    :param image: digest of the image's manifest, or a reference that ends in one.
    :param into: folder for unpacked layers, by the digest of their content; several processes may share it.
    :raises ImageError: if the image is not one of ours, or a layer would write outside of its folder.
    """
    digest = image.rpartition("@")[2]
    if not is_digest(digest):
        raise ImageError(
            f"image {image!r} has no digest: only images that airflow-stepops built can run without a container."
        )
    media_type, data = repository.get_manifest(digest)
    what = f"image {repository.reference(digest)}"
    manifest = Manifest.read(media_type, data, what)
    config = read_config(repository.get_document(manifest.config), f"{what}: config")
    history = [entry.get("created_by") for entry in config.get("history") or [] if not entry.get("empty_layer")]
    diff_ids = (config.get("rootfs") or {}).get("diff_ids") or []
    count = len(LAYERS)
    if history[-count:] != [history_of(name) for name in LAYERS] or not count <= len(diff_ids) == len(manifest.layers):
        raise ImageError(
            f"{what} has no layers of airflow-stepops: only images that it built can run without a container."
        )
    cache = CacheFolder(into)
    places = {
        name: _unpacked(repository, layer, diff_id, name, cache)
        for name, layer, diff_id in zip(LAYERS, manifest.layers[-count:], diff_ids[-count:], strict=True)
    }
    return UnpackedLayers(
        requirements=places[REQUIREMENTS] / folder(REQUIREMENTS),
        runtime=places[RUNTIME] / folder(RUNTIME),
        code=places[CODE] / folder(CODE),
        locks=tuple(cache.lock(place.name) for place in places.values()),
    )


def _unpacked(repository: ImageRepository, layer: Descriptor, diff_id: str, name: str, cache: CacheFolder) -> Path:
    place = cache.path / diff_id.removeprefix("sha256:")
    if not _in_use(place):
        cache.clean()
        with cache.making(place.name) as unfinished:
            if not _in_use(place):
                _unpack(repository, layer, diff_id, name, unfinished / "layer", place)
    return place


def _in_use(place: Path) -> bool:
    """Note that a layer is in use; return whether it is there."""
    try:
        touch(place)
    except FileNotFoundError:
        return False
    return place.is_dir()


def _unpack(
    repository: ImageRepository, layer: Descriptor, diff_id: str, name: str, unfinished: Path, place: Path
) -> None:
    what = f"layer {layer.digest} of {repository.name}"
    try:
        unfinished.mkdir()
        unfinished.chmod(0o755)
        with repository.get_blob(layer.digest) as stream:
            # Whoever finds the folder later knows it by the digest of what is in it, so that one is checked as well.
            plain = verified(_decompressed(stream, what), diff_id, f"{what}, decompressed")
            with plain, tarfile.open(fileobj=plain, mode="r|") as tar:
                for member in tar:
                    _extract(tar, member, unfinished, name)
                for source in (plain, stream):  # to the end, where digests are checked
                    while source.read(CHUNK):
                        pass
        unfinished.rename(place)
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise ImageError(f"{what} is not a tar: {error}.") from error
    except OSError as error:
        raise ImageError(f"{what} cannot be unpacked into {place.parent}: {error.strerror or error}.") from error


def _decompressed(stream: BinaryIO, what: str) -> Iterator[bytes]:
    try:
        with gzip.GzipFile(fileobj=stream, mode="rb") as plain:
            while chunk := plain.read(CHUNK):
                yield chunk
    except (OSError, EOFError, zlib.error) as error:
        raise ImageError(f"{what} is not compressed as it must be: {error}.") from error


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, root: Path, name: str) -> None:
    """Write one member, which must stay in the folder of its layer."""
    inner = folder(name)
    path = posixpath.normpath(member.name)
    inside = path == inner or path.startswith(f"{inner}/")
    if not inside and not (member.isdir() and inner.startswith(f"{path}/")):
        raise ImageError(f"the {name} layer holds {member.name!r}, which is outside of {inner}: not an image of ours.")
    place = root / path
    if place.parent.resolve() != root.resolve() / posixpath.dirname(path):
        raise ImageError(f"the {name} layer writes {member.name!r} through a link: not an image of ours.")
    if place.name.startswith(".wh."):
        raise ImageError(f"the {name} layer deletes {member.name!r} of a layer below: not an image of ours.")
    if member.isdir():
        place.mkdir(exist_ok=True)
    elif member.issym():
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), member.linkname))
        straight = posixpath.normpath(member.linkname) == member.linkname and not posixpath.isabs(member.linkname)
        if not straight or not target.startswith(f"{inner}/"):
            raise ImageError(
                f"the {name} layer holds a link {member.name!r} to {member.linkname!r}: not an image of ours."
            )
        place.symlink_to(member.linkname)
    elif member.isreg() and not member.issparse():
        if not 0 <= member.size <= shutil.disk_usage(root).free:
            raise ImageError(
                f"the {name} layer's {member.name!r} has {member.size:,} bytes: {root} has no room for it."
            )
        source = tar.extractfile(member)
        assert source is not None
        with source, place.open("xb") as out:
            shutil.copyfileobj(source, out, CHUNK)
        place.chmod(0o755 if member.mode & 0o100 else 0o644)
    else:
        raise ImageError(
            f"the {name} layer holds {member.name!r}, which is no file, folder or link: not an image of ours."
        )
