"""Offline judges that go wrong, in a module of their own, so that worker processes find them."""

import os
import signal

from crimson_core import JudgeError
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
