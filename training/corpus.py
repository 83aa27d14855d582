"""A report corpus -> studies, each with its report, its patient context and the split that it belongs to."""

from dataclasses import dataclass, field
from typing import Literal

from crimson_core.report import PatientContext

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = Split.__args__


@dataclass(frozen=True)
class Study:
    """One study of a corpus.

    Attributes:
        id: Unique in the corpus.
        report: Its text, as it is to be judged.
        split: Studies of one patient, and reports with the same text, are in the same split.
        patient: Whose it is, where the corpus says so.
        context: All that the corpus knows of the patient; what a record includes of it is drawn later.
    """

    id: str
    report: str = field(repr=False)
    split: Split
    patient: str | None = None
    context: PatientContext | None = None
