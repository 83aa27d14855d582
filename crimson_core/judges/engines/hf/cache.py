"""Keys and values of the tokens that rows have read, in one arena per kind of layer; each row has a stretch of slots in each.

Rows start and end at any time: a finished row gives its slots back. Layers with a sliding window keep only what later
positions can see.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

_SPARE = 128  # extra slots for a row that must move, so that it rarely moves again


@dataclass
class Stretch:
    """Consecutive slots of an arena.

    Attributes:
        start: The first slot.
        slots: Number of slots.
        first: The position that is stored in the first slot; the next slots contain the next positions.
    """

    start: int
    slots: int
    first: int = 0


@dataclass
class RowCache:
    """Where the keys and values of one row are.

    A position has one slot in each arena; the slot of a rejected token is used again for the token in its place.

    Attributes:
        length: Number of valid positions; what is stored after them will be overwritten.
        stretches: The row's stretch in each arena.
    """

    length: int = 0
    stretches: list[Stretch] = field(default_factory=list)


class Arena:
    """Slots for the keys and values of some layers.

    Attributes:
        window: Number of positions that a position sees, including itself; None for all before it.
        store: Keys and values; shape (layers, 2, slots, key heads, head size). Slot 0 belongs to no row.
    """

    def __init__(
        self, layers: Sequence[int], heads: int, size: int, window: int | None, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.window = window
        self.store = torch.zeros(len(layers), 2, 1, heads, size, dtype=dtype, device=device)
        self._places = {layer: place for place, layer in enumerate(layers)}
        self._free: list[tuple[int, int]] = []  # from, to (exclusive), ascending

    def layer(self, number: int) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer, each (slots, heads, size)."""
        both = self.store[self._places[number]]
        return both[0], both[1]

    @property
    def slot_bytes(self) -> int:
        """Number of bytes of a slot."""
        return self.store[:, :, 0].numel() * self.store.itemsize

    @property
    def slots(self) -> int:
        """Number of slots."""
        return self.store.shape[2]

    def take(self, slots: int) -> int | None:
        """Take consecutive free slots, and return the first; None if there are not enough."""
        for place, (start, end) in enumerate(self._free):
            if end - start >= slots:
                self._free[place : place + 1] = [(start + slots, end)] if end - start > slots else []
                return start
        return None

    def give(self, start: int, slots: int) -> None:
        """Free slots."""
        gaps: list[tuple[int, int]] = []
        for low, high in sorted([*self._free, (start, start + slots)]):
            if gaps and gaps[-1][1] == low:
                gaps[-1] = gaps[-1][0], high
            else:
                gaps.append((low, high))
        self._free = gaps

    def grow(self, slots: int) -> None:
        """Add free slots at the end."""
        layers, two, before, heads, size = self.store.shape
        store = self.store.new_empty(layers, two, before + slots, heads, size)
        store[:, :, :before] = self.store
        self.store = store
        self.give(before, slots)


class Cache:
    """The arenas of a model with the sliding `windows` of its layers, for passes that write at most `chunk` positions of a row."""

    def __init__(
        self,
        windows: Sequence[int | None],
        heads: int,
        size: int,
        dtype: torch.dtype,
        device: torch.device,
        chunk: int,
    ) -> None:
        self._chunk = chunk
        kinds = sorted(set(windows), key=lambda window: window or 0)
        self.arenas = [
            Arena([n for n, one in enumerate(windows) if one == window], heads, size, window, dtype, device)
            for window in kinds
        ]
        self.arena_of = [kinds.index(window) for window in windows]
        self.rows = 0

    def row_bytes(self, tokens: int) -> int:
        """Number of bytes of a row of so many tokens."""
        return sum(self._wanted(arena, tokens) * arena.slot_bytes for arena in self.arenas)

    def lacking_bytes(self, tokens: int) -> int:
        """Number of bytes by which the arenas must grow for another row of so many tokens; 0 if they have room for it."""
        lacking = 0
        for arena in self.arenas:
            wanted = self._wanted(arena, tokens)
            start = arena.take(wanted)
            if start is None:
                lacking += wanted * arena.slot_bytes
            else:
                arena.give(start, wanted)
        return lacking

    def reserve(self, rows: int, tokens: int) -> None:
        """Make room for all rows at once, since growing copies the arenas."""
        for arena in self.arenas:
            arena.grow(rows * self._wanted(arena, tokens))

    def open(self, tokens: int) -> RowCache:
        """Make room for a row of so many tokens; arenas grow if they must."""
        row = RowCache()
        for arena in self.arenas:
            wanted = self._wanted(arena, tokens)
            row.stretches.append(Stretch(self._take(arena, wanted), wanted))
        self.rows += 1
        return row

    def close(self, row: RowCache) -> None:
        """Give a row's slots back."""
        for arena, stretch in zip(self.arenas, row.stretches, strict=True):
            arena.give(stretch.start, stretch.slots)
        row.stretches = []
        self.rows -= 1

    def make_room(self, row: RowCache, tokens: int) -> None:
        """Make room for a row's next tokens: positions that none will see again are dropped, and a row that is too long moves."""
        needed = row.length + tokens
        for arena, stretch in zip(self.arenas, row.stretches, strict=True):
            if needed - stretch.first <= stretch.slots:
                continue
            low = max(0, row.length - arena.window + 1) if arena.window else 0
            kept = slice(stretch.start + low - stretch.first, stretch.start + row.length - stretch.first)
            values = arena.store[:, :, kept].clone()
            if needed - low > stretch.slots:
                slots = needed - low + max(_SPARE, (needed - low) // 4)
                arena.give(stretch.start, stretch.slots)  # first, so that a row may grow into what is free behind it
                stretch.start, stretch.slots = self._take(arena, slots), slots
            stretch.first = low
            arena.store[:, :, stretch.start : stretch.start + row.length - low] = values

    def copy_start(self, row: RowCache, other: RowCache, length: int) -> bool:
        """Copy the first positions of another row with the same tokens; False if that row has dropped some of them."""
        pairs = list(zip(self.arenas, row.stretches, other.stretches, strict=True))
        if any(theirs.first or length > ours.slots for _, ours, theirs in pairs):
            return False
        for arena, ours, theirs in pairs:
            arena.store[:, :, ours.start : ours.start + length] = arena.store[
                :, :, theirs.start : theirs.start + length
            ]
        row.length = length
        return True

    def _wanted(self, arena: Arena, tokens: int) -> int:
        return min(tokens, arena.window + self._chunk) if arena.window else tokens

    def _take(self, arena: Arena, slots: int) -> int:
        start = arena.take(slots)
        if start is None:
            arena.grow(slots)
            return self._take(arena, slots)
        return start
