"""Files of a bundle: each at most as large as one part, with size and checksum."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class File(NamedTuple):
    """A file of a bundle, as the manifest lists it.

    Attributes:
        path: Below the bundle, with `/`.
        size: Bytes.
        sha256: Hexadecimal.
    """

    path: str
    size: int
    sha256: str


def listed(bundle: Path, path: str) -> File:
    """A file that is in the bundle already."""
    content = hashlib.sha256()
    with (bundle / path).open("rb") as file:
        while block := file.read(1 << 20):
            content.update(block)
    return File(path, (bundle / path).stat().st_size, content.hexdigest())


def put(source: Path, bundle: Path, path: str, part_size: int) -> list[File]:
    """Copy a file into the bundle, cut where it is larger than a part; parts that are there and whole are kept.

    Args:
        source: The file.
        bundle: Folder of the bundle.
        path: Where in it, with `/`; parts add `.part-00000` and so on to the name.
        part_size: Bytes.
    """
    cut = source.stat().st_size > part_size
    files = []
    (bundle / path).parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as file:
        for number in range(max(1, -(-source.stat().st_size // part_size))):
            content = file.read(part_size)
            part = File(f"{path}.part-{number:05}" if cut else path, len(content), hashlib.sha256(content).hexdigest())
            if not _is_there(bundle, part):
                write(bundle / part.path, content)
            files.append(part)
    return files


def find(bundle: Path, path: str, sha256: str, part_size: int) -> list[File]:
    """The file or the parts of a file that is in the bundle and whole; nothing otherwise.

    Args:
        bundle: Folder of the bundle.
        path: Of the file in it, with `/`.
        sha256: Of the whole file.
        part_size: Bytes; one that was cut into larger parts does not count.
    """
    whole = bundle / path
    paths = [whole] if whole.is_file() else sorted(whole.parent.glob(f"{whole.name}.part-*"))
    if any(part.stat().st_size > part_size for part in paths):
        return []
    content = hashlib.sha256()
    for part in paths:
        content.update(part.read_bytes())
    if not paths or content.hexdigest() != sha256:
        return []
    return [listed(bundle, part.relative_to(bundle).as_posix()) for part in paths]


def join(bundle: Path, files: Sequence[File], target: Path) -> Path:
    """Write the whole file that some parts in the bundle are of; returns `target`."""
    with target.open("wb") as whole:
        for part in files:
            whole.write((bundle / part.path).read_bytes())
    return target


def write(path: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all."""
    new = path.with_name(f".{path.name}.new")
    try:
        new.write_bytes(content)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _is_there(bundle: Path, part: File) -> bool:
    path = bundle / part.path
    return path.is_file() and path.stat().st_size == part.size and listed(bundle, part.path) == part
