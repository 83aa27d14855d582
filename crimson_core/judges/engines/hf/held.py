"""Changes to what threads share."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

# By id of the thing: threads that hold the change, and what undoes it.
_held: dict[int, tuple[int, Callable[[], None]]] = {}
_lock = Lock()


@contextmanager
def held(thing: object, change: Callable[[], Callable[[], None]]) -> Iterator[None]:
    """Hold a change to a thing: the first thread makes it, the last one puts it back.

    Args:
        thing: What is changed, in one way only.
        change: Makes the change, and returns what undoes it.
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
