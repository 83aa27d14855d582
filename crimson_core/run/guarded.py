"""Limits an exception of a judge to the pair that caused it."""

from collections.abc import Generator, Sequence
from contextlib import closing

from crimson_core.errors import CrimsonError, JudgeError
from crimson_core.judges.base import Judge, Judgement, repeated
from crimson_core.protocol.pair import ReportPair

_MOST_IN_A_ROW = 20  # consecutive failing pairs after which the judge itself counts as broken


def judged(judge: Judge, pairs: Sequence[ReportPair]) -> Generator[tuple[int, Judgement], None, None]:
    """Yield (position in `pairs`, judgement) like the judge; an exception on a pair becomes that pair's failure.

    After an exception, the first unanswered pair is judged alone, then the rest together. Failures are held back until
    the judge has answered another pair, so a broken judge leaves none behind.

    Raises:
        CrimsonError: Raised by the judge on purpose.
        JudgeError: The judge raised on many pairs in a row.
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
            why = type(error).__name__  # the message may contain report text
            waiting = [place for index, place in enumerate(waiting) if index not in answered]
            if alone and waiting:
                failed.append((waiting.pop(0), Judgement(failure=f"the judge broke on this pair ({why})")))
                if len(failed) == _MOST_IN_A_ROW:
                    raise JudgeError(
                        f"The judge broke on {len(failed)} pairs in a row ({why}). Judge one of them alone to see the error."
                    ) from None
            alone = not alone
    yield from failed
