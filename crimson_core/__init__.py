"""CRIMSON: scores AI-written chest X-ray reports against a radiologist's report. Research use only."""

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
