"""A training record: one JSON line with a report pair, its label and its origin; and the answer that a model learns from it."""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from crimson_core.errors import InputError
from crimson_core.protocol.evaluation import SIGNIFICANCE_LEVELS, Evaluation
from crimson_core.protocol.pair import PatientContext, ReportPair, parse_context
from crimson_core.run.config_file import Strict
from training.corpus import Split
from training.writers import Change, ErrorKind
from training.writers.forging import Forgery

DATASET_FILE = "dataset.json"  # beside the records: how they were made

AnswerStyle = Literal["compact", "reference"]

# The ways to make a candidate ("regimes"), numbered as in the CRIMSON model card.
REGIMES = ("random report", "similar report", "rewrite", "false finding", "attribute error", "omission")


class Context(Strict):
    """The part of a patient context that a record contains; None where it was unknown or not included."""

    age: str | None = None
    sex: str | None = None
    indication: str | None = None


class Included(Strict):
    """The fields that were drawn to be included, whether or not the corpus knew them."""

    age: bool
    sex: bool
    indication: bool


class Record(Strict):
    """One training record."""

    id: str  # unique, and the same in every run with the same seed
    split: Split
    study: str  # id of the study whose report is the ground truth
    candidate_study: str | None = None  # id of the study whose report is the candidate, in regimes 0 and 1
    ground_truth: str
    candidate: str
    patient_context: Context
    context_included: Included
    regime: int  # position in `REGIMES`; with two kinds of error, that of the first one
    error_types: list[ErrorKind]  # the kinds of error in the candidate; empty in regimes 0 to 2
    changes: list[Change]  # the change that makes each error
    forgery: Forgery | None = None  # what the candidate contains beside its report to deceive a judge, if anything
    raw_evaluation: dict[str, Any]  # the label, in the wire format
    crimson_score: float  # its score in (-1, 1]
    label_source: str  # the judge's signature, or `construction` with the writer's
    writer: str | None = None  # the writer's signature; None in regimes 0 and 1
    seed: int  # seed of the run

    @property
    def pair(self) -> ReportPair:
        """The report pair that a judge gets."""
        context = parse_context(self.patient_context.model_dump(), f"record {self.id}")
        return ReportPair(self.ground_truth, self.candidate, context, self.id)


def line_of(record: Record) -> str:
    """A record as a JSON line that the reference implementation's trainer accepts too.

    That trainer would print a null field of the patient context as "None", so these are left out.
    """
    data = record.model_dump()
    data["patient_context"] = {key: value for key, value in data["patient_context"].items() if value is not None}
    return json.dumps(data, ensure_ascii=False) + "\n"


def without_marks(evaluation: dict[str, Any]) -> dict[str, Any]:
    """An evaluation without the spans of its findings, which a model does not learn."""
    marked = ("reference_findings", "predicted_findings")
    bare = {name: [{k: v for k, v in f.items() if k != "span"} for f in evaluation[name]] for name in marked}
    return evaluation | bare


def read_records(path: Path) -> list[Record]:
    """The records of a file.

    Raises:
        InputError: It cannot be read, or contains something else; names the line.
    """
    records = []
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                try:
                    records.append(Record.model_validate_json(line))
                except ValueError:
                    raise InputError(
                        f"{path} line {number} is no training record. Write it with training.generate."
                    ) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. Write it with training.generate.") from None
    if not records:
        raise InputError(f"{path} holds no records. Ask training.generate for some of this split.")
    return records


def context_of(context: PatientContext | None, included: Included) -> Context:
    """The fields of a patient context that are included."""
    drawn = included.model_dump()
    return Context(**{key: getattr(context, key) for key in drawn if context and drawn[key]})


def answer_of(raw_evaluation: dict[str, Any], style: AnswerStyle = "compact") -> str:
    """The text that a model learns to write: an evaluation as JSON, with the keys of the schema only.

    Args:
        raw_evaluation: A label.
        style: `compact` has the keys in the schema's order and no blanks. `reference` is what the reference implementation's
            trainer makes of a label: keys in the label's order, blanks after punctuation, escapes for non-ASCII characters.

    Raises:
        ValueError: The label is not an evaluation.
    """
    evaluation = Evaluation.model_validate(raw_evaluation)
    for finding in (*evaluation.reference_findings, *evaluation.predicted_findings):
        if finding.clinical_significance not in SIGNIFICANCE_LEVELS:
            raise ValueError(f"finding {finding.id[:8]!r} has no known clinical significance")
        finding.finding = " ".join(finding.finding.split())  # a span may run over the end of a line
    data = _declared(evaluation)
    if style == "reference":
        return json.dumps(_with_keys_of(data, raw_evaluation))
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))


def _with_keys_of(data: Any, label: Any) -> Any:
    """A label without the keys that `data` lacks."""
    if isinstance(data, dict):
        return {key: _with_keys_of(data[key], value) for key, value in label.items() if key in data}
    if isinstance(data, list):
        return [_with_keys_of(*both) for both in zip(data, label, strict=True)]
    return label


def _declared(value: Any) -> Any:
    """Data of a model without extra keys."""
    if isinstance(value, BaseModel):
        return {name: _declared(getattr(value, name)) for name in type(value).model_fields}
    return [_declared(one) for one in value] if isinstance(value, list) else value
