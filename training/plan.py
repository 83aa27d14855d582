"""Plans the records: draws, by seed, which study each is made of, by which regime and with which errors."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from math import sqrt

from training.corpus import SPLITS, Split, Study
from training.records import REGIMES, Included
from training.writers import ATTRIBUTES, ERROR_KINDS, Aim, ErrorKind, Writer

_FIRST_ERROR = 3  # the regime of ERROR_KINDS[0]


@dataclass(frozen=True)
class Slot:
    """One record to make."""

    id: str  # split and number
    regime: int  # position in `training.records.REGIMES`
    kinds: tuple[ErrorKind, ...]  # the errors to make, in regimes 3 to 5; the regime's own first
    study: Study | None  # the study whose report is the ground truth; None if no study of the split allows these errors
    included: Included  # the fields of the patient context that the record contains
    split: Split
    aim: Aim | None = None  # the attribute error to make, if the writer accepts an aim


def plan(
    studies: Sequence[Study],
    counts: dict[Split, int],
    writer: Writer,
    *,
    seed: int,
    second_error: float,
    context: float,
) -> list[Slot]:
    """The slots of all splits.

    Regimes are equally probable, whatever the studies contain, and so are the attributes of attribute errors. A concept's
    probability is proportional to the square root of the number of studies that allow it: common findings come more often
    than rare ones, but do not crowd them out. Each set of errors has its own deck of studies, in random order, and draws
    each study once before any comes twice; so the studies that suit one regime do not influence the others.

    Args:
        studies: The studies of the corpus.
        counts: Number of records per split.
        writer: Knows which errors a study allows.
        seed: Seed of the run. A slot does not depend on the number of slots, so a run can be made longer.
        second_error: Probability that a slot of regimes 3 to 5 has a second kind of error.
        context: Probability that a field of the patient context is included, for each field.
    """
    slots = []
    for split in SPLITS:
        decks = _Decks([study for study in studies if study.split == split], f"{seed} {split}", writer)
        for number in range(counts.get(split, 0)):
            rng = random.Random(f"{seed} {split} {number}")
            regime = rng.randrange(len(REGIMES))
            kinds = _kinds(regime, rng, second_error)
            included = Included(**{field: rng.random() < context for field in Included.model_fields})
            study, aim = decks.draw(kinds, rng)
            slots.append(Slot(f"{split}-{number:06d}", regime, kinds, study, included, split, aim))
    return slots


def _kinds(regime: int, rng: random.Random, second_error: float) -> tuple[ErrorKind, ...]:
    if regime < _FIRST_ERROR:
        return ()
    first = ERROR_KINDS[regime - _FIRST_ERROR]
    second = rng.choice([kind for kind in ERROR_KINDS if kind != first])
    return (first, second) if rng.random() < second_error else (first,)


class _Decks:
    """The studies of a split, with a deck for each set of errors."""

    def __init__(self, studies: Sequence[Study], seed: str, writer: Writer) -> None:
        self._studies, self._seed, self._writer = studies, seed, writer
        self._decks: dict[tuple[tuple[ErrorKind, ...], Aim | None], _Deck] = {}

    def draw(self, kinds: tuple[ErrorKind, ...], rng: random.Random) -> tuple[Study | None, Aim | None]:
        """A study that allows these errors, if there is one, and the attribute error to make on it."""
        if "attribute_error" in kinds:
            for attribute in rng.sample(ATTRIBUTES, len(ATTRIBUTES)):
                allowed = dict(self._allowed.get(attribute, {}))
                while allowed:
                    concepts = list(allowed)
                    concept = rng.choices(concepts, [sqrt(len(allowed[c])) for c in concepts])[0]
                    aim = Aim(attribute, concept)
                    study = self._deck(kinds, aim, allowed.pop(concept)).draw()
                    if study:
                        return study, aim
        if "attribute_error" not in kinds or not self._allowed:
            return self._deck(kinds, None, self._studies).draw(), None
        return None, None

    @cached_property
    def _allowed(self) -> dict[str, dict[str, list[Study]]]:
        """Attribute -> concept -> the studies that allow such an error."""
        allowed: dict[str, dict[str, list[Study]]] = {}
        for study in self._studies:
            for attribute, concept in sorted(self._writer.aims(study.report)):
                allowed.setdefault(attribute, {}).setdefault(concept, []).append(study)
        return allowed

    def _deck(self, kinds: tuple[ErrorKind, ...], aim: Aim | None, studies: Sequence[Study]) -> "_Deck":
        key = (tuple(sorted(kinds)), aim)
        if key not in self._decks:
            self._decks[key] = _Deck(studies, f"{self._seed} {key[0]} {aim and tuple(aim)}", kinds, aim, self._writer)
        return self._decks[key]


class _Deck:
    """The studies that allow some errors, in random order; it is shuffled again when all have been drawn."""

    def __init__(
        self, studies: Sequence[Study], seed: str, kinds: tuple[ErrorKind, ...], aim: Aim | None, writer: Writer
    ) -> None:
        self._studies, self._seed = studies, seed
        self._round, self._left, self._found = 0, [], True
        self._fits = cache(lambda report: not kinds or writer.possible(report, kinds, aim))

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
            if self._fits(study.report):
                self._found = True
                return study
