"""Folders that appear completely or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from crimson_core.errors import InputError


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """An empty folder that becomes `target` when the block ends, and is deleted if the block raises.

    Raises:
        InputError: `target` contains something already, or cannot be written (a full disk, say).
    """
    if target.is_symlink() or (target.exists() and not (target.is_dir() and not any(target.iterdir()))):
        raise InputError(f"output {target} exists already. Give another folder, or remove that one.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # in the same file system, for the renaming
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
            built = Path(scratch, target.name)  # has the usual permissions, unlike `scratch`
            built.mkdir()
            yield built
            os.rename(built, target)
    except (OSError, SafetensorError) as error:  # a full disk, for example
        raise InputError(
            f"output {target} cannot be written: {getattr(error, 'strerror', None) or error}. Make room, or give a folder on "
            "another disk; nothing is left of this one."
        ) from None
