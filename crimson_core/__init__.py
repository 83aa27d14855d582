"""CRIMSON: scores AI-written chest X-ray reports against a radiologist's report. Research use only."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crimson_core.compare.summary import summarize
    from crimson_core.dropin import CRIMSONScore
    from crimson_core.errors import CrimsonError, InputError, JudgeError, StoreError
    from crimson_core.judges import Judge, Judgement, load_judge
    from crimson_core.judges.rules.explain import explain, explain_pair
    from crimson_core.protocol.pair import CONTEXT_FIELDS, PatientContext, ReportPair, make_pairs
    from crimson_core.protocol.scoring import score_evaluation
    from crimson_core.run.scorer import CrimsonScorer, PairResult
    from crimson_core.run.store import Store
    from crimson_core.version import __version__

__all__ = [
    "CONTEXT_FIELDS",
    "CRIMSONScore",
    "CrimsonError",
    "CrimsonScorer",
    "InputError",
    "Judge",
    "JudgeError",
    "Judgement",
    "PairResult",
    "PatientContext",
    "ReportPair",
    "Store",
    "StoreError",
    "__version__",
    "explain",
    "explain_pair",
    "load_judge",
    "make_pairs",
    "score_evaluation",
    "summarize",
]

# Module -> names, which are imported when they are first used: a command or a worker process needs few of them.
_HOMES = {
    "compare.summary": ("summarize",),
    "dropin": ("CRIMSONScore",),
    "errors": ("CrimsonError", "InputError", "JudgeError", "StoreError"),
    "judges": ("Judge", "Judgement", "load_judge"),
    "judges.rules.explain": ("explain", "explain_pair"),
    "protocol.pair": ("CONTEXT_FIELDS", "PatientContext", "ReportPair", "make_pairs"),
    "protocol.scoring": ("score_evaluation",),
    "run.scorer": ("CrimsonScorer", "PairResult"),
    "run.store": ("Store",),
    "version": ("__version__",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'crimson_core' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"crimson_core.{_HOME[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
