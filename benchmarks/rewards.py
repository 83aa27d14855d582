"""The cost of a reward per sample, compared with published costs of other report metrics."""

import time
from statistics import median
from typing import Annotated

import typer

from benchmarks.common import JUDGE_HELP, JsonOption, RadPrefArgument, console, report_pairs, run, table, write_json
from crimson_core.rewards import crimson_reward

# Milliseconds per sample as rewards on an A100, as RadEval publishes them.
PUBLISHED = {"BLEU": 0.09, "F1CheXbert": 1.75, "RadGraph": 158.0, "GREEN": 2210.0}


def main(
    file: RadPrefArgument,
    judge: Annotated[str, typer.Option("--judge", "-j", help=JUDGE_HELP)] = "offline",
    rounds: Annotated[int, typer.Option(min=1, help="Calls over all candidates; the median counts.")] = 9,
    json_file: JsonOption = None,
) -> None:
    """Time the reward function over the candidates of RadPref, in this process."""
    pairs = report_pairs(file)
    completions = [[{"role": "assistant", "content": pair.candidate}] for pair in pairs]
    columns = {
        "reference": [pair.reference for pair in pairs],
        "patient": [pair.context.as_dict() if pair.context else None for pair in pairs],
    }
    reward = crimson_reward(judge, context_column="patient")
    reward(completions[:1], **{name: values[:1] for name, values in columns.items()})  # what is done once only
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        rewards = reward(completions, **columns)
        seconds.append((time.perf_counter() - started) / len(pairs))
    cost = median(seconds) * 1000

    made = table("Reward, cost per sample", ("metric", "ms", "where"))
    made.columns[2].justify = "left"
    made.add_row(f"CRIMSON, {judge}", f"{cost:.2f}", f"here: median of {rounds} calls with {len(pairs)} completions")
    for name, published in PUBLISHED.items():
        made.add_row(name, f"{published:g}", "published by RadEval, on an A100")
    console.print(made)
    console.print(f"{rewards.count(None)} of {len(rewards)} completions could not be judged.")
    write_json(json_file, {"judge": judge, "milliseconds": cost, "seconds": seconds, "published": PUBLISHED})


if __name__ == "__main__":
    run(main)
