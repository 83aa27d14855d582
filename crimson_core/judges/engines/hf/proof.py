"""Whether packed passes say on this device what the model's own passes say: a few rows are tried before the first pair.

What packed passes rest on, kernels and the memory that they are given, is another on every device, and a fault in it would be a
wrong answer that looks like any other.
"""

import random
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from crimson_core.judges.engines.hf.cache import Cache, RowCache
from crimson_core.judges.engines.hf.packed import PackedModel, Span

# In bfloat16 some of the likeliest tokens behind random text differ, since many are about as likely. Where positions are mixed up
# or see too much, most differ (`tests/judges/test_proof.py` has such faults).
LEAST = 0.6
_CHUNK = 256  # tokens that a row reads in a pass
_WRITTEN, _STEP = 64, 4  # the last tokens of the longer text, and how many of them a pass takes
_GUESSES = 20  # behind them, which are taken back
_BEYOND = 100  # tokens of the longer text beyond all that layers with a window keep
_SHARED, _OWN = 200, 100  # tokens that the shorter text has in common with the longer one, and its others


def needs_proof(model: PreTrainedModel) -> bool:
    """Whether packed passes are tried first: on a CPU the tests have done so."""
    return bool(model.device.type != "cpu")


class Proof:
    """Two texts, and the tokens that the model's own passes find likeliest behind each of their tokens.

    Args:
        model: The model, not compiled yet, since its own passes would be compiled too.
        packed: The same, for packed passes.
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
        """The share of likeliest tokens that are the same in packed passes: in reading, writing or a shared start, the least.

        The rows do what those of a run do: they read in chunks, take slots that others had, share a start, and write behind
        guesses that are taken back.
        """
        long, short = self._texts
        cache = packed.cache(_CHUNK)
        same: dict[str, list[Tensor]] = defaultdict(list)

        def read(*rows: tuple[str, int, RowCache, int]) -> None:
            spans = [Span(row, self._texts[n][row.length :][:most]) for _, n, row, most in rows]
            said = _read(packed, cache, spans)
            for (kind, n, row, _), span, likeliest in zip(rows, spans, said, strict=True):
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
    """The likeliest token behind each token of each row, which has guesses behind them in the same pass."""
    longer = [Span(span.cache, [*span.tokens, *[0] * _GUESSES]) for span in spans]
    for span in longer:
        cache.make_room(span.cache, len(span.tokens))
    with packed.attention():
        hidden = packed.hidden_states(cache, longer)
        said, place = [], 0
        for span in spans:
            said.append(_likeliest(packed, hidden[place : place + len(span.tokens)]))
            place += len(span.tokens) + _GUESSES
            span.cache.length += len(span.tokens)
    return said


def _likeliest(packed: PackedModel, hidden: Tensor) -> Tensor:
    """The likeliest token of each place, some places at a time, since the output layer takes much memory."""
    return torch.cat([packed.logits(part).argmax(-1) for part in hidden.split(_CHUNK)])
