"""Report pairs and patient contexts, and the checks of what callers give.

Texts stay exactly as they were written, since finding spans and the published model's prompt depend on it. Only what
cannot be a report or a context is refused.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import repeat
from numbers import Real
from typing import Any

from crimson_core.errors import InputError

CONTEXT_FIELDS = ("age", "sex", "indication")

_YEARS_PER_UNIT = {"d": 1 / 365.25, "w": 7 / 365.25, "m": 1 / 12, "y": 1.0}
# "65", "072Y" and "006M" (DICOM), "65 years", "65-year-old", "6 months", ">89", "90+"
_AGE = re.compile(
    r"[<>~]?\s*(?P<number>\d{1,3}(?:\.\d+)?)\s*\+?[\s-]*"
    r"(?P<unit>days?|d|weeks?|wks?|w|months?|mos?|m|years?|yrs?|y)?(?:[\s/-]*o(?:ld|\.)?)?\.?",
    re.IGNORECASE,
)
_OLDEST = 130.0  # years
_NO_AGE = frozenset({"unknown", "unk", "n/a", "na", "nan", "none", "null", "not available", "-", "?"})


@dataclass(frozen=True)
class PatientContext:
    """Age, sex and indication of a patient; each may be missing (None).

    Attributes:
        age: As written, for example "65", "65-year-old" or the DICOM form "072Y".
        sex: As written.
        indication: Why the radiograph was taken, as written.
        keys: The keys of the present fields, in the caller's order and spelling. The reference implementation prints
            its caller's keys into the prompt, so a model judge must see the same.
    """

    age: str | None = field(default=None, repr=False)  # patient data stays out of logs and tracebacks
    sex: str | None = field(default=None, repr=False)
    indication: str | None = field(default=None, repr=False)
    keys: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Fill in `keys`, if not given, in the order of `CONTEXT_FIELDS`."""
        if self.keys is None:
            object.__setattr__(self, "keys", tuple(k for k in CONTEXT_FIELDS if getattr(self, k) is not None))

    @property
    def age_years(self) -> float | None:
        """Age in years (months, weeks and days as fractions); None if unknown."""
        return None if self.age is None else parse_age(self.age)

    def as_dict(self) -> dict[str, str]:
        """The present fields, with the caller's keys and in the caller's order."""
        return {key: getattr(self, key.lower()) for key in self.keys or ()}


@dataclass(frozen=True)
class ReportPair:
    """One reference report and one candidate report, with an optional patient context and id."""

    reference: str = field(repr=False)
    candidate: str = field(repr=False)
    context: PatientContext | None = None
    id: str | None = None


def parse_age(text: str) -> float | None:
    """Age in years from "65", "072Y", "6 months", "65-year-old", ">89" …; None if it cannot be read."""
    match = _AGE.fullmatch(text.strip())
    if not match:
        return None
    years = float(match["number"]) * _YEARS_PER_UNIT[(match["unit"] or "y")[0].lower()]
    return years if years <= _OLDEST else None


def is_missing(value: Any) -> bool:
    """Whether a cell is empty: None, or the NaN of Python, numpy or pandas."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, (Real, Decimal)) and value != value


def check_report(value: Any, where: str) -> str:
    """Return `value` if it is a report, else raise an `InputError` that names `where`.

    An empty report is legal: it has no findings.
    """
    if is_missing(value):
        raise InputError(f"{where} is missing ({value}). Give the report as a string; '' stands for an empty report.")
    if not isinstance(value, str):
        raise InputError(f"{where} is of type {type(value).__name__}. Give the report as a string.")
    _check_unicode(value, where)
    return value


def parse_context(value: Any, where: str) -> PatientContext | None:
    """A `PatientContext` from a mapping with the keys age, sex and indication, in any letter case.

    Empty fields (None, NaN, blank) count as missing; a context without any field is None.

    Raises:
        InputError: Not a mapping, an unknown key, an unreadable age, or a field that is not a string.
    """
    if is_missing(value):
        return None
    if isinstance(value, PatientContext):
        return value if value.keys else None
    if not isinstance(value, Mapping):
        raise InputError(
            f"{where} is of type {type(value).__name__}. Give a dict with any of the keys age, sex and indication, or None."
        )
    fields: dict[str, str] = {}
    keys: list[str] = []
    for key, raw in value.items():
        name = key.lower() if isinstance(key, str) else key
        if name not in CONTEXT_FIELDS:
            raise InputError(f"{where} has the unknown key {str(key)[:40]!r}. The keys are age, sex and indication.")
        if name in fields:
            raise InputError(f"{where} gives {name} twice, in different letter case. Keep one of the two.")
        text = _context_text(raw, name, where)
        if text is not None:
            fields[name] = text
            keys.append(key)
    return PatientContext(**fields, keys=tuple(keys)) if fields else None


def make_pairs(
    predictions: Iterable[str],
    references: Iterable[str | Mapping[str, Any]],
    patient_contexts: Iterable[Mapping[str, Any] | PatientContext | None] | None = None,
    ids: Iterable[Any] | None = None,
    where: Callable[[str, int], str] = "{}[{}]".format,
) -> list[ReportPair]:
    """Check columns of reports and zip them into report pairs.

    Args:
        predictions: Candidate reports.
        references: Reference reports, or records with the key `report` and any of age, sex and indication.
        patient_contexts: One mapping or None per pair, unless the references contain the contexts.
        ids: One id per pair; may be None.
        where: Formats the name of an argument and a row for error messages.

    Raises:
        InputError: The input is invalid; the message names the argument and the row.
    """
    given: dict[str, Any] = {"predictions": predictions, "references": references}
    given |= {k: v for k, v in {"patient_contexts": patient_contexts, "ids": ids}.items() if v is not None}
    # As lists, since a sorted or filtered pandas Series iterates by position and is indexed by label.
    columns = {name: _as_list(column, name) for name, column in given.items()}
    for name, column in columns.items():
        if len(column) != len(columns["predictions"]):
            raise InputError(
                f"predictions has {len(columns['predictions'])} entries and {name} has {len(column)}. "
                "Give one entry per report pair."
            )
    if not columns["predictions"]:
        raise InputError("predictions is empty: there is nothing to score. Give at least one report pair.")

    contexts = columns.get("patient_contexts") or repeat(None)
    own = columns.get("ids") or repeat(None)
    pairs = []
    for row, (candidate, report, given, pair_id) in enumerate(
        zip(columns["predictions"], columns["references"], contexts, own, strict=False)
    ):
        context = None
        # What is fine is passed at once: for millions of pairs, even the name of a place takes long to write.
        if not _is_text(candidate):
            candidate = check_report(candidate, where("predictions", row))
        if not _is_text(report):
            report, context = split_reference(report, where("references", row))
        if given is not None:
            beside = parse_context(given, where("patient_contexts", row))
            if beside and context:
                raise InputError(
                    f"{where('patient_contexts', row)} is given, and {where('references', row)} contains a context too. "
                    "Give it once."
                )
            context = beside or context
        if not _is_text(pair_id):
            pair_id = None if is_missing(pair_id) else str(pair_id)
            if pair_id is not None:
                _check_unicode(pair_id, where("ids", row))
        pairs.append(ReportPair(report, candidate, context, pair_id))
    return pairs


def _is_text(value: Any) -> bool:
    """Whether a value is a string of valid Unicode."""
    if type(value) is not str:
        return False
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _as_list(column: Any, name: str) -> list[Any]:
    if column is None:
        raise InputError(f"{name} is missing. Give a list with one entry per report pair.")
    if hasattr(column, "columns"):
        raise InputError(
            f"{name} is a table. Give one of its columns, or its records (`to_dict('records')` in pandas)."
        )
    if isinstance(column, (str, bytes, Mapping, Set)) or not isinstance(column, Iterable):
        raise InputError(f"{name} is of type {type(column).__name__}. Give a list with one entry per report pair.")
    return list(column)


def split_reference(reference: Any, where: str) -> tuple[str, PatientContext | None]:
    """Report text and context of a reference, which is a string or a record with `report` and context fields."""
    if not isinstance(reference, Mapping):
        return check_report(reference, where), None
    if "report" not in reference:
        raise InputError(
            f"{where} is a record without the key 'report'. Give {{'report': …, 'age': …, 'sex': …, 'indication': …}}."
        )
    context = parse_context({k: v for k, v in reference.items() if k != "report"}, where)
    return check_report(reference["report"], f"{where}['report']"), context


def _is_moderate(number: Real | Decimal) -> bool:
    try:
        return abs(float(number)) < 1000
    except OverflowError:  # an integer with hundreds of digits
        return False


def _context_text(raw: Any, name: str, where: str) -> str | None:
    if is_missing(raw):
        return None
    if name == "age" and isinstance(raw, (Real, Decimal)) and not isinstance(raw, bool) and _is_moderate(raw):
        years = float(raw)  # a column of ages with gaps is a column of floats
        raw = f"{years:.0f}" if years.is_integer() else f"{years:.6g}"
    if name == "age" and isinstance(raw, Real) and not isinstance(raw, bool):
        raise _no_age(where)
    if not isinstance(raw, str):
        raise InputError(
            f"{where}[{name!r}] is of type {type(raw).__name__}. Give a string, or leave it out if unknown."
        )
    _check_unicode(raw, f"{where}[{name!r}]")
    if not raw.strip() or (name == "age" and raw.strip().lower() in _NO_AGE):
        return None
    if name == "age" and parse_age(raw) is None:
        raise _no_age(where)
    return raw


def _no_age(where: str) -> InputError:
    return InputError(
        f"{where}['age'] can't be read. Give years (65), a DICOM age (065Y, 006M, 003D) or words (6 months), "
        "or leave it out if unknown."
    )


def _check_unicode(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{where} is not valid Unicode text (character {error.start}). Read the file again with its right encoding."
        ) from None
