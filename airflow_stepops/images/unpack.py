"""Our layers of an image, unpacked on this machine for a step operator that runs them without a container."""

from __future__ import annotations

import os
import posixpath
import shutil
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from airflow_stepops.errors import ImageError
from airflow_stepops.images.manifests import Descriptor, Manifest, read_json
from airflow_stepops.images.plan import CODE, LAYERS, REQUIREMENTS, RUNTIME, folder, history_of
from airflow_stepops.images.registry.blobs import is_digest
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
    with repository.get_blob(manifest.config.digest) as stream:
        config = read_json(stream.read(), f"{what}: config")
    history = [entry.get("created_by") for entry in config.get("history", []) if not entry.get("empty_layer")]
    diff_ids = config.get("rootfs", {}).get("diff_ids", [])
    count = len(LAYERS)
    if history[-count:] != [history_of(name) for name in LAYERS] or not all(map(is_digest, diff_ids[-count:])):
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
                _unpack(repository, layer, name, place)
    os.utime(place)  # it is in use
    return place / folder(name)


def _unpack(repository: ImageRepository, layer: Descriptor, name: str, place: Path) -> None:
    unfinished = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=place.parent))
    try:
        unfinished.chmod(0o755)
        with repository.get_blob(layer.digest) as stream:
            with tarfile.open(fileobj=stream, mode="r|gz") as tar:
                for member in tar:
                    _extract(tar, member, unfinished, name)
            # To the end, where the digest is checked.
            while stream.read(1 << 20):
                pass
        unfinished.rename(place)
    except tarfile.TarError as error:
        raise ImageError(f"layer {layer.digest} of {repository.name} is not a tar: {error}.") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, root: Path, name: str) -> None:
    """Write one member, which must stay in the folder of its layer."""
    inner = folder(name)
    path = posixpath.normpath(member.name)
    inside = path == inner or path.startswith(f"{inner}/")
    if not inside and not (member.isdir() and inner.startswith(f"{path}/")):
        raise ImageError(f"the {name} layer holds {member.name!r}, which is outside of {inner}: not an image of ours.")
    place = root / path
    if not os.path.realpath(place.parent).startswith(os.path.realpath(root)):
        raise ImageError(f"the {name} layer writes {member.name!r} through a link: not an image of ours.")
    if member.isdir():
        place.mkdir(exist_ok=True)
    elif member.issym():
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), member.linkname))
        if posixpath.isabs(member.linkname) or not target.startswith(f"{inner}/"):
            raise ImageError(
                f"the {name} layer holds a link {member.name!r} to {member.linkname!r}: not an image of ours."
            )
        place.symlink_to(member.linkname)
    elif member.isreg():
        source = tar.extractfile(member)
        assert source is not None
        with source, place.open("xb") as out:
            shutil.copyfileobj(source, out, 1 << 20)
        place.chmod(0o755 if member.mode & 0o100 else 0o644)
    else:
        raise ImageError(
            f"the {name} layer holds {member.name!r}, which is no file, folder or link: not an image of ours."
        )
