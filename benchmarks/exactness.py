"""Does decoding with drafts give the output of `generate`? Run `python -m benchmarks.exactness --judge hf:<folder>`.

Both judge made-up report pairs, with reports of 0 to 600 words and 0 to 12 findings; drafts run shuffled and at several batch
sizes. Where two outputs differ, the plain model says how close the two tokens were.
"""

import random
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import torch
import typer
from tqdm.auto import tqdm

from benchmarks.common import JsonOption, console, run, table, write_json
from crimson_core import PatientContext, ReportPair, load_judge
from crimson_core.errors import InputError
from crimson_core.judges.engines.hf import HFEngine
from crimson_core.judges.model import ModelJudge

_FINDINGS = (
    "There is a small left pleural effusion.",
    "Mild cardiomegaly, unchanged.",
    "Right lower lobe consolidation, likely pneumonia.",
    "A {} mm nodule in the left upper lobe.",
    "Moderate pulmonary edema with Kerley B lines.",
    "Small right apical pneumothorax, {} mm.",
    "The endotracheal tube ends {} mm above the carina.",
    "Bibasilar atelectasis.",
    "Old healed fractures of the left {}th rib.",
    "Hiatal hernia.",
    "Tortuous and calcified aorta.",
    'The tip of the "PICC" line is in the right atrium.',
)
_NORMAL = (
    "No pneumothorax.",
    "The hilar contours are normal.",
    "The visualised upper abdomen is unremarkable.",
    "No acute osseous abnormality is seen.",
    "The mediastinal silhouette is within normal limits.",
)


def made_up_pairs(n: int, seed: int = 0, most_words: int = 600) -> list[ReportPair]:
    """Report pairs with 0 to 12 findings; every sixth is long, and the first ones have empty reports."""
    rng = random.Random(seed)
    pairs = [ReportPair("", ""), ReportPair("", _FINDINGS[0]), ReportPair(_FINDINGS[1], "")][:n]
    while len(pairs) < n:
        long = len(pairs) % 6 == 0
        pairs.append(made_up_pair(rng, len(pairs) % 13, most_words if long else most_words // 6, exactly=long))
    return pairs


def made_up_pair(rng: random.Random, n_findings: int, words: int, exactly: bool = True) -> ReportPair:
    """Two reports that share most of their findings, each with `words` words, or with at most as many."""
    findings = [sentence.format(rng.randrange(3, 12)) for sentence in rng.sample(_FINDINGS, n_findings)]
    reports = []
    for _ in range(2):
        length = words if exactly else rng.randrange(words + 1)
        kept = [sentence for sentence in findings if rng.random() < 0.8]
        reports.append(_padded(kept, length, rng))
    context = PatientContext(str(rng.randrange(1, 99)), rng.choice("FM"), "cough") if rng.random() < 0.5 else None
    return ReportPair(*reports, context)


def _padded(sentences: list[str], words: int, rng: random.Random) -> str:
    """The sentences, filled up with normal ones to so many words."""
    sentences = list(sentences)
    while True:
        more = rng.choice(_NORMAL)
        if sum(len(sentence.split()) for sentence in [*sentences, more]) > words:
            return " ".join(sentences)
        sentences.insert(rng.randrange(len(sentences) + 1), more)


def outputs(judge: ModelJudge, pairs: Sequence[ReportPair]) -> list[str]:
    """The raw outputs of a judge, in the order of `pairs`."""
    bar = tqdm(judge.judge(pairs), total=len(pairs), unit="pair", disable=not sys.stderr.isatty())
    return [judgement.raw_output for _, judgement in sorted(bar, key=lambda item: item[0])]


def margin(plain: ModelJudge, pair: ReportPair, ours: str, theirs: str) -> float:
    """The difference of the plain model's logits of the first two tokens that differ between two outputs."""
    model, codec = plain.engine.model, plain.engine.codec
    prompt = codec.encode(plain.prompt.messages(pair))
    ids = [codec.encoder.encode_text(text) + codec.ends[:1] for text in (ours, theirs)]
    same = next(i for i, (a, b) in enumerate(zip(*ids, strict=False)) if a != b)
    with torch.no_grad():
        known = torch.tensor([prompt + ids[1][:same]], device=model.device)
        logits = model(input_ids=known, logits_to_keep=1).logits[0, -1].float()
    return float((logits[ids[0][same]] - logits[ids[1][same]]).abs())


def compare(
    plain: ModelJudge, drafts: ModelJudge, pairs: Sequence[ReportPair], batch_sizes: Sequence[int]
) -> list[dict[str, Any]]:
    """For each batch size, with the pairs shuffled: the number of equal outputs, and the margins of the others."""
    expected, rows = outputs(plain, pairs), []
    for batch_size in batch_sizes:
        order = random.Random(batch_size).sample(range(len(pairs)), len(pairs))
        drafts.engine.batch_size = batch_size
        got = dict(zip(order, outputs(drafts, [pairs[i] for i in order]), strict=True))
        other = [i for i in order if got[i] != expected[i]]
        margins = [margin(plain, pairs[i], got[i], expected[i]) for i in other]
        rows.append(
            {"batch_size": batch_size, "pairs": len(pairs), "same": len(pairs) - len(other), "margins": margins}
        )
    return rows


def main(
    judge: Annotated[str, typer.Option("--judge", "-j", help="Judge spec: hf:<Hub id or folder>.")],
    n_pairs: Annotated[int, typer.Option("--pairs", min=1, help="Report pairs.")] = 60,
    most_words: Annotated[int, typer.Option(min=6, help="Words of the longest reports.")] = 600,
    batch_size: Annotated[list[int] | None, typer.Option(min=1, help="Batch sizes.  [default: 1, 3, 8]")] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Longest output; longer ones are compared as far as that.  [default: the judge's]"),
    ] = None,
    constrained: Annotated[bool, typer.Option("--constrained/--free", help="With the grammar, or without.")] = True,
    json_file: JsonOption = None,
) -> None:
    """Compare decoding with drafts and plain decoding, pair by pair."""
    options = {"constrained": constrained, "max_new_tokens": max_new_tokens}
    plain = load_judge(judge, decoding="plain", **options)
    if not isinstance(getattr(plain, "engine", None), HFEngine):
        raise InputError(f"--judge {judge}: only hf judges decode here. Give hf:<Hub id or folder>.")
    rows = compare(
        plain,
        load_judge(judge, decoding="drafts", **options),
        made_up_pairs(n_pairs, most_words=most_words),
        batch_size or [1, 3, 8],
    )
    made = table(
        "Drafts against generate", ("batch size", "pairs", "same output", "largest margin of the others"), left=0
    )
    for row in rows:
        widest = f"{max(row['margins']):.2g}" if row["margins"] else "–"
        made.add_row(str(row["batch_size"]), str(row["pairs"]), str(row["same"]), widest)
    console.print(made)
    console.print("Margin: how far the logits of the two first tokens that differ are apart in the plain model.")
    write_json(json_file, {"judge": plain.signature(), "rows": rows})


if __name__ == "__main__":
    run(main)
