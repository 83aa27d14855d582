"""Evaluate a report generator with `evaluate`'s evaluator: data set -> pipeline -> CRIMSON.

    python examples/evaluate_generator.py my/generator studies.jsonl

The file has one study per row: `prompt` (what the generator is given), `reference` (the radiologist's report), and any of
`age`, `sex` and `indication`.
"""

import sys
from pathlib import Path
from typing import Any

import datasets
import evaluate
from evaluate.evaluator.utils import DatasetColumn
from transformers import Pipeline, pipeline

METRIC = str(Path(__file__).resolve().parent.parent / "crimson_metric.py")
CONTEXT = ("age", "sex", "indication")


class ReportEvaluator(evaluate.TextGenerationEvaluator):
    """Text generation that is compared with reference reports, each with its patient's context."""

    def prepare_pipeline(self, model_or_pipeline: Pipeline, **_: Any) -> Pipeline:
        """The pipeline as it is: evaluate 0.4.6 would look for a TensorFlow class that Transformers 5 no longer has."""
        return model_or_pipeline

    def prepare_data(
        self, data: datasets.Dataset, input_column: str, label_column: str, **_: Any
    ) -> tuple[dict[str, Any], DatasetColumn]:
        """The metric's references as records, and the pipeline's inputs."""
        self.check_required_columns(data, {"input_column": input_column, "label_column": label_column})
        fields = [field for field in CONTEXT if field in data.column_names]
        references = [{"report": row[label_column], **{field: row[field] for field in fields}} for row in data]
        return {"references": references}, DatasetColumn(data, input_column)

    def predictions_processor(self, predictions: list[list[dict[str, str]]], *_: Any) -> dict[str, list[str]]:
        """The metric's predictions: one generated text per study."""
        return {"predictions": [generated["generated_text"] for (generated,) in predictions]}


def run(model: str, file: str, judge: str = "offline", **generation: Any) -> dict[str, Any]:
    """Score what a causal language model writes for each study of a JSONL file."""
    data = datasets.load_dataset("json", data_files=file, split="train")
    generate = pipeline("text-generation", model, return_full_text=False, do_sample=False, **generation)
    return ReportEvaluator().compute(
        generate,
        data,
        metric=evaluate.load(METRIC, judge),
        input_column="prompt",
        label_column="reference",
    )


if __name__ == "__main__":
    for key, value in run(*sys.argv[1:]).items():
        if not isinstance(value, (list, dict)):
            print(key, value)
