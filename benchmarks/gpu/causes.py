"""Looks for the reason why drafts give other outputs in float32 on a GPU.

Compares parts of a pass with float64, and runs drafts with one thing changed at a time.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.exactness import outputs
from crimson_core import ReportPair
from crimson_core.judges.engines.hf import packed
from crimson_core.judges.engines.hf.cache import Cache, RowCache
from crimson_core.judges.engines.hf.packed import PackedModel, Span
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
    """For each way, the largest relative error, and the queries, positions and window where it occurs; NaN if slots of others count."""
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
    """For each shape of linear layers, the largest relative error of its products, and the number of positions where it occurs."""
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


class _Waiting(PackedModel):
    """Waits for the device after each pass."""

    def hidden_states(self, cache: Cache, spans: Sequence[Span]) -> Tensor:
        hidden = super().hidden_states(cache, spans)
        if hidden.is_cuda:
            torch.cuda.synchronize()
        return hidden


class _NothingShared(PackedModel):
    """Copies no start of a prompt from another row."""

    def cache(self, chunk: int) -> Cache:
        made = super().cache(chunk)
        made.copy_start = lambda *_: False
        return made


class _NothingUsedAgain(PackedModel):
    """Never uses the slots of a finished row again."""

    def cache(self, chunk: int) -> Cache:
        made = super().cache(chunk)

        def close(row: RowCache) -> None:
            row.stretches = []
            made.rows -= 1

        made.close = close
        return made


class _BySDPA(PackedModel):
    """Lets torch choose the attention kernel."""

    attend_in_turn = staticmethod(_sdpa)


# What each run changes: the class that computes passes, and settings of the pace.
_RUNS: dict[str, tuple[type[PackedModel], dict[str, Any]]] = {
    "as it is": (PackedModel, {}),
    "waiting after each pass": (_Waiting, {}),
    "without drafts": (PackedModel, {"costs": (0, 0)}),  # a guess saves nothing then, so that none is made
    "without shared starts": (_NothingShared, {}),
    "slots never used again": (_NothingUsedAgain, {}),
    "one crew": (PackedModel, {"crews": 1}),
    "grammar first": (PackedModel, {"allowed_first": True, "crews": 1}),
    "attention by SDPA": (_BySDPA, {}),
}


def same_outputs(plain: ModelJudge, drafts: ModelJudge, pairs: Sequence[ReportPair], batch_size: int) -> dict[str, int]:
    """For each run, the number of outputs that equal those of `generate`."""
    expected, same = outputs(plain, pairs), {}
    for name, (passes, pace) in _RUNS.items():
        engine = replace(drafts.engine, packed=passes(drafts.engine.model), batch_size=batch_size)
        engine.pace = engine.pace._replace(**pace)
        got = outputs(ModelJudge(engine, drafts.prompt), pairs)
        same[name] = sum(one == other for one, other in zip(got, expected, strict=True))
    return same
