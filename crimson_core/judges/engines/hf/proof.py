"""Tests on a few rows, before the first pair, that packed passes give the same tokens as the model's own passes.

Packed passes depend on the device's kernels and memory. A fault there would give wrong outputs that look like any other.
"""

import random
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from crimson_core.judges.engines.hf.cache import Cache, RowCache
from crimson_core.judges.engines.hf.packed import PackedModel, Span

# In bfloat16, some of the likeliest tokens after random text differ, since many are about equally likely. If positions are mixed
# up or see too much, most differ (`tests/judges/test_proof.py` has such faults).
LEAST = 0.6
_CHUNK = 256  # tokens that a row reads in a pass
_WRITTEN, _STEP = 64, 4  # last tokens of the longer text, which are read like output, and how many of them a pass reads
_GUESSES = 20  # wrong guesses after them
_BEYOND = 100  # tokens by which the longer text exceeds what layers with a window keep
_SHARED, _OWN = 200, 100  # tokens that the shorter text has in common with the longer one, and the rest of it


def needs_proof(model: PreTrainedModel) -> bool:
    """Whether packed passes must be tested; on a CPU, the project's tests have done so."""
    return bool(model.device.type != "cpu")


class Proof:
    """Two texts, and the likeliest token after each of their tokens in the model's own passes.

    The model must not be compiled yet, since its own passes would be compiled too.
    """

    @torch.no_grad()
    def __init__(self, model: PreTrainedModel, packed: PackedModel) -> None:
        rng = random.Random(0)
        window = getattr(model.config, "sliding_window", None) or 0

        def tokens(n: int) -> list[int]:
            return [rng.randrange(model.config.vocab_size) for _ in range(n)]

        long = tokens(window + 2 * _CHUNK + _BEYOND)
        self._texts = long, long[:_SHARED] + tokens(_OWN)
        self._expected = []
        for text in self._texts:
            hidden = model.model(input_ids=torch.tensor([text], device=model.device), use_cache=False)
            self._expected.append(_likeliest(packed, hidden.last_hidden_state[0]))

    @torch.no_grad()
    def agreement(self, packed: PackedModel) -> float:
        """The share of these tokens that packed passes find too; the lowest of the shares for reading, writing and a shared start.

        The rows do what the rows of a run do: read in chunks, use slots that others had, share a start, and write after wrong
        guesses.
        """
        long, short = self._texts
        cache = packed.cache(_CHUNK)
        same: dict[str, list[Tensor]] = defaultdict(list)

        def read(*rows: tuple[str, int, RowCache, int]) -> None:
            spans = [Span(row, self._texts[n][row.length :][:most]) for _, n, row, most in rows]
            found = _read(packed, cache, spans)
            for (kind, n, row, _), span, likeliest in zip(rows, spans, found, strict=True):
                same[kind].append(likeliest == self._expected[n][row.length - len(span.tokens) : row.length])

        gone = cache.open(_CHUNK)
        _read(packed, cache, [Span(gone, short[::-1])])
        cache.close(gone)
        first, second = cache.open(len(long)), cache.open(len(short))
        read(("reading", 0, first, _CHUNK))
        cache.copy_start(second, first, _SHARED)
        read(("reading", 0, first, _CHUNK), ("sharing", 1, second, len(short)))
        while first.length < len(long) - _WRITTEN:
            read(("reading", 0, first, min(_CHUNK, len(long) - _WRITTEN - first.length)))
        while first.length < len(long):
            read(("writing", 0, first, _STEP))
        return min(float(torch.cat(parts).float().mean()) for parts in same.values())


def _read(packed: PackedModel, cache: Cache, spans: Sequence[Span]) -> list[Tensor]:
    """The likeliest token after each token of each row, from a pass that also has guesses after them."""
    longer = [Span(span.cache, [*span.tokens, *[0] * _GUESSES]) for span in spans]
    for span in longer:
        cache.make_room(span.cache, len(span.tokens))
    with packed.attention():
        hidden = packed.hidden_states(cache, longer)
        found, place = [], 0
        for span in spans:
            found.append(_likeliest(packed, hidden[place : place + len(span.tokens)]))
            place += len(span.tokens) + _GUESSES
            span.cache.length += len(span.tokens)
    return found


def _likeliest(packed: PackedModel, hidden: Tensor) -> Tensor:
    """The likeliest token at each place, some places at a time, since the output layer takes much memory."""
    return torch.cat([packed.logits(part).argmax(-1) for part in hidden.split(_CHUNK)])
