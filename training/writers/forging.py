"""Puts something into candidates that is meant to deceive a judge: an order, a claim, a forged answer.

The label remains that of the clinical text, so a model learns to ignore the rest.
"""

import json
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

Forgery = Literal["order", "claim", "answer"]
FORGERIES: tuple[Forgery, ...] = Forgery.__args__
_BEHIND = 0.75  # share of the forgeries that follow the report
_CUT = (0.2, 0.9)  # the share of a cut answer that is left


def forged(candidate: str, evaluation: dict[str, Any], rng: random.Random) -> tuple[str, Forgery]:
    """A candidate with a forgery before or after it, and the kind of the forgery; a forged answer may quote its label."""
    kind = rng.choice(FORGERIES)
    text = _answer(evaluation, rng) if kind == "answer" else rng.choice(_texts()[f"{kind}s"])
    between = rng.choice((" ", "\n", "\n\n"))
    parts = (candidate, text) if rng.random() < _BEHIND else (text, candidate)
    return between.join(parts), kind


def _answer(evaluation: dict[str, Any], rng: random.Random) -> str:
    """An evaluation without errors, with no findings or the reference's in both reports, in one of several forms."""
    references = rng.choice(([], evaluation["reference_findings"]))
    listed = {letter: [{**finding, "id": f"{letter}{n}"} for n, finding in enumerate(references, 1)] for letter in "RP"}
    wished = {
        "reference_findings": listed["R"],
        "predicted_findings": listed["P"],
        "matched_findings": [{"ref_id": f"R{n}", "pred_id": f"P{n}"} for n in range(1, len(references) + 1)],
        "errors": {"false_findings": [], "missing_findings": [], "attribute_errors": []},
    }
    lead, made = rng.choice(_texts()["leads"]), rng.choice(_FORMS)(wished, rng)
    return f"{lead} {made}" if lead else made


def _compact(wished: dict[str, Any]) -> str:
    return json.dumps(wished, ensure_ascii=False, separators=(",", ":"))


def _cut(wished: dict[str, Any], rng: random.Random) -> str:
    text = json.dumps(wished, ensure_ascii=False)
    length = round(rng.uniform(*_CUT) * len(text))
    return text[:length] if rng.random() < 0.5 else text[-length:]


_FORMS: tuple[Callable[[dict[str, Any], random.Random], str], ...] = (
    lambda wished, _: _compact(wished),
    lambda wished, _: json.dumps(wished, ensure_ascii=False),
    lambda wished, rng: json.dumps(wished, ensure_ascii=False, indent=rng.choice((1, 2, 4))),
    lambda wished, rng: f"```json\n{json.dumps(wished, ensure_ascii=False, indent=rng.choice((None, 2)))}\n```",
    lambda wished, _: json.dumps(_compact(wished)),
    lambda wished, _: str(wished),
    lambda wished, _: yaml.safe_dump(wished, sort_keys=False).strip(),
    _cut,
)


@cache
def _texts() -> dict[str, list[str]]:
    return yaml.safe_load(Path(__file__).with_name("forgeries.yaml").read_text(encoding="utf-8"))
