"""A cache on disk for what takes long to make of the files of this folder, where Python keeps its compiled code.

It is as much to be trusted as that code: who can write there can change what we do anyway. It is kept as data (`marshal`), which
runs nothing when it is read, under the digest of all that it is made of. Where Python may not write compiled code, nor do we.
"""

import marshal
import os
import secrets
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from importlib.util import cache_from_source
from pathlib import Path
from typing import TypeVar

Made = TypeVar("Made")


def compiled(digest: Callable[[], str]) -> Callable[[Callable[[], Made]], Callable[[], Made]]:
    """A decorator for a function that makes the same of the files of this folder each time: plain data, which nobody changes.

    Args:
        digest: Tells whether the files and the code are those of the last time.
    """

    def keeping(make: Callable[[], Made]) -> Callable[[], Made]:
        @wraps(make)
        def kept() -> Made:
            file = _file(make.__name__)
            if file is None:
                return make()
            with suppress(OSError, ValueError, EOFError, TypeError):  # there is none yet, or it is damaged
                made_of, made = marshal.loads(file.read_bytes())
                if made_of == digest():
                    return made
            made = make()
            if not sys.dont_write_bytecode:
                _write(file, marshal.dumps((digest(), made)))  # type: ignore[arg-type]
            return made

        return kept

    return keeping


def _file(name: str) -> Path | None:
    try:
        beside = Path(cache_from_source(str(Path(__file__).with_name("lexicon.py"))))
    except NotImplementedError:  # a Python that keeps no compiled code
        return None
    return beside.with_name(f"{beside.stem}.{name.strip('_')}")


def _write(file: Path, data: bytes) -> None:
    """Write a file whole, or not at all where that is not allowed: it is made anew then."""
    fresh = file.with_name(f"{file.name}.{secrets.token_hex(8)}")
    with suppress(OSError):
        file.parent.mkdir(exist_ok=True)
        try:
            with open(
                os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0), 0o644), "wb"
            ) as out:
                out.write(data)
            os.replace(fresh, file)
        except OSError:
            fresh.unlink(missing_ok=True)
            raise
