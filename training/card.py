"""The model card of a trained judge, made from the run's record; what the record lacks is left out."""

import json
import math
import re
from pathlib import Path
from typing import Any

import jinja2

from crimson_core.errors import InputError
from training.journal import write_json, write_whole

RECORD_FILE = "training_run.json"

# The sections of every card, in this order.
SECTIONS = (
    "Model details",
    "Intended use",
    "Installation and usage",
    "Training data generation",
    "Training details",
    "Evaluation",
    "Limitations",
    "Citation",
    "Licence",
)
_REGIMES = {
    "random report": "the report of another study, drawn at random",
    "similar report": "the report of another study that reads much the same: one of the nearest by sentence embedding",
    "rewrite": "other words, same clinical meaning",
    "false finding": "a finding, device or abnormality that is not there is added",
    "attribute error": "a finding stays but its side, place, size, severity, form, certainty or change over time is wrong",
    "omission": "a finding that matters is left out",
}
_FIGURES = {  # key of an evaluation -> column
    "step": "step",
    "loss": "loss",
    "pairs": "pairs",
    "parsed": "outputs that parse",
    "score_mae": "score, mean absolute error",
    "score_tau": "score, Kendall tau",
    "false_f1": "false findings, F1",
    "missing_f1": "missing findings, F1",
    "attribute_f1": "attribute errors, F1",
}
# Part of a base model's name -> the terms of its weights and of everything made from them.
_TERMS = {
    "medgemma": (
        "Health AI Developer Foundations terms",
        "https://developers.google.com/health-ai-developer-foundations/terms",
    ),
    "gemma": ("Gemma terms", "https://ai.google.dev/gemma/terms"),
}


def model_card(run: dict[str, Any], *, name: str, merged: bool) -> str:
    """The model card of a run, as Markdown with YAML front matter.

    Args:
        run: The run's record, as in `training_run.json`; every key may be missing.
        name: Hub id or folder name of the model.
        merged: Whether it is a whole model and not an adapter.

    Raises:
        InputError: The record has wrong content.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    # quoted: for YAML and Python
    environment.filters |= {"cell": _cell, "quoted": lambda value: json.dumps(str(value), ensure_ascii=False)}
    base = str(run.get("base") or "")
    on_hub = bool(re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", base))
    try:
        evaluation = list(run.get("evaluation") or ())
        figures = [key for key in _FIGURES if any(row.get(key) is not None for row in evaluation)]
        return environment.get_template("card.md.jinja").render(
            run=run,
            name=name,
            merged=merged,
            base=base if on_hub else Path(base).name,  # never the path of somebody's disk
            base_on_hub=on_hub,
            terms=next((terms for part, terms in _TERMS.items() if part in base.lower()), None),
            sources=f"{base} {(run.get('data') or {}).get('corpus', '')}".lower(),
            sections=SECTIONS,
            regimes=_REGIMES,
            figures={key: _FIGURES[key] for key in figures},
            evaluation=evaluation,
            test_figures={key: column for key, column in _FIGURES.items() if key not in ("step", "loss")},
            tests=list(run.get("tests") or ()),
            duration=_duration(run.get("seconds")),
        )
    except (AttributeError, TypeError, ValueError, jinja2.TemplateError) as error:
        raise InputError(f"{RECORD_FILE} cannot be put into a model card: {error}.") from None


def enter_test(folder: Path, test: dict[str, Any]) -> None:
    """Enter figures of `training.evaluate` into the record and the card of a model, instead of earlier ones on these records.

    Args:
        folder: Folder of an adapter or a whole model, with its record.
        test: The figures that `training.evaluate --json` writes.

    Raises:
        InputError: The record cannot be read.
        CrimsonError: The folder cannot be written.
    """
    run = read_run(folder)
    same = ("records", "regimes", "limit")
    kept = [earlier for earlier in run.get("tests") or () if any(earlier.get(key) != test[key] for key in same)]
    run["tests"] = [*kept, test]
    card = model_card(run, name=folder.resolve().name, merged=not (folder / "adapter_config.json").is_file())
    write_json(folder / RECORD_FILE, run)
    write_whole(folder / "README.md", [card])


def read_run(folder: Path) -> dict[str, Any]:
    """The record in an adapter's folder; empty if there is none.

    Raises:
        InputError: The record cannot be read.
    """
    path = folder / RECORD_FILE
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(run, dict) or not all(isinstance(test, dict) for test in run.get("tests") or ()):
            raise ValueError
        return run
    except FileNotFoundError:
        return {}
    except (OSError, TypeError, ValueError):
        raise InputError(f"{path} is no record of a training run. Put the file back, or remove it.") from None


def _cell(value: Any) -> str:
    """A value as text for a line or a table."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_cell, value))
    return " ".join(str(value).split()).replace("|", "\\|")


def _duration(seconds: Any) -> str | None:
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or not seconds > 0:
        return None
    if seconds < 5400:
        return f"{max(1, round(seconds / 60))} minutes"
    return f"{seconds / 3600:.1f} hours"
