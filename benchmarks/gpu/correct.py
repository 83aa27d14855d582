"""Compares the outputs of the hf judge on a GPU with those of `generate`: `python -m benchmarks.gpu.correct --judge hf:<folder>`.

In float32 and bfloat16, with made-up pairs and with forged reports; then with memory that really runs out. Figures that are in
the output file are not measured again.
"""

import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
import typer

from benchmarks.common import console, run, table
from benchmarks.exactness import compare, made_up_pairs, outputs
from benchmarks.forged import FORGED
from benchmarks.gpu.causes import attention_errors, product_errors, same_outputs
from benchmarks.gpu.common import Results, cuda_or_cpu, random_model
from crimson_core import ReportPair, load_judge
from crimson_core.errors import InputError
from crimson_core.judges.engines.hf import HFEngine, judge_in_memory
from crimson_core.judges.engines.hf.cache import Cache
from crimson_core.judges.engines.hf.packed import PackedModel, Span
from crimson_core.judges.model import ModelJudge

_LONG = 5000  # characters of a forged report; with `generate` a longer one would make a batch of as long rows
_CHUNK = 100  # tokens of a row in a pass, at most
_FEW = 24  # pairs, for runs that leave one thing out each
_SPARE = 2**30  # bytes beside the weights: the caches of some rows, not of all


def main(
    judge: Annotated[str, typer.Option("--judge", "-j", help="Judge spec: hf:<Hub id or folder>.")],
    output: Annotated[Path, typer.Option(help="JSON file of the figures; what is in it is not measured again.")],
    n_pairs: Annotated[int, typer.Option("--pairs", min=2, help="Made-up report pairs.")] = 60,
    most_words: Annotated[int, typer.Option(min=6, help="Words of the longest reports.")] = 600,
    batch_size: Annotated[list[int] | None, typer.Option(min=1, help="[default: 8, 60]")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Outputs are compared as far as that.")] = 256,
    device: Annotated[str | None, typer.Option(help="[default: cuda]")] = None,
) -> None:
    """Compare drafts with `generate` on a GPU, pair by pair."""
    where = cuda_or_cpu(device)
    results = Results(output)
    pairs = made_up_pairs(n_pairs, most_words=most_words)
    sizes = batch_size or [8, 60]
    options = {"max_new_tokens": max_new_tokens, "device": str(where)}
    forged = [
        ReportPair(*both) for text in FORGED if len(text) < _LONG for both in ((text, "Clear."), ("Clear.", text))
    ]
    ready: dict[str, Judges] = {}

    def judges(dtype: str) -> Judges:
        if dtype not in ready:
            ready.clear()
            ready[dtype] = _judges(judge, dtype, options)
        return ready[dtype]

    results.once("packed passes, bfloat16", lambda: _packed_passes(where, torch.bfloat16, torch.float32))
    results.once("packed passes, float32", lambda: _packed_passes(where, torch.float32, torch.float64, head_dim=256))
    results.once("attention, float32", lambda: attention_errors(where))
    results.once("matrix products, float32", lambda: product_errors(judges("float32").plain.engine.model))
    results.once("one thing left out, float32", lambda: same_outputs(*judges("float32"), pairs[:_FEW], sizes[0]))
    results.once("made-up pairs, float32", lambda: _against_generate(judges("float32"), pairs, sizes))
    results.once("forged reports, float32", lambda: _against_generate(judges("float32"), forged, sizes[-1:]))
    if where.type == "cuda":
        results.once("memory runs out", lambda: _out_of_memory(judges("float32").drafts, pairs))
    results.once("made-up pairs, bfloat16", lambda: _against_generate(judges("bfloat16"), pairs, sizes))
    _show(results.figures)


@torch.no_grad()
def _packed_passes(
    device: torch.device, dtype: torch.dtype, longer: torch.dtype, head_dim: int = 64
) -> dict[str, float]:
    """Relative errors of a random model's passes against a longer type: packed passes, recorded ones, those of Transformers.

    Rows of very unequal length share passes, come and go, and outgrow their slots, prompts longer than the window among them.
    """
    shape = {
        "hidden_size": 256,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": head_dim,
        "sliding_window": 64,
    }
    model = random_model("tiny", device, dtype, vocab_size=3000, **shape)
    exact = random_model("tiny", device, longer, vocab_size=3000, **shape)
    exact.load_state_dict(model.state_dict())
    rng = random.Random(0)
    texts = [[rng.randrange(3000) for _ in range(n)] for n in (300, 1, 40, 90, 700, 33, 120)]
    packed = PackedModel(model)
    cache = packed.cache(_CHUNK)
    found = {
        "packed": _in_packed_passes(packed, cache, texts),
        "transformers": [
            model.model(input_ids=torch.tensor([text], device=device)).last_hidden_state[0] for text in texts
        ],
    }
    packed.record()
    for _ in range(3):  # at first shapes are new, then passes are recorded, and at last nothing but repeated
        found["recorded"] = _in_packed_passes(packed, cache, texts)
    errors: dict[str, float] = defaultdict(float)
    for n, text in enumerate(texts):
        right = exact.model(input_ids=torch.tensor([text], device=device)).last_hidden_state[0]
        for name, hidden in found.items():
            errors[name] = max(errors[name], float((hidden[n].to(longer) - right).norm() / right.norm()))
    return dict(errors)


def _in_packed_passes(packed: PackedModel, cache: Cache, texts: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """The last hidden states of each text."""
    rng = random.Random(1)
    waiting, rows = list(range(len(texts))), {}
    got: list[list[torch.Tensor]] = [[] for _ in texts]
    while waiting or rows:
        while waiting and len(rows) < 4:
            rows[waiting.pop(0)] = cache.open(rng.randrange(1, _CHUNK))
        spans = [Span(row, texts[n][row.length :][: rng.randrange(1, _CHUNK)]) for n, row in rows.items()]
        for span in spans:
            cache.make_room(span.cache, len(span.tokens))
        with packed.attention():
            hidden = packed.hidden_states(cache, spans).clone()
        place = 0
        for n, span in zip(list(rows), spans, strict=True):
            got[n].append(hidden[place : place + len(span.tokens)])
            place += len(span.tokens)
            span.cache.length += len(span.tokens)
            if span.cache.length == len(texts[n]):
                cache.close(rows.pop(n))
    return [torch.cat(parts) for parts in got]


class Judges(NamedTuple):
    """A checkpoint with `generate`, and with drafts; the layers of the second may be compiled."""

    plain: ModelJudge
    drafts: ModelJudge


def _judges(judge: str, dtype: str, options: dict[str, Any]) -> Judges:
    drafts = load_judge(judge, dtype=dtype, decoding="drafts", **options)
    if not isinstance(getattr(drafts, "engine", None), HFEngine):
        raise InputError(f"--judge {judge}: only hf judges decode here. Give hf:<Hub id or folder>.")
    other = load_judge(judge, dtype=dtype, constrained=False, decoding="plain", **options)
    plain = judge_in_memory(
        other.engine.model,
        drafts.engine.codec.tokenizer,
        name="generate",
        prompt=drafts.prompt,
        decoding="plain",
        batch_size=64,
        max_new_tokens=options["max_new_tokens"],
    )
    return Judges(plain, drafts)


def _against_generate(judges: Judges, pairs: Sequence[ReportPair], sizes: Sequence[int]) -> dict[str, Any]:
    """For each batch size, the number of equal outputs, and the margins of the tokens in which the others differ."""
    return {"signature": judges.drafts.signature(), "rows": compare(*judges, pairs, sizes)}


def _out_of_memory(made: ModelJudge, pairs: Sequence[ReportPair]) -> dict[str, Any]:
    """Compare outputs with little more memory than the weights take with outputs with enough memory."""
    made.engine.batch_size = len(pairs)
    expected = outputs(made, pairs)
    device = made.engine.model.device
    torch.cuda.empty_cache()
    whole = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated() + _SPARE) / whole)
    try:
        got = outputs(made, pairs)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    return {
        "pairs": len(pairs),
        "same": sum(one == other for one, other in zip(got, expected, strict=True)),
        "batch_size_before": len(pairs),
        "batch_size_after": made.engine.batch_size,
    }


def _show(figures: dict[str, Any]) -> None:
    made = table(
        "On a GPU against generate", ("", "batch size", "pairs", "same output", "largest margin of the others")
    )
    for name, found in figures.items():
        for row in found.get("rows", ()):
            widest = f"{max(row['margins']):.2g}" if row["margins"] else "–"
            made.add_row(name, str(row["batch_size"]), str(row["pairs"]), str(row["same"]), widest)
    console.print(made)
    for dtype, longer in (("bfloat16", "float32"), ("float32", "float64")):
        errors = figures[f"packed passes, {dtype}"]
        console.print(
            f"Hidden states in {dtype}, largest relative error against {longer}: packed {errors['packed']:.2g}, "
            f"recorded {errors['recorded']:.2g}, Transformers' own {errors['transformers']:.2g}."
        )
    for name in ("attention, float32", "matrix products, float32"):
        made = table(f"{name}: largest relative error against float64", ("", "error", "with"))
        for way, found in figures[name].items():
            made.add_row(
                way, f"{found['error']:.2g}", ", ".join(f"{key} {value}" for key, value in [*found.items()][1:])
            )
        console.print(made)
    made = table("Drafts in float32 with one thing left out", ("", "same as generate"))
    for name, same in figures["one thing left out, float32"].items():
        made.add_row(name, str(same))
    console.print(made)
    if found := figures.get("memory runs out"):
        console.print(
            f"Memory ran out: batch size {found['batch_size_before']} became {found['batch_size_after']}, and "
            f"{found['same']} of {found['pairs']} outputs are the same."
        )


if __name__ == "__main__":
    run(main)
