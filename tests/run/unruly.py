"""Offline judges that go wrong, in a module of their own, so that worker processes find them."""

import os
import signal
import sys
import time

from crimson_core import CrimsonScorer, JudgeError, ReportPair
from crimson_core.judges.rules import OfflineJudge


class UnrulyJudge(OfflineJudge):
    """Does what a candidate's first word says: break on it, refuse to go on, or have its process killed."""

    def judge(self, pairs):
        for index, judgement in super().judge(pairs):
            word = pairs[index].candidate.partition(" ")[0]
            if word == "break":
                raise ValueError(f"report text: {pairs[index].candidate}")
            if word == "refuse":
                raise JudgeError("The judge cannot go on. Try another one.")
            if word == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            yield index, judgement


class LoggingJudge(OfflineJudge):
    """Takes two milliseconds longer for each pair, and notes which it has judged, and when."""

    def __init__(self, log):
        super().__init__()
        self.log = log

    def judge(self, pairs):
        for index, judgement in super().judge(pairs):
            time.sleep(0.002)
            with open(self.log, "a") as file:
                file.write(f"{pairs[index].id} {time.time()}\n")
            yield index, judgement


def run() -> None:
    """Judge with one of these, as a program that may be killed."""
    log, store, workers, count = sys.argv[1:]
    asked = [ReportPair(f"Nodule of {n} mm.", "Nodule.", id=str(n)) for n in range(int(count))]
    CrimsonScorer(LoggingJudge(log), store=store, workers=int(workers)).score(asked)
