"""The speed of an hf judge, compared with `crimson-score` and `generate`; part of `benchmarks.speed`."""

import gc
import io
import math
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm.auto import tqdm

from benchmarks.common import console, number, peak_mb, ratio, table
from crimson_core.errors import InputError
from crimson_core.judges import load_judge, parse_spec
from crimson_core.judges.engines.hf import HFEngine, judge_in_memory
from crimson_core.judges.engines.hf.decoding import Work
from crimson_core.judges.engines.hf.drafts import Drafter, Drafts, Text
from crimson_core.judges.model import ModelJudge
from crimson_core.protocol.evaluation import parse_evaluation
from crimson_core.protocol.pair import ReportPair
from crimson_core.protocol.prompt import Prompt
from training.merge import merge

_PROMPTS = {"reference": Prompt(guidelines=False), "compact": Prompt("compact")}
_MODEL = ("prompt pass", "decoding", "output layer", "waiting")  # seconds that are the model's; the others are ours
_OURS = ("tokenising", "grammar", "drafting", "parsing")


class Way(NamedTuple):
    """A way to judge pairs.

    Attributes:
        name: Its name in the table.
        prompt: A key of `_PROMPTS`.
        decoding: Decoding of the hf judge; None for `crimson-score`.
        dtype: Type of `crimson-score`'s weights; None keeps its own, bfloat16.
        rules: Whether the offline rules and finished outputs supply guesses; else guesses come only from the prompt and the
            row's own output.
    """

    name: str
    prompt: str
    decoding: str | None
    dtype: torch.dtype | None = None
    rules: bool = True


class Run(NamedTuple):
    """A run over pairs: output texts, output tokens, seconds by activity; for drafts also passes and the share of right guesses."""

    texts: list[str]
    tokens: int
    seconds: dict[str, float]
    passes: int | None = None
    accepted: float = math.nan


Ask = Callable[[Sequence[ReportPair], int], Run]


def measure(
    spec: str,
    pairs: Sequence[ReportPair],
    *,
    batch_sizes: Sequence[int],
    rounds: int,
    max_new_tokens: int,
    wanted: Sequence[str] = (),
) -> dict[str, Any]:
    """Measure every way, or the `wanted` ones, at every batch size; print and return the figures."""
    judge = load_judge(spec, max_new_tokens=max_new_tokens)
    if not isinstance(getattr(judge, "engine", None), HFEngine):
        raise InputError(f"--judge {spec}: this part measures hf judges only.")
    same = torch.float32 if judge.engine.model.dtype == torch.float32 else None
    ways = [Way("crimson-score", "reference", None)]
    ways += [Way("crimson-score in float32", "reference", None, same)] if same else []
    ways += [Way("generate", prompt, "plain") for prompt in _PROMPTS]
    ways += [Way("drafts", prompt, "drafts") for prompt in _PROMPTS]
    ways += [Way("drafts without rules", prompt, "drafts", rules=False) for prompt in _PROMPTS]
    ways = [way for way in ways if not wanted or f"{way.name}, {way.prompt}" in wanted]
    if not ways:
        raise InputError(f"--way {', '.join(wanted)} is none of the ways. Leave it out to measure all.")
    with ExitStack() as stack:
        ready = [(way, stack.enter_context(_ready(way, spec, judge, max_new_tokens))) for way in ways]
        runs = [(way, batch_size, means, []) for way, means in ready for batch_size in batch_sizes]
        bar = tqdm(total=len(runs) * (rounds + 1), desc="measuring", unit="run", disable=not sys.stderr.isatty())
        # In turns, since a machine is faster at some times than at others.
        for number_of_round in range(rounds + 1):
            for way, batch_size, (ask, layers), timed in runs:
                bar.set_postfix_str(f"{way.name}, {way.prompt}, batch {batch_size}", refresh=True)
                if number_of_round:
                    timed.append(_timed(ask, layers, pairs, batch_size))
                else:
                    ask(pairs[:1], batch_size)  # what is done once only
                bar.update()
        bar.close()
    rows = [_row(way, batch_size, timed, len(pairs)) for way, batch_size, _, timed in runs]
    _compare(rows)
    _show(rows, judge, len(pairs), rounds, max_new_tokens)
    for row in rows:
        del row["texts"]  # they quote the reports
    return {"signature": judge.signature(), "generation": rows}


def _timed(ask: Ask, layers: torch.nn.Module, pairs: Sequence[ReportPair], batch_size: int) -> dict[str, Any]:
    """One run over the pairs, with its seconds, forward passes and peak memory."""
    passes = [0]
    hook = layers.register_forward_pre_hook(
        lambda _, args, options: passes.__setitem__(0, passes[0] + len(options["input_ids"])), with_kwargs=True
    )
    gc.collect()
    before = _reset_peak()
    started = time.perf_counter()
    run = ask(pairs, batch_size)
    seconds = time.perf_counter() - started
    hook.remove()
    counted = passes[0] if run.passes is None else run.passes
    return {"seconds": seconds, "passes": counted, "peak_mb": _peak_mb() - before, "run": run}


def _row(way: Way, batch_size: int, timed: Sequence[dict[str, Any]], n: int) -> dict[str, Any]:
    """The figures of one way at one batch size, from the round of median duration."""
    middle = sorted(timed, key=lambda one: one["seconds"])[len(timed) // 2]
    seconds, run = middle["seconds"], middle["run"]
    return {
        "way": way.name,
        "prompt": way.prompt,
        "batch_size": batch_size,
        "seconds": [one["seconds"] for one in timed],
        "pairs_per_second": n / seconds,
        "tokens_per_second": run.tokens / seconds,
        "tokens": run.tokens,
        "passes_per_token": ratio(middle["passes"], run.tokens),
        "accepted_drafts": run.accepted,
        "peak_mb": max(one["peak_mb"] for one in timed),
        "split": {what: spent / seconds for what, spent in run.seconds.items()},
        "texts": run.texts,
    }


@contextmanager
def _ready(way: Way, spec: str, judge: ModelJudge, max_new_tokens: int) -> Iterator[tuple[Ask, torch.nn.Module]]:
    """A function that judges pairs at a batch size, and the model's layers."""
    if way.decoding is None:
        with _reference_implementation(spec, way.dtype, max_new_tokens) as (scorer, layers):
            yield lambda pairs, batch_size: _ask_reference(scorer, pairs, batch_size), layers
        return
    one = judge_in_memory(
        judge.engine.model,
        judge.engine.codec.tokenizer,
        name="benchmark",
        prompt=_PROMPTS[way.prompt],
        decoding=way.decoding,
        max_new_tokens=max_new_tokens,
    )

    def ask(pairs: Sequence[ReportPair], batch_size: int) -> Run:
        one.engine.batch_size = batch_size
        one.engine.work = Work()
        with nullcontext() if way.rules else _own_text_only():
            done = [judgement for _, judgement in sorted(one.judge(pairs), key=lambda item: item[0])]
        tokens = sum(judgement.usage.get("completion_tokens", 0) for judgement in done)
        texts, work = [judgement.raw_output or "" for judgement in done], one.engine.work
        if way.decoding != "drafts":
            return Run(texts, tokens, {})
        return Run(texts, tokens, dict(work.seconds), work.row_passes, ratio(work.agreed, work.drafted))

    yield ask, judge.engine.model.model


@contextmanager
def _own_text_only() -> Iterator[None]:
    """Guess from the prompt and the row's own output alone."""
    row = Drafts.row

    def without_rules(drafts: Drafts, pair: ReportPair, prompt: Sequence[int]) -> Drafter:
        drafts.finished = deque(maxlen=0)
        drafter = row(drafts, pair, prompt)
        drafter._texts[0] = Text()
        return drafter

    Drafts.row = without_rules
    try:
        yield
    finally:
        Drafts.row = row


@contextmanager
def _reference_implementation(
    spec: str, dtype: torch.dtype | None, max_new_tokens: int
) -> Iterator[tuple[Any, torch.nn.Module]]:
    """`crimson-score` with the checkpoint of a judge spec; an adapter is merged first, since it supports none."""
    from CRIMSON.generate_score import CRIMSONScore

    _, model, options = parse_spec(spec)
    with tempfile.TemporaryDirectory() as folder:
        if (Path(model) / "adapter_config.json").is_file():
            merge(model, Path(folder, "merged"), base=dict(options).get("base"))
            model = str(Path(folder, "merged"))
        with redirect_stdout(io.StringIO()):
            scorer = CRIMSONScore(api="hf", model_name=model)
        if dtype is not None:
            scorer.pipe.model.to(dtype)
        scorer.pipe.model.generation_config.max_new_tokens = max_new_tokens
        yield scorer, scorer.pipe.model.model


def _ask_reference(scorer: Any, pairs: Sequence[ReportPair], batch_size: int) -> Run:
    prompts = [_PROMPTS["reference"].messages(pair)[1]["content"] for pair in pairs]
    texts = scorer._chat_completion_batch(prompts, batch_size=batch_size)
    encoded = scorer.pipe.tokenizer(texts, add_special_tokens=False)["input_ids"]
    return Run(texts, sum(len(ids) + 1 for ids in encoded), {})  # and one that ends each


def _compare(rows: Sequence[dict[str, Any]]) -> None:
    """Add to each row the share of pairs with the evaluation that `generate` writes for the same prompt."""
    plain = {row["prompt"]: row["texts"] for row in reversed(rows) if row["way"] == "generate"}
    for row in rows:
        expected = plain.get(row["prompt"], ())
        same = [a == b or _same(a, b) for a, b in zip(row["texts"], expected, strict=False)]
        row["same"] = ratio(sum(same), len(same))


def _same(one: str, other: str) -> bool:
    try:
        return parse_evaluation(one)[0] == parse_evaluation(other)[0]
    except ValueError:
        return False


def _show(rows: Sequence[dict[str, Any]], judge: ModelJudge, n: int, rounds: int, most: int) -> None:
    headers = ("", "prompt", "batch", "pairs/s", "times", "tokens/s", "passes/token", "accepted", "peak MB", "same")
    made = table(f"Generation: {n} pairs, at most {most} tokens each, median of {rounds}", headers, left=2)
    theirs = [row for row in rows if row["way"].startswith("crimson-score")]
    base = {row["batch_size"]: row["pairs_per_second"] for row in theirs}  # in the judge's own type, which comes last
    for row in rows:
        made.add_row(
            row["way"],
            row["prompt"],
            str(row["batch_size"]),
            number(row["pairs_per_second"], 3),
            number(ratio(row["pairs_per_second"], base.get(row["batch_size"], 0.0)), 1),
            number(row["tokens_per_second"], 1),
            number(row["passes_per_token"]),
            number(row["accepted_drafts"]),
            number(row["peak_mb"], 0),
            number(row["same"]),
        )
    console.print(made)
    console.print(
        f"times: pairs/s over those of {theirs[-1]['way'] if theirs else 'crimson-score'} at the same batch size. passes/token: forward "
        "passes, counted for each row in them, per output token. accepted: share of guesses that came true. peak MB: above what weights and all else held before. same: pairs with "
        "the evaluation that generate writes for this prompt.\n"
    )
    made = table("Share of the time, drafts", ("prompt", "batch", *_MODEL, *_OURS, "outside the model"))
    for row in rows:
        if row["split"]:
            parts = [row["split"].get(what, 0.0) for what in (*_MODEL, *_OURS)]
            outside = 1 - sum(parts[: len(_MODEL)])
            made.add_row(row["prompt"], str(row["batch_size"]), *(number(part, 3) for part in [*parts, outside]))
    console.print(made)
    console.print("|".join(f"{key}:{value}" for key, value in judge.signature().items()), soft_wrap=True)


def _reset_peak() -> float:
    """Reset the peak; return the memory in use, in MB."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 2**20
    if (peak := Path("/proc/self/clear_refs")).exists():
        peak.write_text("5")
    return _peak_mb()


def _peak_mb() -> float:
    """Peak since `_reset_peak` of the GPU, or else of this process (since its start, if that cannot be reset)."""
    return torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else peak_mb()
