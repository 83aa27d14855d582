"""Output files that are written completely or not at all, and lines of JSON."""

import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from crimson_core.errors import InputError


def without_links(path: Path) -> Path:
    """The absolute path; one that leads in a circle stays as it is, and cannot be opened (`resolve` raises before Python 3.13)."""
    return Path(os.path.realpath(path))


@contextmanager
def written_whole(path: Path, *, binary: bool = False, private: bool = False) -> Iterator[IO[Any]]:
    """Open a file that replaces `path` when the block ends, and is deleted if the block raises.

    Until then it has a new, random name beside `path`, so that it follows no link and touches no file of another run.
    The mode of a replaced file is kept; if `path` is a link, its target is replaced.

    Args:
        path: The final path.
        binary: Write bytes instead of UTF-8 text.
        private: Make a new file readable by its owner only.

    Raises:
        OSError: The file cannot be written.
    """
    target = without_links(path)
    if _is_no_file(path):
        raise OSError(errno.EINVAL, "it is not a regular file", str(target))
    fresh = target.with_name(f".{target.name[:80]}.{secrets.token_hex(8)}")
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(fresh, flags, 0o600 if private else 0o666)
    try:
        # a subgroup or a name from JSON may contain a lone surrogate, which UTF-8 cannot encode
        text: dict[str, Any] = {"encoding": "utf-8", "errors": "backslashreplace", "newline": "\n"}
        with os.fdopen(descriptor, "wb") if binary else os.fdopen(descriptor, "w", **text) as file:
            yield file
            file.flush()
            os.fsync(descriptor)
        if target.exists():
            shutil.copymode(target, fresh)
        os.replace(fresh, target)
    except BaseException:
        with suppress(FileNotFoundError):
            fresh.unlink()
        raise


def json_line(record: Mapping[str, Any]) -> str:
    """A record as a line of JSON."""
    return json.dumps(record, ensure_ascii=False) + "\n"


def check_writable(output: Path) -> None:
    """Check before a run that its output can be written.

    Raises:
        InputError: The file or its folder cannot be written.
    """
    folder = without_links(output).parent
    if not folder.is_dir():
        raise InputError(
            f"output {output} cannot be written: its folder does not exist. Create it, or give another path."
        )
    if _is_no_file(output):
        raise InputError(f"output {output} is not a regular file. Give the path of a file.")
    if not os.access(folder, os.W_OK) or (output.exists() and not os.access(output, os.W_OK)):
        raise InputError(f"output {output} cannot be written: there is no permission. Give another path.")


def _is_no_file(path: Path) -> bool:
    """Whether something else than a file is there, such as a pipe or a link that leads in a circle."""
    return (path.exists() and not path.is_file()) or without_links(path).is_symlink()


def check_no_partial(partial: Path) -> None:
    """Check that no earlier run without a store has left its results where this one would put its own.

    Raises:
        InputError: They are there.
    """
    if os.path.lexists(partial):
        raise InputError(
            f"{partial} contains the results of an interrupted run, or of one that still runs. Move it away or delete it, "
            "then run again."
        )
