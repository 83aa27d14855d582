"""Which candidate is made of which study, by which regime: drawn by seed, the same in every run."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from training.corpus import SPLITS, Split, Study
from training.records import REGIMES, Included
from training.writers import ERROR_KINDS, ErrorKind

_FIRST_ERROR = 3  # the regime of ERROR_KINDS[0]


@dataclass(frozen=True)
class Slot:
    """One record to be made.

    Attributes:
        id: Unique; split and number.
        regime: Position in `training.records.REGIMES`.
        kinds: The errors to make, in regimes 3 to 5; that of the regime first.
        study: Whose report is the ground truth; None where no study of the split allows these errors.
        included: Which fields of the patient context the record holds.
        split: Of the study.
    """

    id: str
    regime: int
    kinds: tuple[ErrorKind, ...]
    study: Study | None
    included: Included
    split: Split


def plan(
    studies: Sequence[Study],
    counts: dict[Split, int],
    possible: Callable[[Study], frozenset[ErrorKind]],
    *,
    seed: int,
    second_error: float,
    context: float,
) -> list[Slot]:
    """The slots of all splits.

    The regime of each slot is drawn with equal probability, whatever the studies hold. Studies come in random order, each
    once before one comes twice, in a deck for each set of errors: so that which studies have findings to leave out
    changes nothing in the other regimes.

    Args:
        studies: Of the corpus.
        counts: How many records each split gets.
        possible: The errors that a writer can make on a study.
        seed: Of the run. A slot does not depend on how many there are, so that a run can be made longer.
        second_error: Probability that a slot of regimes 3 to 5 has a second kind of error.
        context: Probability that a field of the patient context is included, for each field.
    """
    slots = []
    for split in SPLITS:
        own = [study for study in studies if study.split == split]
        decks: dict[tuple[ErrorKind, ...], _Deck] = {}
        for number in range(counts.get(split, 0)):
            rng = random.Random(f"{seed} {split} {number}")
            regime = rng.randrange(len(REGIMES))
            kinds = _kinds(regime, rng, second_error)
            included = Included(**{field: rng.random() < context for field in Included.model_fields})
            key = tuple(sorted(kinds))
            if key not in decks:
                decks[key] = _Deck(own, f"{seed} {split} {key}", set(key), possible)
            slots.append(Slot(f"{split}-{number:06d}", regime, kinds, decks[key].draw(), included, split))
    return slots


def _kinds(regime: int, rng: random.Random, second_error: float) -> tuple[ErrorKind, ...]:
    if regime < _FIRST_ERROR:
        return ()
    first = ERROR_KINDS[regime - _FIRST_ERROR]
    second = rng.choice([kind for kind in ERROR_KINDS if kind != first])
    return (first, second) if rng.random() < second_error else (first,)


class _Deck:
    """Studies in random order, those only that allow some errors; it begins anew when all have been drawn."""

    def __init__(
        self, studies: Sequence[Study], seed: str, kinds: set[str], possible: Callable[[Study], frozenset[ErrorKind]]
    ) -> None:
        self._studies, self._seed, self._kinds, self._possible = studies, seed, kinds, possible
        self._round, self._left, self._found = 0, [], True

    def draw(self) -> Study | None:
        while True:
            if not self._left:
                if not self._found:  # a whole round without any
                    return None
                self._left = random.Random(f"{self._seed} {self._round}").sample(self._studies, len(self._studies))
                self._round, self._found = self._round + 1, False
                if not self._left:
                    return None
            study = self._left.pop()
            if not self._kinds or self._kinds <= self._possible(study):
                self._found = True
                return study
