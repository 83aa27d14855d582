"""Judges, loaded once per process and shared by all sessions, and runs with progress that can be stopped."""

import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from typing import Any

from crimson_core import CrimsonError, CrimsonScorer, PairResult, ReportPair, explain_pair
from crimson_core.compare.explaining import explanation_text
from crimson_core.judges import parse_spec
from crimson_core.judges.rules.lexicon import forget_words
from crimson_core.protocol.imitation import defused
from crimson_core.run.processes import Pool, TookTooLongError, cores

# Pairs of one run that are judged before another session has its turn.
_TURN = 64
_TICK = 0.25  # seconds between two looks at a run

_LONGEST = 30.0  # seconds that reports may take, judged offline
_pool = Pool(max(2, cores()))  # so that no visitor waits for another one's text
_loading = threading.Lock()
_turns: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)


def scorer_for(judge: str) -> CrimsonScorer:
    """The scorer of a judge spec; loads the judge on first use.

    Raises:
        JudgeError: The judge cannot be loaded.
    """
    with _loading:
        return _load(judge)


@cache  # an error is not kept, so that the next visitor tries again
def _load(judge: str) -> CrimsonScorer:
    return CrimsonScorer(judge)


def warm_up(judge: str) -> None:
    """Load a judge and the packages of the statistics, so that the first visitor does not wait."""

    def load() -> None:
        import scipy.stats  # noqa: F401

        try:
            scorer_for(judge)
            if _is_offline(judge):
                in_process(_scored, [ReportPair("Clear lungs.", "Clear lungs.")])
        except CrimsonError as error:  # a visitor who asks for the judge is told, too
            print(f"crimson: judge {judge}: {error}", file=sys.stderr)

    threading.Thread(target=load, daemon=True).start()


def judge_in_turns(judge: str, pairs: Sequence[ReportPair]) -> Iterator[PairResult]:
    """Yield results as they are done. Concurrent runs take turns, and one call at a time reaches a model.

    With the offline judge, each turn has its own process, and a run has two turns at once.

    Raises:
        CrimsonError: The judge cannot be loaded or cannot go on.
    """
    scorer = scorer_for(judge)
    turns = [(start, pairs[start : start + _TURN]) for start in range(0, len(pairs), _TURN)]
    if _is_offline(judge):
        yield from _offline(turns)
        return
    for start, some in turns:
        try:
            with _turns[judge]:
                for result in scorer.stream(some):
                    yield replace(result, index=start + result.index)
        finally:
            forget_words()  # the offline reading checks what a model has judged


def _offline(turns: Sequence[tuple[int, Sequence[ReportPair]]]) -> Iterator[PairResult]:
    """The results of turns in their order; a turn begins when the one before the last is done, and none after a stop."""
    with ThreadPoolExecutor(2) as threads:
        running: deque[tuple[int, Future[list[PairResult]]]] = deque()
        for start, some in turns:
            running.append((start, threads.submit(_in_time, some)))
            if len(running) == 2:
                yield from _results_of(*running.popleft())
        for start, turn in running:
            yield from _results_of(start, turn)


def _results_of(start: int, turn: Future[list[PairResult]]) -> Iterator[PairResult]:
    return (result.packed(start + result.index) for result in turn.result())


def in_process(work: Callable[..., Any], *args: Any) -> Any:
    """Run `work(*args)`, which reads reports, in a separate process.

    Raises:
        TookTooLongError: It was not done in time.
    """
    return _pool.ask(_LONGEST, work, *args)


def _is_offline(judge: str) -> bool:
    return parse_spec(judge).prefix == "offline"


def _in_time(pairs: Sequence[ReportPair]) -> list[PairResult]:
    """The offline judge's results; only a pair that takes too long fails, not the pairs around it."""
    try:
        return in_process(_scored, pairs)
    except TookTooLongError as error:
        if len(pairs) == 1:
            return [PairResult(0, pairs[0].id, failure=f"{error} Give shorter reports.")]
        return [_in_time([pair])[0].packed(index) for index, pair in enumerate(pairs)]


def _scored(pairs: Sequence[ReportPair]) -> list[PairResult]:
    try:
        return [result.packed() for result in scorer_for("offline").score(pairs)]
    finally:
        forget_words()


def explained(pair: ReportPair) -> str:
    """How the offline judge reads a pair.

    Raises:
        TookTooLongError: It was not done in time.
    """
    return str(in_process(_explained, pair))


def _explained(pair: ReportPair) -> str:
    seen, _ = defused(pair, in_place=True)  # as when it is scored
    try:
        return explanation_text(explain_pair(seen))
    finally:
        forget_words()


class Run:
    """Judge pairs in a separate thread. Finished pairs are kept if the run is stopped or fails.

    Attributes:
        judge: The judge spec.
        pairs: The pairs to judge.
        error: Why the run failed; None if it did not.
        signature: Signature of the scores; empty until the judge is loaded.
    """

    def __init__(self, judge: str, pairs: Sequence[ReportPair]) -> None:
        """Start to judge."""
        self.judge, self.pairs = judge, list(pairs)
        self.error: str | None = None
        self.signature = ""
        self._done: dict[int, PairResult] = {}
        self._stopped = threading.Event()
        self._ended = threading.Event()
        self._since: float | None = None
        threading.Thread(target=self._work, daemon=True).start()

    def __deepcopy__(self, memo: dict) -> "Run":
        """Return itself: Gradio copies the state of a session, and a run cannot be copied."""
        return self

    def stop(self) -> None:
        """Judge no more pairs after the current one."""
        self._stopped.set()

    @property
    def stopped(self) -> bool:
        """Whether the run was stopped before all pairs were done."""
        return self._stopped.is_set() and len(self._done) < len(self.pairs)

    @property
    def results(self) -> list[PairResult]:
        """The results so far, in the order of the pairs."""
        return [result for _, result in sorted(self._done.copy().items())]

    @property
    def n_done(self) -> int:
        """Number of pairs that are done."""
        return len(self._done)

    @property
    def seconds_left(self) -> float | None:
        """Estimate from the speed so far; None before the first pair is done."""
        done, since = len(self._done), self._since
        return (time.monotonic() - since) / done * (len(self.pairs) - done) if done and since else None

    def watch(self) -> Iterator["Run"]:
        """Yield itself several times a second until the run ends; closing the iterator stops the run."""
        try:
            while not self._ended.wait(_TICK) and not self._stopped.is_set():
                yield self
            self._ended.wait(_TICK)  # a stop is prompt, but the pair in hand is worth a moment
        finally:
            self.stop()

    def _work(self) -> None:
        try:
            self.signature = scorer_for(self.judge).signature
            self._since = time.monotonic()
            for result in judge_in_turns(self.judge, self.pairs):
                self._done[result.index] = result
                if self._stopped.is_set():
                    break
            together = scorer_for(self.judge).checked_together(self.pairs, self.results)
            self._done |= {result.index: result for result in together}
        except CrimsonError as error:
            self.error = str(error)
        except Exception as error:  # a defect; its text or traceback might hold report text
            self.error = f"The judge broke off ({type(error).__name__}). This is a defect; what was done is kept."
        finally:
            self._ended.set()
