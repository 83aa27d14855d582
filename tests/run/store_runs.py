"""Kills runs at random moments, as a program of its own without torch: `store_runs.py FOLDER SEED KILLS` prints what came of it.

Each run is a fork that judges the same pairs with a slow judge. That judge writes down every batch that it is about to judge,
as a bill would, and then takes its time.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from crimson_core import CrimsonScorer, Judgement, ReportPair
from crimson_core.judges.rules import OfflineJudge

BATCH = 4
PAIRS = [ReportPair(f"Nodule of {n} mm on the right.", f"Nodule of {n % 7} mm.", id=str(n)) for n in range(800)]


class BillingJudge:
    """The offline judge in batches; every seventh pair fails."""

    def __init__(self, bill, pause):
        self.bill, self.pause, self.offline = bill, pause, OfflineJudge()

    def judge(self, pairs):
        for start in range(0, len(pairs), BATCH):
            batch = pairs[start : start + BATCH]
            line = json.dumps([os.getpid(), [pair.id for pair in batch]]) + "\n"
            file = os.open(self.bill, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(file, line.encode())
            os.close(file)
            time.sleep(self.pause)
            for index, judgement in self.offline.judge(batch):
                failed = int(batch[index].id) % 7 == 0
                yield start + index, Judgement(failure="it is a seventh") if failed else judgement

    def signature(self):
        return {"judge": "billing"}


def score(store, bill, pause):
    """The evaluations (None where failed) of all pairs."""
    results = CrimsonScorer(BillingJudge(bill, pause), store=store).score(PAIRS)
    return [result.evaluation for result in results]


def main(folder, seed, kills):
    chance = random.Random(seed)
    OfflineJudge()  # loads the lexicon, which the forks then have
    killed, bill = 0, folder / "bill"
    bill.touch()
    for n in range(kills):
        size = bill.stat().st_size
        child = os.fork()
        if not child:
            score(folder / "killed.sqlite", bill, pause=0.002)
            os._exit(0)
        if n % 2:  # in the midst of judging; else perhaps while the store is made or opened
            deadline = time.monotonic() + 10
            while bill.stat().st_size == size and time.monotonic() < deadline:
                time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.03))
        os.kill(child, signal.SIGKILL)
        killed += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    resumed = score(folder / "killed.sqlite", bill, pause=0)
    undisturbed = score(folder / "undisturbed.sqlite", folder / "undisturbed-bill", pause=0)
    lines = [json.loads(line) for line in bill.read_text().splitlines()]
    print(json.dumps({"killed": killed, "same": resumed == undisturbed, "bill": lines}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
