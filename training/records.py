"""A training record: a report pair with its label and how it came about, one JSON line; and the answer that a model learns."""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from crimson_core.errors import InputError
from crimson_core.protocol.evaluation import SIGNIFICANCE_LEVELS, Evaluation
from crimson_core.protocol.pair import PatientContext, ReportPair, parse_context
from training.corpus import Split
from training.writers import Change, ErrorKind
from training.writers.forging import Forgery

DATASET_FILE = "dataset.json"  # beside the records: how they were made

AnswerStyle = Literal["compact", "reference"]

# Regimes by number, as the CRIMSON model card has them.
REGIMES = ("random report", "similar report", "rewrite", "false finding", "attribute error", "omission")


class Context(BaseModel):
    """The part of a patient context that a record holds; None where it was unknown or not included."""

    model_config = ConfigDict(extra="forbid")

    age: str | None = None
    sex: str | None = None
    indication: str | None = None


class Included(BaseModel):
    """Which fields were drawn to be included, whether or not the corpus knew them."""

    model_config = ConfigDict(extra="forbid")

    age: bool
    sex: bool
    indication: bool


class Record(BaseModel):
    """One training record.

    Attributes:
        id: Unique, and the same in every run with the same seed.
        split: Of the study.
        study: Id of the study whose report is the ground truth.
        candidate_study: Id of the study whose report is the candidate, in regimes 0 and 1.
        regime: Position in `REGIMES`; with two error types that of the first.
        error_types: The kinds of error that the candidate was written with; none in regimes 0 to 2.
        changes: What was changed for each of them.
        forgery: What the candidate holds beside its report to win a judge over, if anything.
        raw_evaluation: The label, in the wire format.
        crimson_score: Its score in (-1, 1].
        label_source: The judge's signature, or `construction` with the writer's.
        writer: Signature of the writer, None in regimes 0 and 1.
        seed: Of the whole run.
    """

    model_config = ConfigDict(extra="forbid")

    id: str
    split: Split
    study: str
    candidate_study: str | None = None
    ground_truth: str
    candidate: str
    patient_context: Context
    context_included: Included
    regime: int
    error_types: list[ErrorKind]
    changes: list[Change]
    forgery: Forgery | None = None
    raw_evaluation: dict[str, Any]
    crimson_score: float
    label_source: str
    writer: str | None = None
    seed: int

    @property
    def pair(self) -> ReportPair:
        """The report pair, as a judge would get it."""
        context = parse_context(self.patient_context.model_dump(), f"record {self.id}")
        return ReportPair(self.ground_truth, self.candidate, context, self.id)


def line_of(record: Record) -> str:
    """A record as a JSON line that the reference implementation's trainer takes too: it would print a field of the patient
    context that is null as "None".
    """
    data = record.model_dump()
    data["patient_context"] = {key: value for key, value in data["patient_context"].items() if value is not None}
    return json.dumps(data, ensure_ascii=False) + "\n"


def without_marks(evaluation: dict[str, Any]) -> dict[str, Any]:
    """An evaluation without the places of its findings, which are no part of what a model learns."""
    marked = ("reference_findings", "predicted_findings")
    bare = {name: [{k: v for k, v in f.items() if k != "span"} for f in evaluation[name]] for name in marked}
    return evaluation | bare


def read_records(path: Path) -> list[Record]:
    """The records of a file.

    Raises:
        InputError: It cannot be read, or holds something else; names the line.
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
        style: `compact` has the keys in the schema's order and no blanks; `reference` is what the reference implementation's
            trainer makes of a label: its own order of keys, blanks behind signs, escapes for what is not ASCII.

    Raises:
        ValueError: The evaluation is none.
    """
    evaluation = Evaluation.model_validate(raw_evaluation)
    errors = evaluation.errors
    data = {
        "reference_findings": [_finding(f) for f in evaluation.reference_findings],
        "predicted_findings": [_finding(f) for f in evaluation.predicted_findings],
        "matched_findings": [{"ref_id": m.ref_id, "pred_id": m.pred_id} for m in evaluation.matched_findings],
        "errors": {
            "false_findings": errors.false_findings,
            "missing_findings": errors.missing_findings,
            "attribute_errors": [
                {
                    "ref_id": e.ref_id,
                    "pred_id": e.pred_id,
                    "severity": e.severity,
                    "error_types": e.error_types,
                    "explanation": e.explanation,
                }
                for e in errors.attribute_errors
            ],
        },
    }
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


def _finding(finding: Any) -> dict[str, str]:
    if finding.clinical_significance not in SIGNIFICANCE_LEVELS:
        raise ValueError(f"finding {finding.id[:8]!r} has no known clinical significance")
    return {
        "id": finding.id,
        "finding": " ".join(finding.finding.split()),  # a span may run over the end of a line
        "clinical_significance": finding.clinical_significance,
    }
