"""A judge that raises: the pair is its failure, and the run goes on."""

import pytest

from crimson_core import CrimsonScorer, JudgeError, Judgement, ReportPair
from crimson_core.protocol.evaluation import Evaluation
from crimson_core.run.guarded import judged

PAIRS = [ReportPair(f"reference {number}", f"candidate {number}") for number in range(60)]


class Breaking:
    """Breaks on some candidates; done with the last pair first, or with the first."""

    def __init__(self, *bad, backwards=False, error=ValueError):
        self.bad, self.backwards, self.error = bad, backwards, error
        self.asked = 0
        self.calls = []

    def judge(self, pairs):
        self.calls.append(len(pairs))
        order = range(len(pairs))
        for index in reversed(order) if self.backwards else order:
            self.asked += 1
            if int(pairs[index].candidate.split()[-1]) in self.bad:
                raise self.error("SECRET report text")
            yield index, Judgement(Evaluation())

    def signature(self):
        return {"judge": "breaking"}


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("bad", [(), (0,), (59,), (3, 4, 41)])
@pytest.mark.parametrize("store", [False, True])
def test_what_a_judge_raises_on_a_pair_is_that_pairs_failure(tmp_path, backwards, bad, store):
    scorer = CrimsonScorer(Breaking(*bad, backwards=backwards), store=tmp_path / "store.sqlite" if store else None)
    results = scorer.score(PAIRS)
    assert [result.index for result in results if result.score is None] == list(bad)
    assert all(results[place].failure == "the judge broke on this pair (ValueError)" for place in bad)
    again = [result.failure for result in scorer.score(PAIRS)]
    assert [failure is None for failure in again] == [result.failure is None for result in results]


def test_pairs_are_not_asked_about_again_without_need():
    judge = Breaking(7, 20)
    assert len(list(judged(judge, PAIRS))) == len(PAIRS)
    assert judge.asked == len(PAIRS) + 2
    assert judge.calls == [60, 1, 52, 1, 39], "the pair that broke alone, the others together"


@pytest.mark.parametrize("places", [(0, 0), (0, 60), (0, -1)])
def test_a_judge_that_answers_for_a_pair_twice_or_for_none_is_refused(places):
    class Confused(Breaking):
        def judge(self, pairs):
            yield from ((place, Judgement(Evaluation())) for place in places)

    with pytest.raises(JudgeError, match=f"gave pair {places[1]} twice, or there is no such pair"):
        list(judged(Confused(), PAIRS))


def test_a_judge_that_is_broken_stops_the_run_and_leaves_no_failures():
    got = []
    with pytest.raises(JudgeError, match="20 pairs in a row") as raised:
        for answer in judged(Breaking(*range(5, 60)), PAIRS):
            got.append(answer)
    assert [index for index, _ in got] == list(range(5))
    assert "SECRET" not in str(raised.value)
    assert raised.value.__suppress_context__


def test_what_is_raised_on_purpose_or_by_the_user_goes_through():
    for error in (JudgeError, KeyboardInterrupt):
        with pytest.raises(error):
            list(judged(Breaking(3, error=error), PAIRS))


def test_a_number_of_thousands_of_digits_ends_no_run():
    long = "5" * 4301
    pairs = [ReportPair(f"{long} mm nodule.", f"Nodule of {long} cm."), ReportPair("Edema.", "Edema.")]
    results = CrimsonScorer("offline").score(pairs)
    assert results[1].crimson_score == 1.0
    assert results[0].failure is None or long not in results[0].failure
