"""Pairs, and a judge that counts what it is asked, for the tests of the store."""

from dataclasses import replace

from crimson_core import Judgement, PatientContext, ReportPair
from crimson_core.judges.rules import OfflineJudge

PAIRS = [
    ReportPair("Small left effusion.", "Left effusion, small.", PatientContext(age="72"), "a"),
    ReportPair("Large pneumothorax.", "", None, "b"),
    ReportPair("Cardiomegaly.\x00 \u2028é", "Heart is enlarged.", PatientContext(sex="F", indication="dyspnoea"), "c"),
]


class CountingJudge:
    """The offline judge, last pair first, with what a model judge tells; it counts what it is asked."""

    def __init__(self, name="counting", fails=()):
        self.name, self.fails, self.asked = name, set(fails), []

    def judge(self, pairs):
        for index, judgement in reversed(list(OfflineJudge().judge(pairs))):
            self.asked.append(pairs[index].id)
            if pairs[index].id in self.fails:
                yield index, Judgement(failure="no answer", raw_output="\ud800 {", usage={"prompt_tokens": 5})
            else:
                usage = {"prompt_tokens": 10, "completion_tokens": 3}
                yield index, replace(judgement, repairs=["mended"], raw_output="{…}", usage=usage, cost=0.25)

    def signature(self):
        return {"judge": self.name, "temperature": "0"}
