"""CRIMSON as a metric of lighteval, and a task that uses it.

    lighteval accelerate "model_name=my/generator" "crimson|0" --custom-tasks examples/harnesses/lighteval_task.py

CRIMSON_STUDIES names a folder (or a Hub id) whose test.jsonl has one study per row: prompt, reference and any of age, sex and
indication. CRIMSON_TASK_JUDGE names the judge, or it is offline.
"""

import os
from typing import Any

import numpy as np
from lighteval.metrics.metrics_sample import SampleLevelComputation
from lighteval.metrics.utils.metric_utils import SampleLevelMetric
from lighteval.models.model_output import ModelResponse
from lighteval.tasks.lighteval_task import LightevalTaskConfig
from lighteval.tasks.requests import Doc, SamplingMethod

from crimson_core import CrimsonScorer, make_pairs

CONTEXT = ("age", "sex", "indication")


class Crimson(SampleLevelComputation):
    """The score of each report; NaN where it could not be judged."""

    def __init__(self, judge: str = "offline") -> None:
        self.scorer = CrimsonScorer(judge)

    def compute(self, responses: list[ModelResponse], docs: list[Doc], **_: Any) -> list[float]:
        """All reports of a task at once, as a model judge wants them."""
        pairs = make_pairs(
            [response.final_text[0] for response in responses],
            [doc.choices[0] for doc in docs],
            [doc.specific for doc in docs],
        )
        return [result.crimson_score for result in self.scorer.score(pairs)]


metric = SampleLevelMetric(
    metric_name="crimson_score",
    higher_is_better=True,
    category=SamplingMethod.GENERATIVE,
    sample_level_fn=Crimson(os.environ.get("CRIMSON_TASK_JUDGE", "offline")),
    corpus_level_fn=np.nanmean,  # over the pairs that could be judged
    batched_compute=True,
)


def study(row: dict[str, Any], task_name: str) -> Doc:
    """A study as lighteval asks it."""
    context = {field: row.get(field) for field in CONTEXT}
    return Doc(query=row["prompt"], choices=[row["reference"]], gold_index=0, specific=context, task_name=task_name)


TASKS_TABLE = [
    LightevalTaskConfig(
        name="crimson",
        prompt_function=study,
        hf_repo=os.environ.get("CRIMSON_STUDIES", "studies"),
        hf_subset="default",
        hf_avail_splits=["test"],
        evaluation_splits=["test"],
        metrics=[metric],
        generation_size=256,
        stop_sequence=[],
        version=1,
    )
]
