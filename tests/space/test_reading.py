"""The accordion that says how the offline judge has read a pair."""

from crimson_core import CrimsonScorer, ReportPair
from crimson_core.judges.rules import lexicon
from space import judging
from space.pair_tab import _shown

PAIR = ReportPair("Small left effusion.", "No pneumothorax.")


def test_how_a_pair_was_read_is_shown_for_the_judge_that_read_it():
    scorer = CrimsonScorer("offline")
    (result,) = scorer.score([PAIR])
    *_, text, accordion = _shown(PAIR, result, scorer.signature, "")
    assert "decided by “No” absent [language.yaml: assertion.negated_before]" in text
    assert accordion["visible"] is True
    *_, text, accordion = _shown(PAIR, result, scorer.signature.replace("judge:offline", "judge:hf:model"), "")
    assert text is None
    assert accordion["visible"] is False


def test_no_word_of_a_visitor_is_kept():
    pair = ReportPair("A nodule in the Schwarzenbergova lobe.", "Clear lungs.")
    for work in (lambda: judging._scored([pair]), lambda: judging._explained(pair)):
        assert work()
        assert lexicon._mended.cache_info().currsize == lexicon.normalise.cache_info().currsize == 0
