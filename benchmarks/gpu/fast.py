"""Measures the speed of an hf judge of the published model's size on a GPU: `python -m benchmarks.gpu.fast --tokenizer FOLDER`.

The model has the published checkpoint's shape and random weights, the prompt is the reference prompt, and what is written is
scripted (`benchmarks.gpu.scripted`), so that the time is real and the text is typical. Figures that are in the output file are not
measured again.
"""

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import transformers
import typer
from tqdm.auto import tqdm
from transformers import AutoTokenizer

from benchmarks.common import console, number, run, table
from benchmarks.gpu.common import ENDS, SHAPES, Results, cuda_or_cpu, random_model
from benchmarks.gpu.scripted import ScriptedProcessor, next_tokens, replaced, tagged, target, typical_pairs
from crimson_core.errors import InputError
from crimson_core.judges.engines.hf import decoding, judge_in_memory
from crimson_core.judges.engines.hf.cache import Cache
from crimson_core.judges.engines.hf.packed import PackedModel, Span, _Pass
from crimson_core.judges.model import ModelJudge
from crimson_core.protocol.pair import ReportPair
from crimson_core.protocol.prompt import PUBLISHED_MODEL, Prompt

# Those that are compiled come last, since the layers stay compiled.
WAYS = ("prompt pass", "crimson-score", "generate", "prompt pass, compiled", "drafts", "profile", "host")
_SCRIPTED = ("crimson-score", "generate", "drafts", "profile", "host")  # those that write
_PROMPT = Prompt(guidelines=False)
_PROMPTS = 64  # of the prompt pass
_LONG = 2000  # characters of a text, which surprises make longer
Targets = dict[tuple[int, ...], list[int]]


def main(
    tokenizer: Annotated[
        Path, typer.Option(help="Folder with Gemma's tokenizer, as `python -m training.from_gguf` writes it.")
    ],
    output: Annotated[Path, typer.Option(help="JSON file of the figures; what is in it is not measured again.")],
    way: Annotated[list[str] | None, typer.Option(help=f"One of: {', '.join(WAYS)}.  [default: all]")] = None,
    batch_size: Annotated[list[int] | None, typer.Option(min=1, help="[default: 16, 64, 128, 256]")] = None,
    surprises: Annotated[
        list[float] | None, typer.Option(help="Share of tokens that no draft guesses.  [default: 0.15]")
    ] = None,
    n_pairs: Annotated[
        int, typer.Option("--pairs", min=1, help="Report pairs, at least the batch size of them.")
    ] = 256,
    shape: Annotated[str, typer.Option(help=f"One of: {', '.join(SHAPES)}.")] = "4b",
    device: Annotated[str | None, typer.Option(help="[default: cuda]")] = None,
) -> None:
    """Measure the pairs per second of each way to judge, and of the prompt pass, which every way needs."""
    where = cuda_or_cpu(device)
    results = Results(output, shape=shape)
    words = AutoTokenizer.from_pretrained(tokenizer)
    model = random_model(shape, where)
    judges: dict[bool, ModelJudge] = {}

    def judge_for(one: str) -> ModelJudge:
        """The usual judge, or, for ways that need no more, one with `generate` and layers that are not compiled."""
        whole = one in WAYS[3:]
        if whole not in judges:
            options = {"compile": where.type == "cuda"} if whole else {"decoding": "plain"}
            judges[whole] = judge_in_memory(model, words, name="random", prompt=_PROMPT, max_text=_LONG, **options)
        return judges[whole]

    rows = []
    for one in way or WAYS:
        if one not in WAYS:
            raise InputError(f"--way {one} is none. Use one of: {', '.join(WAYS)}.")
        for share, size in _settings(one, surprises or [0.15], batch_size or [16, 64, 128, 256]):
            n = _PROMPTS if one.startswith("prompt pass") else n_pairs if one in ("drafts", "profile", "host") else size
            name = f"{one}, batch {size}"
            name += f", {share:.0%} surprises" if one in _SCRIPTED else ""

            def measured(one: str = one, n: int = n, size: int = size, share: float = share) -> dict[str, Any]:
                about = {"way": one, "batch_size": size, "surprises": share}
                try:
                    return about | _MEASURES[one](judge_for(one), typical_pairs(n), size, share)
                except torch.OutOfMemoryError:
                    return about | {"out_of_memory": True}

            figures = results.once(name, measured)
            if one in ("profile", "host"):
                console.print_json(data=figures)
            else:
                rows.append(figures)
                _show(rows[-1:])
    _show(rows)


def _settings(way: str, surprises: Sequence[float], sizes: Sequence[int]) -> list[tuple[float, int]]:
    """Shares of surprises and batch sizes at which a way is measured."""
    if way.startswith("prompt pass"):
        return [(0.0, 4)]
    if way in ("profile", "host"):
        return [(surprises[0], sizes[-1])]
    return [(share, size) for share in surprises for size in sizes]


def _targets(judge: ModelJudge, pairs: Sequence[ReportPair], surprises: float) -> Targets:
    """The output of each pair's prompt."""
    return {
        tuple(_encode(judge, pair)): target(
            judge.engine.codec.encoder, judge.engine.codec.tokenizer, ENDS[1], pair, surprises, seed
        )
        for seed, pair in enumerate(pairs)
    }


def _encode(judge: ModelJudge, pair: ReportPair) -> list[int]:
    return judge.engine.codec.encode(judge.prompt.messages(pair))


def _timed(work: Callable[[], Any], device: torch.device) -> tuple[Any, dict[str, float]]:
    """The result of some work, its seconds, and its peak memory above the memory in use before."""
    on_cuda = device.type == "cuda"
    if on_cuda:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
    started = time.perf_counter()
    made = work()
    if on_cuda:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    peak = (torch.cuda.max_memory_allocated() - held) / 2**30 if on_cuda else 0.0
    return made, {"seconds": seconds, "peak_gib": peak}


@torch.no_grad()
def _prompt_pass(judge: ModelJudge, pairs: Sequence[ReportPair], batch_size: int, _: float) -> dict[str, Any]:
    """The model's own layers over prompts, padded to the longest of a batch, and nothing else."""
    prompts = sorted((_encode(judge, pair) for pair in pairs), key=len)
    device = judge.engine.model.device

    def read() -> None:
        for start in range(0, len(prompts), batch_size):
            batch = prompts[start : start + batch_size]
            width = max(map(len, batch))
            ids = torch.tensor([prompt + [0] * (width - len(prompt)) for prompt in batch], device=device)
            judge.engine.model.model(input_ids=ids, use_cache=False)

    return _of_prompts(read, prompts, device)


@torch.no_grad()
def _compiled_prompt_pass(judge: ModelJudge, pairs: Sequence[ReportPair], batch_size: int, _: float) -> dict[str, Any]:
    """The judge's own passes over whole prompts, and nothing else: the lower limit of the cost of a pair."""
    prompts = sorted((_encode(judge, pair) for pair in pairs), key=len)
    packed = judge.engine.packed
    cache = packed.cache(max(map(len, prompts)))

    def read() -> None:
        for start in range(0, len(prompts), batch_size):
            rows = [Span(cache.open(len(prompt)), prompt) for prompt in prompts[start : start + batch_size]]
            with packed.attention():
                packed.hidden_states(cache, rows)
            for row in rows:
                cache.close(row.cache)

    return _of_prompts(read, prompts, judge.engine.model.device)


def _of_prompts(read: Callable[[], None], prompts: Sequence[Sequence[int]], device: torch.device) -> dict[str, Any]:
    """The figures of reading some prompts, which is done once beforehand."""
    read()
    _, figures = _timed(read, device)
    return figures | {
        "pairs": len(prompts),
        "pairs_per_second": len(prompts) / figures["seconds"],
        "prompt_tokens": sum(map(len, prompts)),
    }


def _crimson_score(judge: ModelJudge, pairs: Sequence[ReportPair], batch_size: int, surprises: float) -> dict[str, Any]:
    """The reference implementation's own code around a pipeline of Transformers, as its constructor makes it."""
    from CRIMSON import CRIMSONScore

    scorer = object.__new__(CRIMSONScore)  # its constructor would load a model from the Hub
    scorer.api, scorer.model_name, scorer._has_generation_config = "hf", PUBLISHED_MODEL, False
    scorer.pipe = transformers.pipeline(
        "text-generation", model=judge.engine.model, tokenizer=judge.engine.codec.tokenizer
    )
    scorer.pipe.tokenizer.padding_side = "left"
    prompts = [_PROMPT.messages(pair)[1]["content"] for pair in pairs]
    targets = _targets(judge, pairs, surprises)
    with _scripted_generate(judge, targets):
        texts, figures = _timed(
            lambda: scorer._chat_completion_batch(prompts, batch_size=batch_size), judge.engine.model.device
        )
    wrong = _wrong(judge, texts, targets)
    return _of_outputs(figures, targets, wrong)


def _generate(judge: ModelJudge, pairs: Sequence[ReportPair], batch_size: int, surprises: float) -> dict[str, Any]:
    """`generate` of Transformers with our grammar."""
    targets = _targets(judge, pairs, surprises)
    judge.engine.batch_size = batch_size
    with _scripted_generate(judge, targets):
        done, figures = _timed(lambda: sorted(judge.judge(pairs), key=lambda item: item[0]), judge.engine.model.device)
    wrong = _wrong(judge, (one.raw_output for _, one in done), targets)
    return _of_outputs(figures, targets, wrong)


def _wrong(judge: ModelJudge, texts: Iterable[str], targets: Targets) -> int:
    """Number of texts that differ from their targets."""
    expected = (judge.engine.codec.tokenizer.decode(ids, skip_special_tokens=True) for ids in targets.values())
    return sum(text != wanted for text, wanted in zip(texts, expected, strict=True))


def _of_outputs(figures: dict[str, float], targets: Targets, wrong: int) -> dict[str, Any]:
    tokens = sum(map(len, targets.values()))
    return figures | {
        "pairs": len(targets),
        "pairs_per_second": len(targets) / figures["seconds"],
        "prompt_tokens": sum(map(len, targets)),
        "output_tokens": tokens,
        "tokens_per_second": tokens / figures["seconds"],
        "wrong_outputs": wrong,
    }


@contextmanager
def _scripted_generate(judge: ModelJudge, targets: Targets) -> Iterator[None]:
    """Let `generate` write the targets, after all other processors have run."""
    generate = judge.engine.model.generate
    processor = ScriptedProcessor(targets, judge.engine.codec.pad)

    def scripted(*args: Any, logits_processor: Sequence[Any] | None = None, **options: Any) -> Any:
        return generate(*args, logits_processor=[*(logits_processor or []), processor], **options)

    judge.engine.model.generate = scripted
    try:
        yield
    finally:
        del judge.engine.model.generate


def _drafts(judge: ModelJudge, pairs: Sequence[ReportPair], batch_size: int, surprises: float) -> dict[str, Any]:
    """The hf judge as it is."""
    targets = _targets(judge, pairs, surprises)
    judge.engine.batch_size = batch_size
    judge.engine.work = decoding.Work()
    with _scripted_drafts(judge, targets, _Scripted):
        bar = tqdm(judge.judge(pairs), total=len(pairs), unit="pair", mininterval=3, file=sys.stdout)
        done, figures = _timed(lambda: sorted(bar, key=lambda item: item[0]), judge.engine.model.device)
    wrong = _wrong(judge, (one.raw_output for _, one in done), targets)
    work = judge.engine.work
    return _of_outputs(figures, targets, wrong) | {
        "batch_size_at_the_end": judge.engine.batch_size,
        "passes": work.passes,
        "passes_per_token": work.row_passes / work.tokens,
        "accepted_drafts": work.agreed / work.drafted,
        "drafted_per_token": work.drafted / work.tokens,
        "seconds_by_part": dict(work.seconds),
    }


class _Scripted(PackedModel):
    """Computes everything as usual, then makes the targets' tokens the likeliest.

    Attributes:
        scripts: By id of a row's cache, the length of its prompt and its target.
    """

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.scripts: dict[int, tuple[int, np.ndarray]] = {}

    def _coming(self, spans: Sequence[Span]) -> np.ndarray:
        """The target's token after each token of a pass."""
        return np.concatenate(
            [next_tokens(*self.scripts[id(span.cache)], span.cache.length, len(span.tokens)) for span in spans]
        )

    def hidden_states(self, cache: Cache, spans: Sequence[Span]) -> torch.Tensor:
        return tagged(super().hidden_states(cache, spans), self._coming(spans))

    def logits(self, hidden: torch.Tensor, only: torch.Tensor | None = None) -> torch.Tensor:
        return replaced(hidden, super().logits(hidden, only), only)


class _Instant(_Scripted):
    """Makes them the likeliest without work on the device: hidden states and logits are the tokens themselves."""

    scripting = 0.0  # seconds for what only a benchmark does

    def hidden_states(self, cache: Cache, spans: Sequence[Span]) -> Any:
        _ = _Pass(cache, spans, self.device, True, self.attend_in_turn).shape
        started = time.thread_time()
        coming = _Likeliest(torch.from_numpy(self._coming(spans)))
        self.scripting += time.thread_time() - started
        return coming

    def logits(self, hidden: Any, only: torch.Tensor | None = None) -> Any:
        return hidden


class _Likeliest:
    """Stands for logits in which these tokens are the likeliest."""

    def __init__(self, tokens: torch.Tensor) -> None:
        self._tokens, self.device = tokens, tokens.device

    def __getitem__(self, index: torch.Tensor) -> "_Likeliest":
        return _Likeliest(self._tokens[index])

    def argmax(self, _: int) -> torch.Tensor:
        return self._tokens


@contextmanager
def _scripted_drafts(judge: ModelJudge, targets: Targets, kind: type[_Scripted]) -> Iterator[None]:
    """Let the decoder write the targets."""
    packed, start = judge.engine.packed, decoding.Decoder.start
    scripted = kind(judge.engine.model)

    def noted(decoder, prompt, *args):
        row = start(decoder, prompt, *args)
        scripted.scripts[id(row.cache)] = len(prompt), np.array(targets[tuple(prompt)])
        return row

    judge.engine.packed, decoding.Decoder.start = scripted, noted
    if judge.signature()["decoding"].endswith(",compiled"):
        judge.engine.packed.record()
    try:
        yield
    finally:
        judge.engine.packed, decoding.Decoder.start = packed, start


def _profile(judge: ModelJudge, pairs: Sequence[ReportPair], batch_size: int, surprises: float) -> dict[str, Any]:
    """The device's time by kind of kernel in ten passes in the middle of a run, in milliseconds per pass."""
    if judge.engine.model.device.type != "cuda":
        return {}
    passes, first, n = 0, 40, 10
    profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])
    window: list[float] = []
    forward = PackedModel.hidden_states

    def watched(packed: PackedModel, cache: Any, spans: Any) -> torch.Tensor:
        nonlocal passes
        passes += 1
        if passes in (first, first + n):
            torch.cuda.synchronize()
            window.append(time.perf_counter())
            (profiler.start if passes == first else profiler.stop)()
        return forward(packed, cache, spans)

    PackedModel.hidden_states = watched
    judge.engine.batch_size = batch_size
    try:
        with _scripted_drafts(judge, _targets(judge, pairs, surprises), _Scripted):
            for _ in judge.judge(pairs):
                if len(window) == 2:
                    break
    finally:
        PackedModel.hidden_states = forward
    spent: dict[str, float] = defaultdict(float)
    for event in profiler.key_averages():
        kind = next(
            (kind for kind, words in _KERNELS.items() if any(word in event.key.lower() for word in words)), "others"
        )
        spent[kind] += event.self_device_time_total / 1000 / n
    wall = 1000 * (window[1] - window[0]) / n
    return {"ms_a_pass": wall, "device_ms_a_pass": sum(spent.values()), "by_kernel": dict(spent)}


def _host(judge: ModelJudge, pairs: Sequence[ReportPair], batch_size: int, surprises: float) -> dict[str, Any]:
    """Processor seconds of the host, with an accelerator's pace and passes that take no time."""
    targets = _targets(judge, pairs, surprises)
    judge.engine.batch_size = batch_size
    judge.engine.work = work = decoding.Work(clock=time.thread_time)
    judge.engine.pace = decoding.CUDA_PACE
    with _scripted_drafts(judge, targets, _Instant):
        whole, main = time.process_time(), time.thread_time()
        done = sorted(judge.judge(pairs), key=lambda item: item[0])
        whole, main = time.process_time() - whole, time.thread_time() - main
        scripting = judge.engine.packed.scripting
    wrong = _wrong(judge, (one.raw_output for _, one in done), targets)
    main, whole = main - scripting, whole - scripting
    return _of_outputs({"seconds": main}, targets, wrong) | {
        "passes": work.passes,
        "passes_per_token": work.row_passes / work.tokens,
        "accepted_drafts": work.agreed / work.drafted,
        "ms_a_pass": 1000 * main / work.passes,
        "ms_a_pass_of_all_threads": 1000 * whole / work.passes,
        "seconds_by_part": dict(work.seconds),
    }


_KERNELS = {
    "attention": ("flash",),
    "matrix products": ("gemm", "nvjet", "cutlass", "cublas", "splitk"),
    "compiled pointwise": ("triton",),
    "copies": ("memcpy", "memset", "copy"),
    "argmax": ("reduce",),
}
_MEASURES = {
    "prompt pass": _prompt_pass,
    "crimson-score": _crimson_score,
    "generate": _generate,
    "prompt pass, compiled": _compiled_prompt_pass,
    "drafts": _drafts,
    "profile": _profile,
    "host": _host,
}


def _show(rows: Sequence[dict[str, Any]]) -> None:
    headers = ("", "batch", "surprises", "pairs/s", "tokens/s", "passes/token", "accepted", "peak GiB", "wrong")
    made = table("", headers)
    for row in rows:
        made.add_row(
            row["way"],
            str(row["batch_size"]),
            f"{row['surprises']:.0%}",
            "no memory" if row.get("out_of_memory") else number(row["pairs_per_second"]),
            number(row.get("tokens_per_second", float("nan")), 0),
            number(row.get("passes_per_token", float("nan"))),
            number(row.get("accepted_drafts", float("nan"))),
            number(row.get("peak_gib", float("nan")), 1),
            str(row.get("wrong_outputs", "–")),
        )
    console.print(made)


if __name__ == "__main__":
    run(main)
