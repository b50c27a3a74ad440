"""Reproducible layers: equal content makes equal bytes, whoever packs it, where and when.

Entries are sorted, times are the epoch, the owner is root and modes are 644 or 755, so nothing of the machine gets in.
The compressed bytes depend on ISA-L as well (its release, and the kind of processor), so images are named after what
is in the layers (:mod:`airflow_stepops.images.plan`): whoever finds the name in a registry takes the layers there.
"""

from __future__ import annotations

import hashlib
import os
import struct
import tarfile
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from isal import isal_zlib

from airflow_stepops.errors import ContextError
from airflow_stepops.images.registry.blobs import FileBlob

_BLOCK = 4 << 20
_THREADS = 4
_LEVEL = 1
_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"


@dataclass(frozen=True)
class Layer(FileBlob):
    """A gzip-compressed layer in a file.

    :param diff_id: digest of the tar before compression.
    """

    diff_id: str


@dataclass(frozen=True)
class Entry:
    """A file or symbolic link of a layer; folders come by themselves.

    :param name: path in the image, without a slash in front.
    :param source: where the bytes are, or the bytes.
    :param size: their number.
    :param sha256: hex digest that they must have, where that is known.
    :param link: target, for a symbolic link.
    """

    name: str
    source: Path | bytes = b""
    size: int = 0
    executable: bool = False
    sha256: str | None = None
    link: str | None = None


def write_layer(entries: Iterable[Entry], path: Path, folders: Iterable[str] = ()) -> Layer:
    """Pack entries into a layer.

    :param path: the file to write.
    :param folders: folders that the layer has even when they are empty.
    :raises ContextError: naming the file, when one is not what it was when its entry was made, or cannot be read.
    """
    return compress(_tar(entries, folders), path)


def compress(tar: Iterable[bytes], path: Path) -> Layer:
    """Write a tar as a layer, with both digests made in the same pass.

    :param path: the file to write.
    """
    plain, packed = hashlib.sha256(), hashlib.sha256()
    crc, length, size = 0, 0, 0
    with path.open("wb") as out, ThreadPoolExecutor(_THREADS) as pool:

        def emit(data: bytes) -> None:
            nonlocal size
            packed.update(data)
            size += out.write(data)

        emit(_GZIP_HEADER)
        waiting: deque[Future[bytes]] = deque()
        for block, final in _blocks(tar):
            plain.update(block)
            crc = zlib.crc32(block, crc)
            length += len(block)
            waiting.append(pool.submit(_deflate, block, final))
            if len(waiting) > _THREADS:
                emit(waiting.popleft().result())
        for future in waiting:
            emit(future.result())
        emit(struct.pack("<LL", crc, length & 0xFFFFFFFF))
    return Layer(f"sha256:{packed.hexdigest()}", size, path, f"sha256:{plain.hexdigest()}")


def _deflate(block: bytes, final: bool) -> bytes:
    # Blocks are compressed apart from each other and joined: threads help, and their timing changes no byte.
    packer = isal_zlib.compressobj(level=_LEVEL, wbits=-15)
    mode = isal_zlib.Z_FINISH if final else isal_zlib.Z_SYNC_FLUSH
    return bytes(packer.compress(block) + packer.flush(mode))


def _blocks(chunks: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Join chunks to blocks of a fixed length, and say which is the last."""
    block = bytearray()
    for chunk in chunks:
        block += chunk
        while len(block) > _BLOCK:
            yield bytes(block[:_BLOCK]), False
            del block[:_BLOCK]
    yield bytes(block), True


def _tar(entries: Iterable[Entry], folders: Iterable[str]) -> Iterator[bytes]:
    made: set[str] = set()
    named: list[tuple[str, Entry | None]] = [(entry.name, entry) for entry in entries]
    named += [(folder, None) for folder in folders]
    for name, entry in sorted(named, key=lambda pair: os.fsencode(pair[0])):
        parents = [str(parent) for parent in PurePosixPath(name).parents][-2::-1]
        for folder in parents if entry is not None else [*parents, name]:
            if folder not in made:
                made.add(folder)
                yield _header(folder, tarfile.DIRTYPE, True)
        if entry is None:
            continue
        if entry.link is not None:
            yield _header(entry.name, tarfile.SYMTYPE, True, link=entry.link)
            continue
        yield _header(entry.name, tarfile.REGTYPE, entry.executable, entry.size)
        yield from _content(entry)
        yield b"\0" * (-entry.size % tarfile.BLOCKSIZE)
    yield b"\0" * (2 * tarfile.BLOCKSIZE)


def _header(name: str, kind: bytes, executable: bool, size: int = 0, link: str = "") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, link
    info.mode = 0o755 if executable else 0o644
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _content(entry: Entry) -> Iterator[bytes]:
    if isinstance(entry.source, bytes):
        yield entry.source
        return
    hashed, count = hashlib.sha256(), 0
    try:
        with entry.source.open("rb", buffering=0) as stream:
            # One byte more than expected, to notice a file that grew.
            while chunk := stream.read(min(_BLOCK, entry.size - count + 1)):
                count += len(chunk)
                if count > entry.size:
                    break
                if entry.sha256 is not None:
                    hashed.update(chunk)
                yield chunk
    except OSError as error:
        raise ContextError(f"{entry.source} cannot be read: {error.strerror}.") from error
    if count != entry.size or entry.sha256 not in (None, hashed.hexdigest()):
        raise ContextError(
            f"{entry.source} changed while it was packed. Write such files outside of the code folder, or add them to "
            ".stepopsignore."
        )
