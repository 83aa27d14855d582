"""The files of a bundle, with size and checksum; a file larger than a part is cut into parts."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class File(NamedTuple):
    """A file of a bundle, as the manifest lists it."""

    path: str  # path inside the bundle, with `/`
    size: int  # bytes
    sha256: str


def listed(bundle: Path, path: str) -> File:
    """The entry of a file in the bundle."""
    content = hashlib.sha256()
    with (bundle / path).open("rb") as file:
        while block := file.read(1 << 20):
            content.update(block)
    return File(path, (bundle / path).stat().st_size, content.hexdigest())


def put(source: Path, bundle: Path, path: str, part_size: int) -> list[File]:
    """Copy a file to `path` in the bundle, in parts if it is larger than one; intact parts are kept."""
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
    """The entries of an intact file in the bundle, one per part; empty if it is missing, damaged or in larger parts."""
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
    """Join parts in the bundle into one file, and return its path `target`."""
    with target.open("wb") as whole:
        for part in files:
            whole.write((bundle / part.path).read_bytes())
    return target


def write(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    new = path.with_name(f".{path.name}.new")
    try:
        new.write_bytes(content)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _is_there(bundle: Path, part: File) -> bool:
    path = bundle / part.path
    return path.is_file() and path.stat().st_size == part.size and listed(bundle, part.path) == part
