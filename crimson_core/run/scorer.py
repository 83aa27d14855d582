"""Report pairs -> judge -> scores: order kept, failures counted, nothing dropped."""

import marshal
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from itertools import chain, islice
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple, TypeVar, cast

from crimson_core.errors import InputError, StoreError, check_whole
from crimson_core.judges import Judge, Judgement, load_judge
from crimson_core.judges.base import repeated
from crimson_core.judges.rules import OfflineJudge
from crimson_core.protocol.evaluation import repair_evaluation
from crimson_core.protocol.imitation import defused, imitations
from crimson_core.protocol.pair import ReportPair
from crimson_core.protocol.scoring import Outcome, PairScore, read_outcome, score_evaluation, score_outcome
from crimson_core.run.guarded import judged
from crimson_core.run.processes import cores, in_processes
from crimson_core.run.store import Store
from crimson_core.run.stored import StoredJudge
from crimson_core.run.suspicion import Read, changed_references, reader, suspicions
from crimson_core.version import __version__

_REPORTS = ("reference", "candidate")
_EMPTY: dict[str, Callable[[], Any]] = {"repairs": list, "suspicions": list, "unrecognised": list, "usage": dict}
_TOGETHER, _TEXT_TOGETHER = 250, 2**18  # pairs, and characters, that the offline judge takes at once
_MANY = 5_000  # pairs for which it pays to start several processes; fewer if they are long

T = TypeVar("T")


@dataclass(frozen=True)
class PairResult:
    """The result of one report pair.

    Attributes:
        index: Position of the pair among those that were scored, from 0.
        id: The pair's id, if it has one.
        evaluation: The scored evaluation in the wire format; None if unscored.
        failure: Why the pair is unscored, without report text.
        repairs: One line per text that was removed from a report before the judge saw it, and per repair of the judge's
            output.
        suspicions: One line per piece of evidence against a model's evaluation; see `crimson_core.run.suspicion`.
        unrecognised: The non-empty reports (reference, candidate) of which an offline judge knows hardly a word, so that their
            findings may be missing: text in another language, say, or about another part of the body.
        usage: Token counts, as far as the judge knows them.
        raw_output: The model's text, if there is one.
        from_store: Whether the judgement was read from the store instead of made now.
    """

    index: int
    id: str | None = None
    # contains report text; without a default in the class, since a packed result has none of its own
    evaluation: Mapping[str, Any] | None = field(default_factory=lambda: None, repr=False)
    failure: str | None = None
    repairs: list[str] = field(default_factory=list)
    suspicions: list[str] = field(default_factory=list)
    unrecognised: list[str] = field(default_factory=list)
    usage: dict[str, int] = field(default_factory=dict)
    raw_output: str | None = field(default=None, repr=False)
    from_store: bool = False

    @property
    def outcome(self) -> Outcome | None:
        """The state of each finding, and the terms of the score; None if unscored."""
        evaluation = self.evaluation
        return None if evaluation is None else read_outcome(evaluation)

    @cached_property
    def crimson_score(self) -> float:
        """The score in (-1, 1]; NaN if unscored."""
        outcome = self.outcome
        return float("nan") if outcome is None else outcome.terms.score

    @property
    def score(self) -> PairScore | None:
        """Score and evaluation as a dictionary with the reference implementation's keys; None if unscored."""
        evaluation = self.evaluation
        return None if evaluation is None else score_evaluation(evaluation)

    def packed(self, index: int | None = None) -> "PairResult":
        """The same in a fifth of the memory, at another position if one is given; each access unpacks `evaluation`."""
        kept = {name: value for name, value in self.__dict__.items() if value}
        kept |= {"index": self.index if index is None else index, "crimson_score": self.crimson_score}
        if isinstance(evaluation := kept.get("evaluation"), dict):
            with suppress(ValueError):  # a judge of your own may list what is no plain data
                kept["_packed"] = marshal.dumps(evaluation)
                del kept["evaluation"]
        made = object.__new__(PairResult)
        made.__dict__.update(kept)
        return made

    def __getattr__(self, name: str) -> Any:
        """The attributes that a packed result does not have as such; missing ones are empty."""
        if name == "evaluation":
            packed = self.__dict__.get("_packed")
            return None if packed is None else marshal.loads(packed)
        if name in _EMPTY:
            return _EMPTY[name]()
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def as_dict(self, outcome: Outcome | None = None) -> dict[str, Any]:
        """A JSON-ready record: the reference implementation's keys (None if unscored), then our own.

        Args:
            outcome: That of this result, if it has been read already.
        """
        evaluation = self.evaluation
        score: Mapping[str, Any] = (
            dict.fromkeys(PairScore.__annotations__)
            if evaluation is None
            else score_outcome(evaluation, outcome or read_outcome(evaluation))
        )
        return {
            "index": self.index,
            "id": self.id,
            **score,
            "failure": self.failure,
            "repairs": self.repairs,
            "suspicions": self.suspicions,
            "unrecognised": self.unrecognised,
            "usage": self.usage,
            "from_store": self.from_store,
        }


class CrimsonScorer:
    """Scores report pairs with one judge.

    Args:
        judge: A judge spec (see `crimson_core.judges`) or a judge.
        repair: Make inconsistent evaluations consistent before scoring. False gives the reference implementation's
            number for the judge's evaluation as it is.
        store: A file of judgements (see `crimson_core.run.store`). Pairs in it are not judged again, and new judgements
            are written as they arrive. It contains report text. None uses no store.
        retry_failures: Judge pairs again whose stored judgement is a failure.
        strict: Leave a pair unscored if there is evidence against its evaluation.
        workers: Number of processes for the offline judge; the results are the same. None uses one per core for some
            thousand pairs or more, else only this process.
        **judge_options: Options of the judge, if `judge` is a spec.

    Raises:
        InputError: The spec or an option is invalid.
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
        strict: bool = False,
        workers: int | None = None,
        **judge_options: Any,
    ) -> None:
        if workers is not None:
            check_whole("workers", workers)
        if store is not None:  # checked before the judge, which takes longer to load
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
        self.strict = strict
        self.workers = workers
        self.store = store
        self.retry_failures = retry_failures
        self._stored = None if store is None else StoredJudge(judge, store, retry_failures=retry_failures)
        self._source: Judge = self._stored or judge
        if workers not in (None, 1) and not self._is_offline:
            raise InputError(
                f"workers is {workers}, and several processes are for the judge offline. A model is shared by batch_size or "
                "concurrency, or by accelerate and Ray."
            )

    @property
    def signature(self) -> str:
        """One line that lets somebody else reproduce a score."""
        fields = self._source.signature() | {"repair": "yes" if self.repair else "no"}
        fields |= ({"strict": "yes"} if self.strict else {}) | {"crimson_core": __version__}
        return "|".join(["crimson", *(f"{key}:{value}" for key, value in fields.items())])

    def score(
        self, pairs: Sequence[ReportPair], *, progress: bool = False, interruptible: bool = False
    ) -> list[PairResult]:
        """Score report pairs.

        Args:
            pairs: From `crimson_core.make_pairs`, or your own list of `ReportPair`.
            progress: Show a progress bar on standard error.
            interruptible: On Ctrl-C, return the results so far, which are fewer than `pairs`: each knows its `index`.
                False raises `KeyboardInterrupt`, and they are lost.

        Returns:
            One result per pair, in the order of `pairs`; a pair without a score says why.

        Raises:
            InputError: `pairs` is empty or contains something else.
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
        return self.checked_together(pairs, results)

    def stream(
        self, pairs: Iterable[ReportPair], *, progress: bool = False, total: int | None = None
    ) -> Iterator[PairResult]:
        """Like `score`, but yield each result as soon as it is there.

        The offline judge takes pairs as it needs them and answers in their order, so that neither pairs nor results
        have to fit into the memory. Other judges take all pairs at once, and answer in whatever order they are done.

        Args:
            pairs: As for `score`; they may be made one by one.
            progress: Show a progress bar on standard error.
            total: How many pairs there are, for the bar, where `pairs` has no length.
        """
        if isinstance(pairs, Sequence) or not self._is_offline:
            pairs = list(_checked(pairs))
            total = len(pairs)
        pairs = _not_empty(_checked(pairs))
        answers = _one_by_one(self._in_turn(pairs)) if self._is_offline else self._judged(self._ask, 0, list(pairs))
        return _closed(answers, (lambda result: (1, *_total([result]))) if progress else None, total)

    def stream_in_parts(
        self,
        pairs: Iterable[ReportPair],
        each: Callable[[list[PairResult]], T],
        *,
        progress: bool = False,
        total: int | None = None,
        copies: bool = False,
    ) -> Iterator[T]:
        """Like `stream`, but yield what `each` makes of some results at a time.

        The offline judge's worker processes apply it to their own results, and send its output.

        Args:
            pairs: As for `stream`.
            each: It is pickled.
            progress: Show a progress bar on standard error.
            total: How many pairs there are, for the bar, where `pairs` has no length.
            copies: Let the workers be copies of this process; see `in_processes`.
        """
        if self._is_offline:
            parts = self._in_turn(_not_empty(_checked(pairs)), each, copies)
            return (part.made for part in _closed(parts, (lambda part: part.size) if progress else None, total))
        return (each([result]) for result in self.stream(pairs, progress=progress, total=total))

    def checked_together(self, pairs: Sequence[ReportPair], results: Sequence[PairResult]) -> list[PairResult]:
        """Sort what `stream` has yielded, and add the suspicions that need a comparison of results."""
        ordered = sorted(results, key=lambda result: result.index)
        if not self._asks_a_model:
            return ordered
        scored = [(result.index, found) for result in ordered if (found := result.evaluation) is not None]
        changed = changed_references([(pairs[index], evaluation) for index, evaluation in scored])
        more = {scored[place][0]: suspicion for place, suspicion in changed.items()}
        return [
            self._suspected(replace(result, suspicions=[*result.suspicions, more[result.index]]))
            if result.index in more
            else result
            for result in ordered
        ]

    @cached_property
    def _asks_a_model(self) -> bool:
        return "prompt" in self._source.signature()

    def _as_seen(self, pairs: Sequence[ReportPair]) -> list[tuple[ReportPair, list[str]]]:
        """The pairs as the judge sees them, without imitated answers, and what was left out.

        These mislead models, and the rules would read the findings in them, whose places in the reports they tell.
        """
        find = cache(imitations)  # references recur
        return [defused(pair, in_place=not self._asks_a_model, find=find) for pair in pairs]

    @property
    def keeps_order(self) -> bool:
        """Whether `stream` yields the results in the order of the pairs, and `checked_together` changes none."""
        return self._is_offline

    @cached_property
    def _is_offline(self) -> bool:
        # itself, and not in workers of Ray's or with an encoder
        return isinstance(self.judge, OfflineJudge) and self.judge.signature()["judge"] == "offline"

    def _in_turn(
        self, pairs: Iterable[ReportPair], each: Callable[[list[PairResult]], Any] | None = None, copies: bool = False
    ) -> Generator[Any, None, None]:
        """The offline judge's results, in groups and in order: each group, or a `_Part` with what `each` makes of it."""
        tasks, workers = _grouped(pairs), self.workers
        if workers is None:
            first = list(islice(tasks, _MANY // _TOGETHER + 1))
            workers = cores() if len(first) > _MANY // _TOGETHER else 1
            tasks = chain(first, tasks)
        with closing(_Offline(self, each)) as work:
            if workers == 1:
                yield from map(work, tasks)
                return
            try:
                with closing(in_processes(work.packed, tasks, workers, copies=copies)) as groups:
                    yield from groups
            finally:
                # SQLite tidies up when the last one closes a store, for which a process that is ended has no time.
                if self.store:
                    with suppress(StoreError):
                        Store(self.store).close()

    def _ask(self, pairs: Sequence[ReportPair]) -> Generator[tuple[int, Judgement], None, None]:
        return self._stored.judge(pairs) if self._stored else judged(self.judge, pairs)

    def _judged(
        self, ask: Callable[..., Generator[tuple[int, Judgement], None, None]], start: int, pairs: list[ReportPair]
    ) -> Generator[PairResult, None, None]:
        """The results of consecutive pairs, the first of which has the index `start`, from the judgements of `ask`."""
        seen = self._as_seen(pairs)
        asked = [pair for pair, _ in seen]
        reading = reader()
        with closing(ask(asked)) as judgements:
            waiting = set(range(len(pairs)))
            for index, judgement in judgements:
                if index not in waiting:
                    raise repeated(index)
                waiting.remove(index)
                yield self._result(start + index, seen[index], judgement, reading)
            for index in sorted(waiting):
                nothing = Judgement(failure="the judge gave no judgement")
                yield self._result(start + index, seen[index], nothing, reading)

    def _result(self, index: int, seen: tuple[ReportPair, list[str]], judgement: Judgement, read: Read) -> PairResult:
        (pair, left_out), evaluation = seen, None
        repairs, doubts, unrecognised = [*left_out, *judgement.repairs], [], []
        if judgement.evaluation is not None:
            checked = judgement.evaluation
            if self.repair:
                checked, more = repair_evaluation(checked)
                repairs += more
            evaluation = checked.model_dump()
            if self._asks_a_model:
                doubts = suspicions(pair, evaluation, read)
            else:
                named = evaluation.get("unrecognised")
                unrecognised = [name for name in _REPORTS if isinstance(named, list) and name in named]
        return self._suspected(
            PairResult(
                index,
                pair.id,
                evaluation,
                judgement.failure,
                repairs,
                doubts,
                unrecognised,
                judgement.usage,
                judgement.raw_output,
                judgement.from_store,
            )
        )

    def _suspected(self, result: PairResult) -> PairResult:
        """The result; unscored if it is suspect and the scorer is strict."""
        if not (self.strict and result.suspicions):
            return result
        return replace(result, evaluation=None, failure=f"suspect: {'; '.join(result.suspicions)}")


class _Part(NamedTuple):
    """The output for some results; their number, the number from a store, and the number of tokens of the others."""

    made: Any
    size: tuple[int, int, int]


class _Offline:
    """Judges the pairs of a run offline, one group at a time, and keeps its readings from one group to the next."""

    def __init__(self, scorer: CrimsonScorer, each: Callable[[list[PairResult]], Any] | None) -> None:
        self._scorer, self._each = scorer, each
        self._open = ExitStack()

    def close(self) -> None:
        """Close the store, if it has been opened here."""
        self._open.close()

    def __call__(self, task: tuple[int, list[ReportPair]]) -> "Iterable[PairResult] | _Part":
        results: Iterable[PairResult] = self._scorer._judged(self._ask, *task)
        if self._scorer.store:  # what is in it comes first
            results = sorted(results, key=lambda result: result.index)
        if self._each is None:
            return results
        done = list(results)
        return _Part(self._each(done), (len(done), *_total(done)))

    def packed(self, task: tuple[int, list[ReportPair]]) -> "list[PairResult] | _Part":
        """The same, for another process."""
        done = self(task)
        return done if isinstance(done, _Part) else [result.packed() for result in done]

    @cached_property  # in the process that works
    def _ask(self) -> Callable[..., Generator[tuple[int, Judgement], None, None]]:
        scorer = self._scorer
        judge = cast(OfflineJudge, scorer.judge).remembering()
        if scorer.store is None:
            return partial(judged, judge)
        stored = StoredJudge(judge, scorer.store, retry_failures=scorer.retry_failures, in_groups=True)
        self._open.enter_context(stored.kept_open())
        return stored.judge


def _grouped(pairs: Iterable[ReportPair]) -> Iterator[tuple[int, list[ReportPair]]]:
    """The pairs in groups that take a fraction of a second, each with the position of its first pair."""
    start, characters, group = 0, 0, list[ReportPair]()
    for place, pair in enumerate(pairs):
        group.append(pair)
        characters += len(pair.reference) + len(pair.candidate)
        if len(group) == _TOGETHER or characters >= _TEXT_TOGETHER:
            yield start, group
            start, characters, group = place + 1, 0, []
    if group:
        yield start, group


def _one_by_one(groups: Generator[Iterable[PairResult], None, None]) -> Generator[PairResult, None, None]:
    with closing(groups):
        for group in groups:
            yield from group


def _closed(
    items: Generator[T, None, None], size: Callable[[T], tuple[int, int, int]] | None, total: int | None
) -> Iterator[T]:
    """The items of a generator, which is closed as soon as this one is. With `size`, a progress bar is shown."""
    with closing(items):
        yield from items if size is None else _counted(items, size, total)


def _counted(items: Iterable[T], size: Callable[[T], tuple[int, int, int]], total: int | None) -> Iterator[T]:
    from tqdm.auto import tqdm  # here, since it takes longer to import than pairs to judge

    class Bar(tqdm):  # type: ignore[misc]
        monitor_interval = 0  # no thread that watches it

    # miniters, smoothing: what is read comes much faster than what is judged, and the speed is that of judging
    with Bar(total=total, desc="judging", unit="pair", miniters=1, smoothing=0) as bar:
        read, tokens, started = 0, 0, monotonic()
        for item in items:
            yield item
            count, from_store, more = size(item)
            read, tokens = read + from_store, tokens + more
            bar.initial = read
            parts = [f"{read} read from the store"] * bool(read)
            parts += [f"{tokens / (monotonic() - started):.0f} tokens/s"] * bool(tokens)
            bar.set_postfix_str(", ".join(parts), refresh=False)
            bar.update(count)


def _total(results: Iterable[PairResult]) -> tuple[int, int]:
    """Number of results from a store, and number of tokens of the others."""
    read = tokens = 0
    for result in results:
        read += result.from_store
        tokens += 0 if result.from_store else result.usage.get("completion_tokens", 0)
    return read, tokens


def _not_empty(pairs: Iterator[ReportPair]) -> Iterator[ReportPair]:
    first = next(pairs, None)
    if first is None:
        raise InputError("pairs is empty: there is nothing to score. Give at least one report pair.")
    return chain([first], pairs)


def _checked(pairs: Iterable[ReportPair]) -> Iterator[ReportPair]:
    for row, pair in enumerate(pairs):
        if not isinstance(pair, ReportPair):
            raise InputError(
                f"pairs[{row}] is of type {type(pair).__name__}. Build report pairs with crimson_core.make_pairs."
            )
        yield pair
