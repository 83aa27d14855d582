"""The assignment of small tables is SciPy's."""

import random

from scipy.optimize import linear_sum_assignment

from crimson_core.judges.rules.assignment import best_assignment

GAINS = [0.0, 0.0, 0.5, 0.55, 0.6, 0.75, 0.9, 1.0]  # few, so that there are ties


def test_the_assignment_is_scipys_ties_included():
    rng = random.Random(1)
    for n in range(3_000):
        rows, columns = rng.randint(1, 17), rng.randint(1, 17)
        table = [[rng.choice(GAINS) if n % 2 else rng.random() for _ in range(columns)] for _ in range(rows)]
        assert best_assignment(table) == list(zip(*linear_sum_assignment(table, maximize=True), strict=True))
