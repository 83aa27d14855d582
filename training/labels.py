"""A judge's labels of the candidates, in the run's own store, so that nothing is judged, or paid for, twice."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from crimson_core.judges import load_judge
from crimson_core.protocol.evaluation import repair_evaluation
from crimson_core.protocol.pair import ReportPair
from crimson_core.run.store import Store
from crimson_core.run.stored import StoredJudge
from crimson_core.version import __version__


class Label(NamedTuple):
    """A judge's consistent evaluation of a pair, or the reason why there is none, with the judge's signature."""

    evaluation: dict[str, Any] | None
    failure: str | None
    source: str


class Labels:
    """A judge with its store, which may not exist yet. If `retry_failed`, `make` judges failed pairs again.

    Attributes:
        usage: Token counts of all judgements that were ever made.

    Raises:
        StoreError: The store cannot be used. All methods raise this.
    """

    def __init__(self, spec: str, options: dict[str, Any], path: Path, retry_failed: bool) -> None:
        self._spec, self._options, self._path, self._retry_failed = spec, options, path, retry_failed
        with Store(path) as store:
            self.usage: Counter[str] = Counter(store.usage())

    @cached_property
    def _judge(self) -> StoredJudge:
        """Loaded on first use: all labels may be by construction."""
        return StoredJudge(load_judge(self._spec, **self._options), self._path, retry_failures=self._retry_failed)

    def make(self, pairs: Sequence[ReportPair]) -> None:
        """Judge the pairs that have not been judged yet."""
        with closing(self._judge.judge(pairs)) as judgements:
            for _, judgement in judgements:
                if not judgement.from_store:
                    self.usage.update(judgement.usage)

    def lacking(self, pairs: Sequence[ReportPair]) -> set[int]:
        """Positions of the pairs that `make` would judge."""
        there = {
            place
            for place, judgement in (self._judge.stored(pairs) if pairs else ())
            if judgement.failure is None or not self._retry_failed
        }
        return set(range(len(pairs))) - there

    def read(self, pairs: Sequence[ReportPair]) -> dict[int, Label]:
        """The labels of the pairs that have one, by position."""
        if not pairs:
            return {}
        judgements = list(self._judge.stored(pairs))
        source = "|".join(
            ["crimson", *_fields(self._judge.signature().items()), f"repair:yes|crimson_core:{__version__}"]
        )
        return {
            place: Label(
                repair_evaluation(judgement.evaluation)[0].model_dump() if judgement.evaluation else None,
                judgement.failure,
                source,
            )
            for place, judgement in judgements
        }


def _fields(items: Iterable[tuple[str, str]]) -> Iterator[str]:
    return (f"{key}:{value}" for key, value in items)
