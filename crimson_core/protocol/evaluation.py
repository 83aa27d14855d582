"""The evaluation: a judge's findings, matches and errors for one report pair, in the wire format of `crimson-score`.

A judge's text is parsed, its shape is checked, and contradictions to the matches are repaired visibly. The JSON schema
here also makes the grammar of constrained generation and the structured output of API judges.
"""

import json
import re
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

Significance = Literal["urgent", "actionable_not_urgent", "not_actionable_not_urgent", "benign_expected"]
SIGNIFICANCE_LEVELS: tuple[str, ...] = get_args(Significance)
ErrorType = Literal[
    "location", "severity", "descriptor", "measurement", "certainty", "unspecific", "overinterpretation", "temporal"
]
ERROR_TYPES: tuple[str, ...] = get_args(ErrorType)
Grade = Literal["significant", "negligible"]
GRADES: tuple[str, ...] = get_args(Grade)


class _Record(BaseModel):
    model_config = ConfigDict(extra="allow")

    def __repr_args__(self) -> Iterator[tuple[str, Any]]:
        """Ids and lengths of lists only: findings quote reports, which stay out of logs and tracebacks."""
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, list):
                yield name, len(value)
            elif isinstance(value, _Record):
                yield name, value
            elif name.endswith("id"):
                yield name, _short(value)


class Finding(_Record):
    """One abnormal observation. A significance outside `SIGNIFICANCE_LEVELS` is legal and weighs 0.25."""

    id: str
    finding: str
    clinical_significance: str = ""


class Match(_Record):
    """A reference finding and a predicted finding that are the same observation."""

    ref_id: str
    pred_id: str


class AttributeError(_Record):  # noqa: A001 - the field's own term; nothing here catches the builtin
    """An error on a match: its types, its grade (`severity`) and an explanation."""

    ref_id: str
    pred_id: str
    severity: str = ""
    error_types: list[str] = Field(default_factory=list)
    explanation: str = ""

    @field_validator("error_types", mode="before")
    @classmethod
    def _one_type_is_a_list(cls, value: Any) -> Any:
        return [part.strip() for part in re.split(r"[|,]", value)] if isinstance(value, str) else value


class Errors(_Record):
    """The errors of an evaluation; false and missing findings are listed by id."""

    false_findings: list[str] = Field(default_factory=list)
    missing_findings: list[str] = Field(default_factory=list)
    attribute_errors: list[AttributeError] = Field(default_factory=list)


class Evaluation(_Record):
    """A judge's evaluation of one report pair. `model_dump()` gives the wire format."""

    reference_findings: list[Finding] = Field(default_factory=list)
    predicted_findings: list[Finding] = Field(default_factory=list)
    matched_findings: list[Match] = Field(default_factory=list)
    errors: Errors = Field(default_factory=Errors)


def parse_evaluation(text: str) -> tuple[Evaluation, list[str]]:
    """The evaluation in a judge's complete output, also inside prose or a code fence.

    Returns:
        The evaluation, and a list of repairs: one line if json-repair had to mend the JSON, else empty.

    Raises:
        ValueError: The text contains no evaluation; the message says why, without report text.
    """
    if "{" not in text:
        raise ValueError("the output holds no JSON object")
    whole = set(Evaluation.model_fields)
    for data in _objects(text):
        if whole <= data.keys():
            return check_evaluation(_without_lone_surrogates(data)), []
    if _is_cut(text):
        # json-repair would close the open brackets, and the missing rest would count as left out: a wrong score.
        raise ValueError("the output ends before its JSON does")
    try:
        import json_repair  # here, since most outputs need no repair

        mended: Any = json_repair.loads(text[text.index("{") :])
    except (RecursionError, ValueError):
        raise ValueError("the output holds JSON that cannot be mended") from None
    if isinstance(mended, list):  # several top-level objects; the first one is the answer
        mended = next((item for item in mended if isinstance(item, dict)), None)
    return check_evaluation(_without_lone_surrogates(mended)), ["output: was no valid JSON and has been mended"]


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """The valid, outermost JSON objects in a text, in order."""
    decoder = json.JSONDecoder()
    start = text.find("{")
    while start >= 0:
        try:
            data, start = decoder.raw_decode(text, start)
            yield data
        except (ValueError, RecursionError):
            start += 1
        start = text.find("{", start)


def _is_cut(text: str) -> bool:
    """Whether a bracket or a string is still open at the end."""
    depth, quoted, escaped = 0, False, False
    for character in text[text.index("{") :]:
        if quoted:
            quoted = escaped or character != '"'
            escaped = not escaped and character == "\\"
        elif character == '"':
            quoted = True
        else:
            depth += (character in "{[") - (character in "}]")
    return quoted or depth > 0


def check_evaluation(data: Any) -> Evaluation:
    """Parse `data` from the wire format.

    All four top-level keys are required: without one of them the judge did not finish its answer, and the score of the
    rest would be wrong.

    Raises:
        ValueError: The shape is wrong; the message names the place, without report text.
    """
    if not isinstance(data, dict):
        raise ValueError("the output is not a JSON object")
    lacking = [key for key in Evaluation.model_fields if key not in data]
    if lacking:
        raise ValueError(f"the output lacks {', '.join(lacking)}")
    try:
        return Evaluation.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"the output does not fit the format at {place}: {first['msg']}") from None


def repair_evaluation(evaluation: Evaluation) -> tuple[Evaluation, list[str]]:
    """Make an evaluation consistent; where its parts contradict each other, `matched_findings` wins.

    Returns:
        The consistent evaluation, and one line per repair. The lines name ids and rules only, no report text.
    """
    repairs: list[str] = []
    evaluation = _respelled(evaluation, repairs)
    references = _unique_ids(evaluation.reference_findings, "reference_findings", repairs)
    predictions = _unique_ids(evaluation.predicted_findings, "predicted_findings", repairs)
    ref_ids, pred_ids = {f.id: None for f in references}, {f.id: None for f in predictions}

    matches: dict[tuple[str, str], Match] = {}
    for match in evaluation.matched_findings:
        pair = (match.ref_id, match.pred_id)
        if match.ref_id not in ref_ids or match.pred_id not in pred_ids:
            repairs.append(f"matched_findings: dropped {_arrow(pair)}, an id without a finding")
        elif pair in matches:
            repairs.append(f"matched_findings: dropped a second {_arrow(pair)}")
        else:
            matches[pair] = match

    missing = _unmatched(
        ref_ids, {r for r, _ in matches}, evaluation.errors.missing_findings, "missing_findings", repairs
    )
    false = _unmatched(pred_ids, {p for _, p in matches}, evaluation.errors.false_findings, "false_findings", repairs)
    attribute_errors = []
    for error in evaluation.errors.attribute_errors:
        if (error.ref_id, error.pred_id) in matches:
            attribute_errors.append(error)
        else:
            repairs.append(
                f"attribute_errors: dropped one on {_arrow((error.ref_id, error.pred_id))}, which is no match"
            )

    if not repairs:
        return evaluation, repairs
    errors = evaluation.errors.model_copy(
        update={"false_findings": false, "missing_findings": missing, "attribute_errors": attribute_errors}
    )
    repaired = evaluation.model_copy(
        update={
            "reference_findings": references,
            "predicted_findings": predictions,
            "matched_findings": list(matches.values()),
            "errors": errors,
        }
    )
    return repaired, repairs


def evaluation_schema(max_findings: int | None = None, max_text: int | None = None) -> dict[str, Any]:
    """The JSON schema of an evaluation: every key is required, and no others are allowed.

    Args:
        max_findings: Maximum entries of a list of findings, matches or errors; None for no limit.
        max_text: Maximum characters of a finding or an explanation; None for no limit (OpenAI's strict structured
            output supports none).
    """
    text: dict[str, Any] = {"type": "string"} | ({"maxLength": max_text} if max_text else {})

    def array(items: dict[str, Any], most: int | None = max_findings) -> dict[str, Any]:
        return {"type": "array", "items": items} | ({"maxItems": most} if most else {})

    def record(**properties: dict[str, Any]) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }

    def finding_id(letter: str) -> dict[str, Any]:
        return {"type": "string", "pattern": f"^{letter}[1-9][0-9]?$"}

    def finding(letter: str) -> dict[str, Any]:
        return record(
            id=finding_id(letter),
            finding=text,
            clinical_significance={"type": "string", "enum": list(SIGNIFICANCE_LEVELS)},
        )

    pair = {"ref_id": finding_id("R"), "pred_id": finding_id("P")}
    attribute_error = record(
        **pair,
        severity={"type": "string", "enum": list(GRADES)},
        error_types=array({"type": "string", "enum": list(ERROR_TYPES)}, max_findings and len(ERROR_TYPES)),
        explanation=text,
    )
    return record(
        reference_findings=array(finding("R")),
        predicted_findings=array(finding("P")),
        matched_findings=array(record(**pair)),
        errors=record(
            false_findings=array(finding_id("P")),
            missing_findings=array(finding_id("R")),
            attribute_errors=array(attribute_error),
        ),
    )


def _without_lone_surrogates(data: Any) -> Any:
    """Parsed JSON without lone surrogates, which a model may write as escapes and no file can store."""
    text = json.dumps(data, ensure_ascii=False)
    return json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


def _respelled(evaluation: Evaluation, repairs: list[str]) -> Evaluation:
    """Ids and levels without stray blanks and in their usual letter case ("r1 " and "Urgent" are corrected)."""
    errors = evaluation.errors
    findings = [*evaluation.reference_findings, *evaluation.predicted_findings]
    pairs: list[Match | AttributeError] = [*evaluation.matched_findings, *errors.attribute_errors]
    ids = [f.id for f in findings] + [i for pair in pairs for i in (pair.ref_id, pair.pred_id)]
    ids += errors.false_findings + errors.missing_findings
    levels = [f.clinical_significance for f in findings] + [e.severity for e in errors.attribute_errors]
    levels += [kind for e in errors.attribute_errors for kind in e.error_types]
    if list(map(_as_id, ids)) == ids and list(map(_as_level, levels)) == levels:
        return evaluation
    repairs.append("spelling: ids or levels had other letter case or blanks")
    return evaluation.model_copy(
        update={
            "reference_findings": [_respelled_record(f) for f in evaluation.reference_findings],
            "predicted_findings": [_respelled_record(f) for f in evaluation.predicted_findings],
            "matched_findings": [_respelled_record(m) for m in evaluation.matched_findings],
            "errors": errors.model_copy(
                update={
                    "false_findings": [_as_id(i) for i in errors.false_findings],
                    "missing_findings": [_as_id(i) for i in errors.missing_findings],
                    "attribute_errors": [_respelled_record(e) for e in errors.attribute_errors],
                }
            ),
        }
    )


def _respelled_record(record: Any) -> Any:
    respell: dict[str, Callable[[Any], Any]] = {
        "id": _as_id,
        "ref_id": _as_id,
        "pred_id": _as_id,
        "clinical_significance": _as_level,
        "severity": _as_level,
    }
    respell["error_types"] = lambda kinds: [_as_level(kind) for kind in kinds]
    declared = type(record).model_fields
    return record.model_copy(update={key: act(getattr(record, key)) for key, act in respell.items() if key in declared})


def _as_id(text: str) -> str:
    return text.strip().upper()


def _as_level(text: str) -> str:
    return text.strip().lower()


def _unique_ids(findings: list[Finding], where: str, repairs: list[str]) -> list[Finding]:
    """Findings with unique ids: a repeated finding is dropped, another finding under a used id gets a free one."""
    taken = {finding.id for finding in findings}
    kept: dict[str, Finding] = {}
    for finding in findings:
        if finding.id not in kept:
            kept[finding.id] = finding
        elif kept[finding.id] == finding:
            repairs.append(f"{where}: dropped a second {_short(finding.id)}")
        else:
            number = next(n for n in count(2) if f"{finding.id}.{n}" not in taken)
            fresh = f"{finding.id}.{number}"
            taken.add(fresh)
            kept[fresh] = finding.model_copy(update={"id": fresh})
            repairs.append(
                f"{where}: {_short(finding.id)} stood for two findings; the later one is now {_short(fresh)}"
            )
    return list(kept.values())


def _unmatched(ids: dict[str, None], matched: set[str], said: list[str], where: str, repairs: list[str]) -> list[str]:
    """The ids without a match, those that the judge listed first; differences from its list `said` are repairs."""
    kept: dict[str, None] = {}
    for i in said:
        if i not in ids:
            repairs.append(f"{where}: dropped {_short(i)}, an id without a finding")
        elif i in matched:
            repairs.append(f"{where}: dropped {_short(i)}, which has a match")
        elif i in kept:
            repairs.append(f"{where}: dropped a second {_short(i)}")
        else:
            kept[i] = None
    for i in ids:
        if i not in matched and i not in kept:
            repairs.append(f"{where}: added {_short(i)}, which has no match")
            kept[i] = None
    return list(kept)


def _short(finding_id: str) -> str:
    """An id for a message. A judge may have written report text instead, which no message may contain."""
    return finding_id if re.fullmatch(r"[RP]\d{1,3}(\.\d{1,3})?", finding_id) else "an id that is none"


def _arrow(pair: tuple[str, str]) -> str:
    return f"{_short(pair[0])}-{_short(pair[1])}"
