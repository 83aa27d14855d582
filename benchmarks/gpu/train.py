"""Tests that the published recipe trains on a GPU, and how fast: `python -m benchmarks.gpu.train --tokenizer FOLDER --output FOLDER`.

`training/configs/medgemma-4b.yaml` as it is, by its own command in processes of its own, on a model of the published one's
shape with random weights and on made-up records of real lengths: up to the first checkpoint and its evaluation with
generation, killed, resumed, trained to the end, merged. Then the memory of steps whose records are all of the greatest
length. What is done is in `train.json` of the output and is not done again when the same command is given again.
"""

import gc
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import mean, median
from typing import Annotated, Any

import torch
import typer
import yaml
from transformers import AutoTokenizer, Gemma3TextConfig, GenerationConfig
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from benchmarks.common import console, run, table
from benchmarks.exactness import made_up_pairs
from benchmarks.gpu.common import SHAPES, Results, random_model
from crimson_core.errors import CrimsonError, InputError
from crimson_core.judges import load_judge
from crimson_core.protocol.pair import ReportPair
from crimson_core.protocol.prompt import Prompt
from crimson_core.protocol.scoring import score_evaluation
from training.config import load_config
from training.encoding import RecordEncoder
from training.finetune import finetune, last_checkpoint
from training.records import Context, Included, Record
from training.settings import FinetuneConfig
from training.trainer import read_metrics, was_evaluated

RECORDS = 8  # of a step: the share of one of four GPUs
CONFIG = Path(__file__).parent.parent.parent / "training" / "configs" / "medgemma-4b.yaml"
ANSWERS = (150, 600)  # tokens of an answer, from the least to the most
WORDS = 160  # of the longest report
HELD_OUT = 16
_NORMAL = " The hilar contours are normal."
_POLL = 0.2  # seconds


# The model and the records


def lean_to_ends(model: Any, tokenizer: PreTrainedTokenizerBase, by: float) -> None:
    """Make a random Gemma 3 prefer tokens that end a text, a list or an object.

    Inside a grammar, a random model writes until it is stopped; after this change its lists and texts are short. One channel
    of the hidden states serves this purpose: every token puts the value `by` into it, no layer changes it, and in the output
    layer, tokens that end something have a larger weight for it. The embeddings must be tied; some twenty of their standard
    deviations are a strong preference.
    """
    text = model.get_decoder() if hasattr(model, "get_decoder") else model.model
    text = getattr(text, "language_model", text)
    ends = [
        token for token, word in enumerate(tokenizer.convert_ids_to_tokens(range(len(tokenizer)))) if word[:1] in '"]}'
    ]
    with torch.no_grad():
        weight = text.embed_tokens.weight
        weight[:, 0] = by
        weight[torch.tensor(ends, device=weight.device), 0] = 3 * by
        for layer in text.layers:
            # Gemma multiplies by one more than the weight.
            layer.post_attention_layernorm.weight[0] = -1
            layer.post_feedforward_layernorm.weight[0] = -1


def write_base(folder: Path, shape: str, tokenizer: PreTrainedTokenizerBase, end: int, device: torch.device) -> None:
    """Write a random model of a shape as the recipe's base, in bfloat16, with the tokenizer."""
    changes = {"vocab_size": len(tokenizer) + 7} if shape == "tiny" else {}
    model = random_model(shape, device, **changes)
    lean_to_ends(model, tokenizer, by=50 * model.config.initializer_range)
    model.config.eos_token_id, model.config.pad_token_id = end, tokenizer.pad_token_id
    model.generation_config = GenerationConfig(eos_token_id=end, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def made_up_records(split: str, seed: int = 0) -> Iterator[Record]:
    """Records without end, of made-up pairs with the offline judge's labels."""
    judge, made = load_judge("offline"), 0
    while True:
        pairs = made_up_pairs(100, seed=seed, most_words=WORDS)
        for index, judgement in judge.judge(pairs):
            yield record(f"{split}-{made}", split, pairs[index], judgement.evaluation.model_dump())
            made += 1
        seed += 1


def record(name: str, split: str, pair: ReportPair, evaluation: dict[str, Any]) -> Record:
    """A report pair with its label as a training record."""
    known = pair.context.as_dict() if pair.context else {}
    return Record(
        id=name,
        split=split,
        study=name,
        ground_truth=pair.reference,
        candidate=pair.candidate,
        patient_context=Context(**{key: str(value) for key, value in known.items()}),
        context_included=Included(age=True, sex=True, indication=True),
        regime=0,
        error_types=[],
        changes=[],
        raw_evaluation=evaluation,
        crimson_score=score_evaluation(evaluation)["crimson_score"],
        label_source="offline",
        seed=0,
    )


def of_length(records: Iterator[Record], encoder: RecordEncoder, count: int, longest: int) -> list[Record]:
    """The first records with answers within `ANSWERS` tokens, and at most `longest` tokens in all."""
    kept = []
    while len(kept) < count:
        one = next(records)
        prompt, answer, _ = encoder.encode(one)
        if ANSWERS[0] <= len(answer) <= ANSWERS[1] and len(prompt) + len(answer) <= longest:
            kept.append(one)
    return kept


def stretched(one: Record, encoder: RecordEncoder, length: int) -> Record:
    """A record with as many normal sentences added to its ground truth as fit into `length` tokens."""

    def with_more(sentences: int) -> tuple[Record, int]:
        longer = one.model_copy(update={"ground_truth": one.ground_truth + _NORMAL * sentences})
        prompt, answer, _ = encoder.encode(longer)
        return longer, len(prompt) + len(answer)

    shortest = with_more(0)[1]
    # One more than fit if each takes as many tokens as ten do on average: texts join at their borders.
    sentences = (length - shortest) * 10 // max(1, with_more(10)[1] - shortest) + 1
    for fewer in range(sentences, -1, -1):
        longer, tokens = with_more(fewer)
        if tokens <= length:
            return longer
    raise InputError(f"A record of {length} tokens cannot be made: the prompt alone is longer.")


def write_records(folder: Path, train: list[Record], validation: list[Record]) -> None:
    """Write both splits as the recipe reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, records in (("train", train), ("validation", validation)):
        lines = "".join(one.model_dump_json() + "\n" for one in records)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")


def make_data(output: Path, encoder: RecordEncoder, count: int, longest: int) -> dict[str, float]:
    """Write records of usual and of the greatest length; return their numbers of tokens."""
    train = of_length(made_up_records("train"), encoder, count, longest)
    held_out = of_length(made_up_records("validation", seed=10_000), encoder, HELD_OUT, longest)
    write_records(output / "data", train, held_out)
    long = [
        stretched(one, encoder, longest).model_copy(update={"id": f"long-{n}"})
        for n, one in enumerate(train[:HELD_OUT])
    ]
    write_records(output / "data-longest", long, long[:1])
    lengths = [[len(part) for part in encoder.encode(one)[:2]] for one in train]
    return {
        "records": len(train),
        "prompt_tokens": mean(prompt for prompt, _ in lengths),
        "answer_tokens": mean(answer for _, answer in lengths),
        "longest_tokens": max(sum(len(part) for part in encoder.encode(one)[:2]) for one in long),
    }


# The recipe, in processes of its own


def recipe(config: str, told: str, *overrides: str) -> None:
    """Train as `python -m training.finetune` does, and write the peak memory in bytes to the file `told`."""
    finetune(load_config(Path(config), FinetuneConfig, list(overrides)))
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
    Path(told).write_text(json.dumps({"peak_bytes": peak}), encoding="utf-8")


def start(log: Path, module: str, *arguments: Any) -> subprocess.Popen:
    """A Python process whose output goes to a file: a module, or with `recipe` the recipe."""
    call = ["-c", "import sys; from benchmarks.gpu.train import recipe; recipe(*sys.argv[1:])"]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        return subprocess.Popen(
            [sys.executable, *(call if module == "recipe" else ["-m", module]), *map(str, arguments)],
            cwd=CONFIG.parent.parent.parent,
            stdout=file,
            stderr=subprocess.STDOUT,
        )


def finish(process: subprocess.Popen, log: Path, until: Callable[[], bool] | None = None) -> None:
    """Wait for the end of a process, or kill it once `until` says so.

    Raises:
        CrimsonError: It failed; the text holds the last line of its output.
    """
    try:
        while process.poll() is None:
            if until and until():
                process.send_signal(signal.SIGKILL)
                process.wait()
                return
            time.sleep(_POLL)
    finally:
        process.kill()
    if process.returncode:
        lines = log.read_text(encoding="utf-8").splitlines()
        told = [line.strip() for line in lines if line.strip() and "%|" not in line]  # no progress bars
        raise CrimsonError(f"{log.stem} failed: {told[-1][:300] if told else 'it says nothing'}. More is in {log}.")


def timed(work: Callable[[], Any]) -> dict[str, Any]:
    """Run something; return its own figures, if any, with the seconds that it took."""
    began = time.perf_counter()
    figures = work() or {}
    return {**figures, "seconds": time.perf_counter() - began}


# Figures


def matmul_rate(device: torch.device) -> dict[str, float]:
    """The rate of a bfloat16 product of two square matrices, in FLOP/s: the best of five times ten products."""
    size = 8192 if device.type == "cuda" else 512
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = float("inf")
    for _ in range(6):  # the first warms up
        began = time.perf_counter()
        for _ in range(10):
            a @ b
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, (time.perf_counter() - began) / 10)
    return {"size": size, "flops": 2 * size**3 / best}


def flops_of_step(shape: Gemma3TextConfig, tokens: float, answer: float, records: int, again: bool) -> float:
    """Floating point operations of a step with LoRA, without those of padding and of LoRA itself.

    The backward pass computes gradients of the inputs only, since the weights are frozen. Only the tokens of the `answer` have
    logits. With `again`, the forward pass of the layers counts twice, as with gradient checkpointing.
    """
    heads, groups, size = shape.num_attention_heads, shape.num_key_value_heads, shape.head_dim
    attention = shape.hidden_size * size * (2 * heads + 2 * groups)
    weights = shape.num_hidden_layers * (attention + 3 * shape.hidden_size * shape.intermediate_size)
    pairs = 0.0  # of tokens of which one sees the other
    for kind in shape.layer_types:
        window = shape.sliding_window if kind == "sliding_attention" else tokens
        pairs += tokens * tokens / 2 - max(0.0, tokens - window) ** 2 / 2
    products, attending = 2 * weights * tokens, 4 * heads * size * pairs
    output = 2 * 2 * shape.hidden_size * shape.vocab_size * answer
    # Attention has no weights, so that its backward pass is two forward passes.
    return records * (products * (2 + again) + attending * (3 + again) + output)


def step_seconds(metrics: list[dict[str, float]]) -> float | None:
    """Median seconds of a step over the logged spans that contain steps only; None if there are none.

    Left out are those that begin with a start or a resume, and those in which an evaluation falls.
    """
    spans, before = [], None
    for logged in metrics:
        if "loss" not in logged:
            before = None
            continue
        if before and logged["step"] > before["step"]:
            spans.append((logged["seconds"] - before["seconds"]) / (logged["step"] - before["step"]))
        before = logged
    return median(spans) if spans else None


def summary(results: Results, output: Path, shape: Gemma3TextConfig, config: dict[str, Any]) -> dict[str, Any]:
    """Tokens per second and the share of the card's peak, from what was logged."""
    data, metrics = results.figures["data"], read_metrics(output / "run" / "metrics.jsonl")
    tokens = data["prompt_tokens"] + data["answer_tokens"]
    records = RECORDS
    seconds = step_seconds(metrics)
    losses = [logged["loss"] for logged in metrics if "loss" in logged]
    evaluations = [logged for logged in metrics if "eval_parsed" in logged]
    peak = results.figures["matmul"]["flops"]

    def share(again: bool) -> float | None:
        return seconds and flops_of_step(shape, tokens, data["answer_tokens"], records, again) / seconds / peak

    return {
        "steps": max(logged["step"] for logged in metrics),
        "records_per_step": records,
        "seconds_per_step": seconds,
        "tokens_per_second": seconds and tokens * records / seconds,
        "share_of_peak": share(False),
        "share_of_peak_with_recomputation": share(config["gradient_checkpointing"]),
        "peak_memory_gib": {
            name: results.figures[name]["peak_bytes"] and results.figures[name]["peak_bytes"] / 2**30
            for name in ("resume", "longest")
            if name in results.figures
        },
        "loss": {"first": losses[0], "last": losses[-1]},
        "evaluations": [{"step": e["step"], "parsed": e["eval_parsed"]} for e in evaluations],
    }


def show(results: Results) -> None:
    """Print the figures and the seconds of every part."""
    figures, told = results.figures, results.figures["summary"]
    made = table("Trains", ("figure", "value"))
    made.add_row("card", figures["machine"]["card"])
    made.add_row("matrix product in bfloat16, TFLOP/s", f"{figures['matmul']['flops'] / 1e12:.3g}")
    made.add_row("tokens of a record", f"{figures['data']['prompt_tokens'] + figures['data']['answer_tokens']:.0f}")
    for name, key, form in (
        ("seconds a step", "seconds_per_step", ".3g"),
        ("tokens/s, padding not counted", "tokens_per_second", ".0f"),
        ("share of the card's peak", "share_of_peak", ".3f"),
        ("the same, the second forward pass counted", "share_of_peak_with_recomputation", ".3f"),
    ):
        made.add_row(name, _figure(told[key], form))
    for name, peak in told["peak_memory_gib"].items():
        where = f"{figures['data']['longest_tokens']} tokens" if name == "longest" else "usual records"
        made.add_row(f"peak memory, {where}, GiB", _figure(peak, ".1f"))
    made.add_row("loss, first and last", f"{told['loss']['first']:.3f}, {told['loss']['last']:.3f}")
    for evaluation in told["evaluations"]:
        made.add_row(f"outputs that parse, step {evaluation['step']}", f"{evaluation['parsed']:.2f}")
    for name, part in figures.items():
        if isinstance(part, dict) and "seconds" in part:
            made.add_row(f"seconds: {name}", f"{part['seconds']:.1f}")
    console.print(made)


def _figure(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


# The run


def train(
    output: Path,
    tokenizer_folder: Path,
    *,
    shape: str = "4b",
    steps: int = 60,
    count: int = 160,
    generate: int = 4,
    skip_merge: bool = False,
    skip_longest: bool = False,
) -> dict[str, Any]:
    """Do everything that has not been done yet, in the folder `output`; return all figures.

    The first checkpoint comes after half of the `steps`. For `generate` held-out records, the model writes evaluations.

    Raises:
        InputError: The folder holds another run's figures, or the tokenizer cannot be loaded.
        CrimsonError: A part failed.
    """
    settings = {"shape": shape, "steps": steps, "records": count, "generate": generate}
    results = Results(output / "train.json")
    if results.once("settings", lambda: settings) != settings:
        raise InputError(f"{output} holds a run with {results.figures['settings']}. Give another --output.")
    config = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise InputError(f"--tokenizer {tokenizer_folder} cannot be loaded: {str(error).splitlines()[0]}") from None
    encoder = RecordEncoder(tokenizer, str(tokenizer_folder), Prompt(**config["prompt"]))

    def part(name: str, work: Callable[[], Any]) -> None:
        if name not in results.figures:
            console.print(f"{name} …")
            results.once(name, lambda: timed(work))

    base = output / "base"
    part("matmul", lambda: matmul_rate(device))
    part("data", lambda: make_data(output, encoder, count, config["max_length"]))
    part("base", lambda: write_base(base, shape, tokenizer, encoder.end, device))
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()  # the recipe's own process needs it

    half = (steps + 1) // 2

    def trained(name: str, data: str, *more: str, until: Callable[[], bool] | None = None) -> dict[str, Any]:
        folder, log, told = output / name, output / "logs" / f"{name}.txt", output / "logs" / f"{name}.json"
        overrides = [f"base={base}", f"data={output / data}", f"output={folder}", f"effective_batch={RECORDS}", *more]
        finish(start(log, "recipe", CONFIG, told, *overrides), log, until)
        return {} if until else json.loads(told.read_text(encoding="utf-8"))

    whole = (f"max_steps={steps}", f"evaluation.steps={half}", f"evaluation.generate={generate}")
    if steps < 6 * config.get("log_steps", 10):
        whole += ("log_steps=1",)  # else no span of a short run holds nothing but steps

    def evaluated() -> bool:
        last = last_checkpoint(output / "run" / "checkpoints")
        return last is not None and was_evaluated(last)

    part("start", lambda: trained("run", "data", *whole, until=evaluated))
    part("resume", lambda: trained("run", "data", *whole))
    if not skip_longest:
        short = ("max_steps=2", "evaluation.steps=2", "evaluation.generate=0")
        part("longest", lambda: trained("longest", "data-longest", *short))
    if not skip_merge:
        log = output / "logs" / "merge.txt"
        merging = ("training.merge", output / "run" / "adapter", output / "merged", "--base", base)
        part("merge", lambda: finish(start(log, *merging), log))
    model = Gemma3TextConfig.from_pretrained(base)
    results.figures.pop("summary", None)  # there may be more to tell
    results.once("summary", lambda: summary(results, output, model, config))
    return results.figures


def main(
    output: Annotated[Path, typer.Option(help="Folder for the model, the data, the runs and train.json.")],
    tokenizer: Annotated[Path, typer.Option(help="Folder of Gemma's tokenizer, with a chat template.")],
    shape: Annotated[str, typer.Option(help=f"Of the model: {', '.join(SHAPES)}.")] = "4b",
    steps: Annotated[int, typer.Option(min=2, help="Of training.")] = 60,
    records: Annotated[int, typer.Option(min=8, help="To train on.")] = 160,
    generate: Annotated[int, typer.Option(min=0, help="Held-out records for which each evaluation generates.")] = 4,
    skip_merge: Annotated[bool, typer.Option("--skip-merge", help="Do not merge the adapter.")] = False,
    skip_longest: Annotated[bool, typer.Option("--skip-longest", help="Do not measure the longest records.")] = False,
) -> None:
    """Train the published recipe on a random model of the published shape, and measure its speed."""
    if shape not in SHAPES:
        raise InputError(f"--shape is {shape!r}. Use one of {', '.join(SHAPES)}.")
    train(
        output.resolve(),
        tokenizer.resolve(),
        shape=shape,
        steps=steps,
        count=records,
        generate=generate,
        skip_merge=skip_merge,
        skip_longest=skip_longest,
    )
    show(Results(output.resolve() / "train.json"))


if __name__ == "__main__":
    run(main)
