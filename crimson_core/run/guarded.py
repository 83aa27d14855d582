"""A judge that breaks on a pair breaks on that pair alone."""

from collections.abc import Generator, Sequence
from contextlib import closing

from crimson_core.errors import CrimsonError, JudgeError
from crimson_core.judges.base import Judge, Judgement, repeated
from crimson_core.protocol.pair import ReportPair

_MOST_IN_A_ROW = 20  # pairs on which a judge may break before it is taken to be broken itself


def judged(judge: Judge, pairs: Sequence[ReportPair]) -> Generator[tuple[int, Judgement], None, None]:
    """Yield (position in `pairs`, judgement) as the judge does; what it raises on a pair is that pair's failure.

    When a judge has raised, the first pair that it has not answered is asked about alone, then the rest together. Failures are
    held back until it has answered another pair: a judge that is broken leaves none behind.

    Raises:
        CrimsonError: What the judge raises on purpose.
        JudgeError: It breaks on one pair after the other.
    """
    waiting = list(range(len(pairs)))
    failed: list[tuple[int, Judgement]] = []
    alone = False
    while waiting:
        asked = waiting[:1] if alone else waiting
        answered: set[int] = set()
        try:
            with closing(judge.judge([pairs[place] for place in asked])) as judgements:
                for index, judgement in judgements:
                    if index in answered or not 0 <= index < len(asked):
                        raise repeated(index)
                    answered.add(index)
                    yield from failed
                    failed.clear()
                    yield asked[index], judgement
            waiting = waiting[len(asked) :]
            alone = False
        except CrimsonError:
            raise
        except Exception as error:
            why = type(error).__name__  # its text may hold report text
            waiting = [place for index, place in enumerate(waiting) if index not in answered]
            if alone and waiting:
                failed.append((waiting.pop(0), Judgement(failure=f"the judge broke on this pair ({why})")))
                if len(failed) == _MOST_IN_A_ROW:
                    raise JudgeError(
                        f"The judge broke on {len(failed)} pairs in a row ({why}). Judge one of them alone to see where."
                    ) from None
            alone = not alone
    yield from failed
