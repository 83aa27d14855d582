"""Why drafts write something else in float32 on a GPU: parts of a pass against float64, and runs that leave one thing out each."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.exactness import outputs
from crimson_core import ReportPair
from crimson_core.judges.engines.hf import decoding, packed
from crimson_core.judges.engines.hf.cache import Cache
from crimson_core.judges.engines.hf.drafts import Guesses
from crimson_core.judges.model import ModelJudge

_QUERIES = (1, 2, 7, 16, 31, 32, 33, 34, 64, 65, 127, 300)
_BEFORE = (0, 1, 99, 300, 511, 777)  # positions that a row has read
_HEADS, _SIZE, _WINDOW = 4, 256, 512  # of Gemma 3 270M, which has one key head
_AROUND = 200  # slots of other rows before and behind a row's
_POSITIONS = (*range(1, 140), 191, 192, 250, 256, 320, 500, 512, 1000, 2000)

# Ways to compute attention, from queries, keys, values and a mask.
Attention = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


def _sdpa(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any) -> Tensor:
    return scaled_dot_product_attention(query, key, value, mask, **options)


_WAYS: dict[str, Attention] = {
    "the judge's": packed.attend_in_turn,
    "SDPA": _sdpa,
    "SDPA, contiguous": lambda *all: _sdpa(*(one if one is None else one.contiguous() for one in all)),
    "SDPA, boolean mask": lambda q, k, v, mask: _sdpa(q, k, v, None if mask is None else mask == 0),
}


@torch.no_grad()
def attention_errors(device: torch.device) -> dict[str, dict[str, Any]]:
    """For each way the largest relative error, and the queries, read positions and window of that; NaN if others' slots count."""
    torch.manual_seed(0)
    worst = {name: {"error": -1.0} for name in _WAYS}
    for queries in _QUERIES:
        for before in _BEFORE:
            for window in (None, _WINDOW):
                low = max(0, before - window + 1) if window else 0
                seen = before + queries - low
                store = torch.full((2, seen + 2 * _AROUND, 1, _SIZE), torch.nan, device=device)
                store[:, _AROUND : _AROUND + seen] = torch.randn(2, seen, 1, _SIZE, device=device)
                key, value = (
                    one[_AROUND : _AROUND + seen].transpose(0, 1)[:, None].expand(-1, _HEADS, -1, -1) for one in store
                )
                query = torch.randn(queries, _HEADS, _SIZE, device=device).transpose(0, 1)[None]
                distance = torch.arange(before, before + queries, device=device)[:, None] - torch.arange(
                    low, before + queries, device=device
                )
                hidden = (distance < 0) | (distance >= (window or before + queries))
                mask = torch.zeros_like(distance, dtype=query.dtype).masked_fill_(hidden, -torch.inf)
                scores = query.double() @ key.double().transpose(-1, -2) / _SIZE**0.5 + mask
                right = scores.softmax(-1) @ value.double()
                for name, attend in _WAYS.items():
                    got = attend(query, key, value, mask if queries > 1 else None).double()
                    error = float((got - right).norm() / right.norm())
                    if not error <= worst[name]["error"]:  # NaN is the worst
                        worst[name] = {"error": error, "queries": queries, "before": before, "window": window}
    return worst


@torch.no_grad()
def product_errors(model: nn.Module) -> dict[str, dict[str, Any]]:
    """For each shape of linear layers the largest relative error of its products, and the number of positions of that."""
    worst: dict[str, dict[str, Any]] = {}
    for layer in model.modules():
        if isinstance(layer, nn.Linear) and (shape := f"{layer.in_features} x {layer.out_features}") not in worst:
            exact, worst[shape] = layer.weight.double(), {"error": -1.0}
            for n in _POSITIONS:
                x = torch.randn(n, layer.in_features, device=exact.device)
                right = x.double() @ exact.T
                error = float((layer(x).double() - right).norm() / right.norm())
                if not error <= worst[shape]["error"]:
                    worst[shape] = {"error": error, "positions": n}
    return worst


def _waiting_after_each_pass() -> AbstractContextManager[Any]:
    forward = packed.PackedModel.hidden_states

    def waited(*args: Any) -> Tensor:
        hidden = forward(*args)
        if hidden.is_cuda:
            torch.cuda.synchronize()
        return hidden

    return patch.object(packed.PackedModel, "hidden_states", waited)


def _slots_never_used_again() -> AbstractContextManager[Any]:
    def close(cache: Cache, row: Any) -> None:
        row.stretches = []
        cache.rows -= 1

    return patch.object(Cache, "close", close)


@contextmanager
def _pace(**changes: Any) -> Iterator[None]:
    with (
        patch.object(decoding, "CUDA_PACE", decoding.CUDA_PACE._replace(**changes)),
        patch.object(decoding, "CPU_PACE", decoding.CPU_PACE._replace(**changes)),
    ):
        yield


_RUNS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "as it is": nullcontext,
    "waiting after each pass": _waiting_after_each_pass,
    "without drafts": lambda: patch.object(Guesses, "all", lambda *_: []),
    "without shared starts": lambda: patch.object(Cache, "copy_start", lambda *_: False),
    "slots never used again": _slots_never_used_again,
    "one crew": lambda: _pace(crews=1),
    "grammar first": lambda: _pace(allowed_first=True, crews=1),
    "attention by SDPA": lambda: patch.object(packed, "attend_in_turn", _sdpa),
}


def same_outputs(plain: ModelJudge, drafts: ModelJudge, pairs: Sequence[ReportPair], batch_size: int) -> dict[str, int]:
    """For each run how many outputs are those of `generate`."""
    expected, same = outputs(plain, pairs), {}
    for name, change in _RUNS.items():
        drafts.engine.batch_size = batch_size
        with change():
            got = outputs(drafts, pairs)
        same[name] = sum(one == other for one, other in zip(got, expected, strict=True))
    return same
