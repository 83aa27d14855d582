"""Report pairs -> judge -> scores: order kept, failures counted, nothing dropped."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from tqdm.auto import tqdm

from crimson_core.errors import InputError
from crimson_core.judges import Judge, Judgement, load_judge
from crimson_core.judges.base import repeated
from crimson_core.protocol.evaluation import repair_evaluation
from crimson_core.protocol.pair import ReportPair
from crimson_core.protocol.scoring import PairScore, score_evaluation
from crimson_core.run.store import Store
from crimson_core.run.stored import StoredJudge
from crimson_core.version import __version__


@dataclass(frozen=True)
class PairResult:
    """What became of one report pair.

    Attributes:
        index: Position of the pair in what was scored, from 0.
        id: The pair's id, if it had one.
        score: Score and evaluation, None if unscored.
        failure: Why it is unscored, without report text.
        repairs: One line per thing in the judge's output that had to be mended or made consistent.
        usage: Token counts, where the judge knows them.
        raw_output: The model's text, where there is one.
        from_store: Whether the judgement was read from the store, and not made now.
    """

    index: int
    id: str | None = None
    score: PairScore | None = field(default=None, repr=False)  # holds report text
    failure: str | None = None
    repairs: list[str] = field(default_factory=list)
    usage: dict[str, int] = field(default_factory=dict)
    raw_output: str | None = field(default=None, repr=False)
    from_store: bool = False

    @property
    def crimson_score(self) -> float:
        """The score in (-1, 1]; NaN if unscored."""
        return float("nan") if self.score is None else self.score["crimson_score"]

    def as_dict(self) -> dict[str, Any]:
        """A JSON-ready record: the reference implementation's keys (None if unscored), then ours."""
        score = self.score or dict.fromkeys(PairScore.__annotations__)
        return {
            "index": self.index,
            "id": self.id,
            **score,
            "failure": self.failure,
            "repairs": self.repairs,
            "usage": self.usage,
            "from_store": self.from_store,
        }


class CrimsonScorer:
    """Scores report pairs with one judge.

    Args:
        judge: A judge spec (see `crimson_core.judges`) or a judge.
        repair: Make inconsistent evaluations consistent before they are scored. False gives the reference implementation's
            number for whatever the judge said.
        store: A file (see `crimson_core.run.store`) in which judgements are kept: what is there is read and not judged again,
            and what is judged is written as it arrives. It holds report text. None keeps nothing.
        retry_failures: Judge again what is a failure in the store.
        **judge_options: For the judge's constructor, where `judge` is a spec.

    Raises:
        InputError: The spec or an option is unknown.
        JudgeError: The judge cannot be loaded.
        StoreError: The store cannot be used.
    """

    def __init__(
        self,
        judge: str | Judge = "default",
        *,
        repair: bool = True,
        store: str | Path | Store | None = None,
        retry_failures: bool = False,
        **judge_options: Any,
    ) -> None:
        if store is not None:  # before the judge, which takes longer to load
            if not isinstance(store, (str, Path, Store)):
                raise InputError(f"store is of type {type(store).__name__}. Give the path of a file, or None.")
            with Store(store.path if isinstance(store, Store) else store) as checked:
                checked.check_writable()
            store = checked.path
        elif retry_failures:
            raise InputError("retry_failures is given without store. Give the store that holds the failures.")
        if isinstance(judge, str):
            judge = load_judge(judge, **judge_options)
        elif not isinstance(judge, Judge):
            raise InputError(
                f"judge is of type {type(judge).__name__}. Give a judge spec such as 'offline', or a judge."
            )
        elif judge_options:
            raise InputError(f"judge is built already: {', '.join(judge_options)} must be given where it is built.")
        self.judge = judge
        self.repair = repair
        self.store = store
        self._source = judge if store is None else StoredJudge(judge, store, retry_failures=retry_failures)

    @property
    def signature(self) -> str:
        """One line that lets somebody else reproduce a score."""
        fields = self._source.signature() | {"repair": "yes" if self.repair else "no", "crimson_core": __version__}
        return "|".join(["crimson", *(f"{key}:{value}" for key, value in fields.items())])

    def score(
        self, pairs: Sequence[ReportPair], *, progress: bool = False, interruptible: bool = False
    ) -> list[PairResult]:
        """Score report pairs.

        Args:
            pairs: What `crimson_core.make_pairs` returns, or your own list of `ReportPair`.
            progress: Show a progress bar on standard error.
            interruptible: On Ctrl-C, return the results so far, which are fewer than `pairs`: each knows its `index`.
                False raises `KeyboardInterrupt`, and they are lost.

        Returns:
            One result per pair, in the order of `pairs`; a pair without a score says why.

        Raises:
            InputError: `pairs` is empty or holds something else.
            JudgeError: The judge cannot go on.
            StoreError: The store cannot be read or written.
        """
        results: list[PairResult] = []
        try:
            for result in self.stream(pairs, progress=progress):
                results.append(result)
        except KeyboardInterrupt:
            if not interruptible:
                raise
        return sorted(results, key=lambda result: result.index)

    def stream(self, pairs: Sequence[ReportPair], *, progress: bool = False) -> Iterator[PairResult]:
        """Like `score`, but yield each result as soon as it is there, in whatever order the judge is done."""
        pairs = list(pairs)
        if not pairs:
            raise InputError("pairs is empty: there is nothing to score. Give at least one report pair.")
        for row, pair in enumerate(pairs):
            if not isinstance(pair, ReportPair):
                raise InputError(
                    f"pairs[{row}] is of type {type(pair).__name__}. Build report pairs with crimson_core.make_pairs."
                )
        return self._results(pairs, progress)

    def stored(self, pairs: Sequence[ReportPair]) -> Iterator[PairResult]:
        """Yield the results of those pairs that are in the store, in no order; nothing is judged."""
        if self.store is not None:
            for index, judgement in self._source.stored(pairs):
                yield self._result(index, pairs[index].id, judgement)

    def _results(self, pairs: list[ReportPair], progress: bool) -> Iterator[PairResult]:
        # miniters, smoothing: what is read comes much faster than what is judged, and the speed is that of judging
        bar = tqdm(total=len(pairs), desc="judging", unit="pair", disable=not progress, miniters=1, smoothing=0)
        # Closing the judge's iterator stops its work at once, whatever stopped ours.
        with bar, closing(self._source.judge(pairs)) as judgements:
            waiting = set(range(len(pairs)))
            read, tokens, started = 0, 0, monotonic()
            for index, judgement in judgements:
                if index not in waiting:
                    raise repeated(index)
                waiting.remove(index)
                yield self._result(index, pairs[index].id, judgement)
                if judgement.from_store:
                    read += 1
                    bar.initial = read
                else:
                    tokens += judgement.usage.get("completion_tokens", 0)
                told = [f"{read} read from the store"] * bool(read)
                told += [f"{tokens / (monotonic() - started):.0f} tokens/s"] * bool(tokens)
                bar.set_postfix_str(", ".join(told), refresh=False)
                bar.update()
            for index in sorted(waiting):
                yield self._result(index, pairs[index].id, Judgement(failure="the judge gave no judgement"))
                bar.update()

    def _result(self, index: int, pair_id: str | None, judgement: Judgement) -> PairResult:
        score, repairs = None, list(judgement.repairs)
        if judgement.evaluation is not None:
            evaluation = judgement.evaluation
            if self.repair:
                evaluation, more = repair_evaluation(evaluation)
                repairs += more
            score = score_evaluation(evaluation)
        return PairResult(
            index,
            pair_id,
            score,
            judgement.failure,
            repairs,
            judgement.usage,
            judgement.raw_output,
            judgement.from_store,
        )
