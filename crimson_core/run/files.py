"""Files that are written whole or not at all."""

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from crimson_core.errors import InputError


@contextmanager
def written_whole(path: Path, *, binary: bool = False, private: bool = False) -> Iterator[IO[Any]]:
    """A file to write, which takes the place of `path` when the block ends and is gone when it raises.

    Until then it stands beside it under a name that nobody can know, made afresh, so that no link is followed and no file of
    another run is touched. A file that is replaced hands on its mode; where `path` is a link, its target is replaced.

    Args:
        path: Where the whole file shall be.
        binary: Whether bytes are written, and not UTF-8 text.
        private: Whether a new file can be read by its owner only.

    Raises:
        OSError: It cannot be written.
    """
    target = path.resolve()
    if target.exists() and not target.is_file():
        raise OSError(errno.EINVAL, "it is no ordinary file", str(target))
    fresh = target.with_name(f".{target.name[:80]}.{secrets.token_hex(8)}")
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(fresh, flags, 0o600 if private else 0o666)
    try:
        # a subgroup or a name from JSON may hold half a surrogate pair, which has no UTF-8
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


def check_writable(output: Path) -> None:
    """Refuse an output that could not be written in the end, before anything is judged.

    Raises:
        InputError: It, or its folder, is none that can be written.
    """
    folder = output.resolve().parent
    if not folder.is_dir():
        raise InputError(f"output {output} cannot be written: its folder is not there. Make it, or give another path.")
    if output.exists() and not output.is_file():
        raise InputError(f"output {output} is no ordinary file. Give the path of a file.")
    if not os.access(folder, os.W_OK) or (output.exists() and not os.access(output, os.W_OK)):
        raise InputError(f"output {output} cannot be written: there is no permission. Give another path.")


def opened_private(path: Path) -> IO[str]:
    """A text file for report text, opened to be read and added to; a new one can be read by its owner only.

    Raises:
        OSError: It cannot be opened, or is a link or somebody else's, who may have put it there to be written to.
    """
    flags = os.O_CREAT | os.O_RDWR | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(path, flags, 0o600)
    about = os.fstat(descriptor)
    if not stat.S_ISREG(about.st_mode) or (hasattr(os, "getuid") and about.st_uid != os.getuid()):
        os.close(descriptor)
        raise OSError(errno.EPERM, "it is no ordinary file of yours", str(path))
    return os.fdopen(descriptor, "a+", encoding="utf-8", newline="\n")
