"""Keys and values of what a row has read, one row apart from the others, so that rows come and go at any time."""

from typing import NamedTuple

from torch import Tensor

_SPARE = 128  # slots that are added beyond need, so that a row rarely has to move


class _Slots(NamedTuple):
    """Of one layer; slot i holds position `first + i`. Tensors of (heads, slots, head size)."""

    keys: Tensor
    values: Tensor
    first: int


class RowCache:
    """The keys and values of one row, by layer and position.

    A position has one slot, and a token that is rejected leaves its slot to the token that is written in its place.
    Layers with a sliding window drop what no later position can see.

    Attributes:
        length: How many positions count; what is stored behind them is to be overwritten.
    """

    def __init__(self) -> None:
        self.length = 0
        self._layers: dict[int, _Slots] = {}

    def write(self, layer: int, keys: Tensor, values: Tensor, window: int | None = None) -> tuple[Tensor, Tensor, int]:
        """Put the next positions, from `length` on, into a layer, without counting them yet.

        Args:
            layer: Its number.
            keys: (heads, new positions, head size).
            values: Likewise.
            window: Positions that a position of this layer sees, itself included; None for all before it.

        Returns:
            Keys and values of every position that one of the new ones sees, and the first of these positions.
        """
        end = self.length + keys.shape[1]
        low = max(0, self.length - window + 1) if window else 0
        slots = self._layers.get(layer)
        if slots is None or end - slots.first > slots.keys.shape[1]:
            slots = self._layers[layer] = _moved(slots, low, self.length, end, keys, values)
        new = slice(self.length - slots.first, end - slots.first)
        slots.keys[:, new], slots.values[:, new] = keys, values
        seen = slice(low - slots.first, new.stop)
        return slots.keys[:, seen], slots.values[:, seen], low

    def copy_start(self, other: "RowCache", length: int) -> bool:
        """Take over the first `length` positions of another row with the same tokens there; False if it has dropped some."""
        if any(slots.first for slots in other._layers.values()):
            return False
        self._layers = {
            layer: _moved(slots, 0, length, length, slots.keys, slots.values) for layer, slots in other._layers.items()
        }
        self.length = length
        return True


def _moved(old: _Slots | None, low: int, length: int, end: int, keys: Tensor, values: Tensor) -> _Slots:
    """Room for positions up to `end`, holding those from `low` to `length` of the old slots."""
    slots = end - low + max(_SPARE, (end - low) // 4)
    # Zeros, since what a mask hides is multiplied by zero, and memory as it comes may hold infinities.
    new = _Slots(
        keys.new_zeros(keys.shape[0], slots, keys.shape[2]),
        values.new_zeros(values.shape[0], slots, values.shape[2]),
        low,
    )
    if old is not None:
        kept = slice(low - old.first, length - old.first)
        new.keys[:, : length - low], new.values[:, : length - low] = old.keys[:, kept], old.values[:, kept]
    return new
