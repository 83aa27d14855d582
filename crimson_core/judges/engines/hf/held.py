"""Temporary changes to an object that threads share."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

# By id of the object: number of threads that need the change, and a function that undoes it.
_held: dict[int, tuple[int, Callable[[], None]]] = {}
_lock = Lock()


@contextmanager
def held(thing: object, change: Callable[[], Callable[[], None]]) -> Iterator[None]:
    """Change an object during the block: the first thread makes the change, the last one undoes it.

    Args:
        thing: The object. All threads must make the same change.
        change: Makes the change, and returns a function that undoes it.
    """
    with _lock:
        users, undo = _held.get(id(thing)) or (0, change())
        _held[id(thing)] = users + 1, undo
    try:
        yield
    finally:
        with _lock:
            users, undo = _held.pop(id(thing))
            if users > 1:
                _held[id(thing)] = users - 1, undo
            else:
                undo()
