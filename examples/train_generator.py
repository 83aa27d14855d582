"""Fine-tune a report generator with CRIMSON in its evaluation loop: `Seq2SeqTrainer(compute_metrics=...)`.

    python examples/train_generator.py my/encoder-decoder train.jsonl validation.jsonl

The files have one study per row: `prompt` (what the generator is given), `reference` (the radiologist's report), and any of
`age`, `sex` and `indication`.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import evaluate
import numpy as np
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    EvalPrediction,
    PreTrainedTokenizerBase,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)

METRIC = str(Path(__file__).resolve().parent.parent / "crimson_metric.py")
CONTEXT = ("age", "sex", "indication")
MAX_TOKENS = 256


def crimson_metrics(
    tokenizer: PreTrainedTokenizerBase, studies: datasets.Dataset, judge: str = "offline"
) -> Callable[[EvalPrediction], dict[str, float]]:
    """A `compute_metrics` that scores the generated reports of `studies`, in their order.

    References and contexts are taken from the studies themselves. Decoding them from the labels would judge against what the
    tokenizer cut off or did not know.
    """
    crimson = evaluate.load(METRIC, judge)
    fields = [field for field in CONTEXT if field in studies.column_names]
    references = [{"report": row["reference"], **{field: row[field] for field in fields}} for row in studies]

    def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
        # the trainer pads reports of unequal length with -100, which is no token
        ids = np.where(prediction.predictions == -100, tokenizer.pad_token_id, prediction.predictions)
        reports = tokenizer.batch_decode(ids, skip_special_tokens=True)
        results = crimson.compute(predictions=reports, references=references)
        # lists and words cannot be logged; an unscored pair is in no mean, so its number is
        return {key: value for key, value in results.items() if isinstance(value, (int, float))}

    return compute_metrics


def run(model: str, train_file: str, eval_file: str, output: str = "generator", **arguments: Any) -> dict[str, float]:
    """Train, and evaluate after each epoch; the model with the best mean CRIMSON score is kept."""
    tokenizer = AutoTokenizer.from_pretrained(model)

    def encode(rows: dict[str, list[str]]) -> dict[str, Any]:
        return tokenizer(rows["prompt"], text_target=rows["reference"], truncation=True, max_length=MAX_TOKENS)

    raw = datasets.load_dataset("json", data_files={"train": train_file, "eval": eval_file})
    data = {split: rows.map(encode, batched=True, remove_columns=rows.column_names) for split, rows in raw.items()}
    network = AutoModelForSeq2SeqLM.from_pretrained(model)
    trainer = Seq2SeqTrainer(
        model=network,
        args=Seq2SeqTrainingArguments(
            output,
            eval_strategy="epoch",
            save_strategy="epoch",
            predict_with_generate=True,
            generation_max_length=MAX_TOKENS,
            load_best_model_at_end=True,
            metric_for_best_model="crimson_score",
            greater_is_better=True,
            report_to="none",
            **arguments,
        ),
        train_dataset=data["train"],
        eval_dataset=data["eval"],
        data_collator=DataCollatorForSeq2Seq(tokenizer, network),
        processing_class=tokenizer,
        compute_metrics=crimson_metrics(tokenizer, raw["eval"]),
    )
    trainer.train()
    return trainer.evaluate()


if __name__ == "__main__":
    print(run(*sys.argv[1:]))
