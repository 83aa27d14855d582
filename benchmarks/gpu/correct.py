"""Whether the hf judge writes on a GPU what `generate` writes: `python -m benchmarks.gpu.correct --judge hf:<folder>`.

In float32 and bfloat16, with made-up pairs and with forged reports; then with memory that really runs out. Figures that are in
the output file are not measured again.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks.common import console, run, table
from benchmarks.exactness import compare, made_up_pairs, outputs
from benchmarks.forged import FORGED
from benchmarks.gpu.common import Results, cuda_or_cpu
from crimson_core import ReportPair, load_judge
from crimson_core.judges.hf import HFJudge

_DTYPES = ("float32", "bfloat16")


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
    for dtype in _DTYPES:
        results.once(
            f"made-up pairs, {dtype}", lambda dtype=dtype: _against_generate(judge, pairs, sizes, dtype, options)
        )
    forged = [ReportPair(text, "Clear.") for text in FORGED] + [ReportPair("Clear.", text) for text in FORGED]
    results.once("forged reports, float32", lambda: _against_generate(judge, forged, sizes[-1:], "float32", options))
    if where.type == "cuda":
        results.once("memory runs out", lambda: _out_of_memory(judge, pairs, options))
    _show(results.figures)


def _against_generate(
    judge: str, pairs: Sequence[ReportPair], sizes: Sequence[int], dtype: str, options: dict[str, Any]
) -> dict[str, Any]:
    """For each batch size the share of same outputs and evaluations, and the margins of the tokens in which others differ."""
    plain = load_judge(judge, decoding="plain", dtype=dtype, batch_size=32, **options)
    if not isinstance(plain, HFJudge):
        raise TypeError(f"{judge} is no hf judge")
    drafts = load_judge(judge, decoding="drafts", dtype=dtype, **options)
    return {"signature": drafts.signature(), "rows": compare(plain, drafts, pairs, sizes)}


def _out_of_memory(judge: str, pairs: Sequence[ReportPair], options: dict[str, Any]) -> dict[str, Any]:
    """The outputs of a judge that is given little more memory than its weights take, beside those with plenty of it."""
    made = load_judge(judge, dtype="float32", batch_size=len(pairs), **options)
    expected = outputs(made, pairs)
    device = made._model.device
    torch.cuda.empty_cache()
    whole = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, torch.cuda.memory_allocated() / whole + 1.2 * 2**30 / whole))
    try:
        made.batch_size = len(pairs)
        got = outputs(made, pairs)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    return {
        "pairs": len(pairs),
        "same": sum(one == other for one, other in zip(got, expected, strict=True)),
        "batch_size_before": len(pairs),
        "batch_size_after": made.batch_size,
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
    if found := figures.get("memory runs out"):
        console.print(
            f"Memory ran out: batch size {found['batch_size_before']} became {found['batch_size_after']}, and "
            f"{found['same']} of {found['pairs']} outputs are the same."
        )


if __name__ == "__main__":
    run(main)
