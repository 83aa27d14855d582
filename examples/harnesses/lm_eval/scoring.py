"""CRIMSON in lm-evaluation-harness: what a generated report is compared with, and the figures of a corpus.

The judge is CRIMSON_TASK_JUDGE, or offline. All reports are judged together when the corpus is complete: a model judge is
faster so, and is loaded once.
"""

import os
from functools import lru_cache
from typing import Any

from crimson_core import CrimsonScorer, make_pairs

CONTEXT = ("age", "sex", "indication")


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, Any]:
    """The pair of a study, handed to both figures."""
    pair = (results[0], doc["reference"], tuple(doc.get(field) for field in CONTEXT))
    return {"crimson_score": pair, "crimson_unscored": pair}


def mean_score(pairs: list[tuple]) -> float:
    """The mean over the pairs that could be judged."""
    scores = [score for score in _scores(tuple(pairs)) if score == score]
    return sum(scores) / len(scores) if scores else float("nan")


def unscored(pairs: list[tuple]) -> int:
    """How many pairs could not be judged."""
    return sum(score != score for score in _scores(tuple(pairs)))


@lru_cache(maxsize=1)
def _scores(pairs: tuple[tuple, ...]) -> list[float]:
    scorer = CrimsonScorer(os.environ.get("CRIMSON_TASK_JUDGE", "offline"))
    predictions, references, contexts = zip(*pairs, strict=True)
    given = make_pairs(predictions, references, [dict(zip(CONTEXT, context, strict=True)) for context in contexts])
    return [result.crimson_score for result in scorer.score(given)]
