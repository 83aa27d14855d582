"""Judges for the tests of the Space. `register` makes them judge specs: `slow:<seconds a pair>`, `moody:<n>`, `broken:<n>`."""

import threading
import time

from crimson_core import JudgeError, Judgement
from crimson_core.judges import JUDGES
from crimson_core.judges.rules import OfflineJudge


class SlowJudge:
    """The offline judge, with a pause before each pair. `most_at_once` counts the calls that were in it together."""

    most_at_once = 0
    _inside = 0
    _lock = threading.Lock()

    def __init__(self, model):
        self.pause = float(model)
        self.judge_ = OfflineJudge()

    def judge(self, pairs):
        with SlowJudge._lock:
            SlowJudge._inside += 1
            SlowJudge.most_at_once = max(SlowJudge.most_at_once, SlowJudge._inside)
        try:
            for index, pair in enumerate(pairs):
                time.sleep(self.pause)
                yield index, next(self.judge_.judge([pair]))[1]
        finally:
            with SlowJudge._lock:
                SlowJudge._inside -= 1

    def signature(self):
        return {"judge": "slow"}


class MoodyJudge:
    """The offline judge; every n-th pair it refuses. Its findings have no spans."""

    def __init__(self, model):
        self.every = int(model)
        self.seen = 0

    def judge(self, pairs):
        for index, judgement in OfflineJudge().judge(pairs):
            self.seen += 1
            if self.seen % self.every == 0:
                yield index, Judgement(failure="the model <b>refused</b>")
                continue
            for finding in (*judgement.evaluation.reference_findings, *judgement.evaluation.predicted_findings):
                del finding.span
            yield index, judgement

    def signature(self):
        return {"judge": "moody"}


class BrokenJudge:
    """Breaks off after n pairs; after 0 it cannot even be loaded."""

    def __init__(self, model):
        self.after = int(model)
        if not self.after:
            raise JudgeError("The model cannot be had. Accept its terms first.")

    def judge(self, pairs):
        for index, judgement in OfflineJudge().judge(pairs):
            if index == self.after:
                raise JudgeError("The server is gone.")
            yield index, judgement

    def signature(self):
        return {"judge": "broken"}


def register():
    """Let judge specs name these judges."""
    JUDGES.update({name: f"app_judges:{name.title()}Judge" for name in ("slow", "moody", "broken")})
