"""Our layers of an image, unpacked on this machine for a step operator that runs them without a container."""

from __future__ import annotations

import gzip
import os
import posixpath
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock

from airflow_stepops.errors import ImageError
from airflow_stepops.images.manifests import Descriptor, Manifest, read_config
from airflow_stepops.images.plan import CODE, LAYERS, REQUIREMENTS, RUNTIME, folder, history_of
from airflow_stepops.images.registry.blobs import CHUNK, is_digest, verified
from airflow_stepops.images.registry.repository import ImageRepository


@dataclass(frozen=True)
class UnpackedLayers:
    """The folders that hold what the image has below ``/opt/stepops``. Nobody may write into them."""

    requirements: Path
    runtime: Path
    code: Path


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
    folders = {
        name: _unpacked(repository, layer, diff_id, name, into)
        for name, layer, diff_id in zip(LAYERS, manifest.layers[-count:], diff_ids[-count:], strict=True)
    }
    return UnpackedLayers(folders[REQUIREMENTS], folders[RUNTIME], folders[CODE])


def _unpacked(repository: ImageRepository, layer: Descriptor, diff_id: str, name: str, into: Path) -> Path:
    place = into / diff_id.removeprefix("sha256:")
    if not place.is_dir():
        into.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{place}.lock"):
            if not place.is_dir():
                _unpack(repository, layer, diff_id, name, place)
    os.utime(place)  # it is in use
    return place / folder(name)


def _unpack(repository: ImageRepository, layer: Descriptor, diff_id: str, name: str, place: Path) -> None:
    what = f"layer {layer.digest} of {repository.name}"
    unfinished = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=place.parent))
    try:
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
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


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
