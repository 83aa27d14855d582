"""CRIMSON as a scorer of inspect_ai.

    inspect eval examples/harnesses/inspect_scorer.py --model hf/my/generator -T studies=studies.jsonl

The file has one study per row: prompt, reference and any of age, sex and indication. Each sample's score holds the findings and
errors as metadata; a report that could not be judged has no score, and is in no mean.
"""

import asyncio
from typing import Any

from inspect_ai import Task, task
from inspect_ai.dataset import Sample, json_dataset
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr
from inspect_ai.solver import TaskState, generate

from crimson_core import CrimsonScorer, make_pairs

CONTEXT = ("age", "sex", "indication")


@scorer(metrics=[mean(), stderr()])
def crimson(judge: str = "offline") -> Scorer:
    """The CRIMSON score of what the model wrote, against the target."""
    scoring = CrimsonScorer(judge)
    one_at_a_time = asyncio.Lock()  # a judge is not asked by two threads

    async def score(state: TaskState, target: Target) -> Score | None:
        context = {field: state.metadata.get(field) for field in CONTEXT}
        pairs = make_pairs([state.output.completion], [target.text], [context])
        async with one_at_a_time:
            (result,) = await asyncio.to_thread(scoring.score, pairs)
        if result.evaluation is None:
            return None
        return Score(
            value=result.crimson_score,
            answer=state.output.completion,
            metadata={"signature": scoring.signature, "evaluation": result.evaluation},
        )

    return score


def _sample(row: dict[str, Any]) -> Sample:
    return Sample(input=row["prompt"], target=row["reference"], metadata={field: row.get(field) for field in CONTEXT})


@task
def reports(studies: str, judge: str = "offline") -> Task:
    """Reports for the studies of a JSONL file."""
    return Task(dataset=json_dataset(studies, _sample), solver=generate(), scorer=crimson(judge))
