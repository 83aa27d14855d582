"""The price of records: estimated before they are bought, and counted as they are."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from crimson_core.errors import CrimsonError
from crimson_core.judges import load_judge
from crimson_core.protocol.pair import ReportPair
from training.journal import Journal
from training.labels import Labels
from training.plan import Slot
from training.settings import BATCH_SHARE, GenerateConfig

FREE_REGIMES = (0, 1)  # the candidate is the report of another study
MOST_UNASKED = 10.0  # US dollars that are spent without --yes
_CHARACTERS = 4  # per token
_INSTRUCTIONS = 700  # tokens of the writer's prompt without the report
_ANSWER = {"writer": 80, "judge": 500}  # tokens of an answer; the writer's contains the report too
_SECONDS = 10.0  # per answer
_AT_ONCE = 256  # records that are written, then labelled


@dataclass(frozen=True)
class Tokens:
    """Numbers of requests and of their tokens."""

    requests: int = 0
    prompt: int = 0
    answer: int = 0

    def __add__(self, other: "Tokens") -> "Tokens":
        return Tokens(self.requests + other.requests, self.prompt + other.prompt, self.answer + other.answer)


class Budget:
    """Knows what has been paid, what the rest will cost, and what the budget allows."""

    def __init__(self, config: GenerateConfig, candidates: Journal, labels: Labels, batch: bool) -> None:
        self._config, self._candidates, self._labels = config, candidates, labels
        self._share = BATCH_SHARE if batch else 1.0
        self._at_once = None if batch else _AT_ONCE
        self._before = self.spent
        self._expected = 0.0  # the estimated price of everything that this start has bought
        self._instructions = _judge_instructions(config) if config.judge.is_bought else 0

    @property
    def spent(self) -> float:
        """US dollars that all starts of this run have spent together."""
        return sum(
            price.of(asked.usage)
            for price, asked in (
                (self._config.prices.writer, self._candidates),
                (self._config.prices.judge, self._labels),
            )
            if price
        )

    def next(self, waiting: Sequence[Slot]) -> list[Slot]:
        """The slots to make next: as many as fit together and as the budget pays for, with their labels."""
        some = list(waiting[: self._at_once])
        if self._config.budget is None:
            return some
        room = self._config.budget - self.spent
        if room <= 0:
            return []
        # The first purchases show how wrong the estimate is, so they are small.
        paid = self.spent - self._before
        factor = paid / self._expected if paid and self._expected else 1.0
        if not paid and self._at_once:
            some = some[:8]
        total = 0.0

        def is_paid(slot: Slot) -> bool:
            nonlocal total
            total += factor * self.price(slot)
            return total <= room

        return list(takewhile(is_paid, some))

    def bought(self, slots: Sequence[Slot]) -> None:
        """Note that these slots have been made."""
        self._expected += sum(map(self.price, slots))

    def price(self, slot: Slot) -> float:
        """The estimated price of a slot in US dollars, whether or not it was bought."""
        return sum(
            price.of({"prompt_tokens": tokens.prompt, "completion_tokens": tokens.answer}) * self._share
            for tokens, price in zip(
                self._tokens(slot), (self._config.prices.writer, self._config.prices.judge), strict=True
            )
            if price
        )

    def _tokens(self, slot: Slot) -> tuple[Tokens, Tokens]:
        """The tokens of the writer's request and of the judge's."""
        if slot.study is None:
            return Tokens(), Tokens()
        words = len(slot.study.report) // _CHARACTERS
        written = self._config.writer.is_bought and slot.regime not in FREE_REGIMES
        judged = self._config.judge.is_bought and not (
            self._config.construction and self._config.writer.spec == "rules" and slot.regime not in FREE_REGIMES
        )
        return (
            Tokens(1, words + _INSTRUCTIONS, words + _ANSWER["writer"]) if written else Tokens(),
            Tokens(1, 2 * words + self._instructions, _ANSWER["judge"]) if judged else Tokens(),
        )

    def estimate(self, waiting: Sequence[Slot], batch: bool) -> str:
        """One line about the records to make and their price."""
        clauses = [f"{len(waiting):,} records to make"]
        sums = [sum(parts, Tokens()) for parts in zip(*map(self._tokens, waiting), strict=True)] if waiting else []
        hours = 0.0
        for engine, tokens in zip((self._config.writer, self._config.judge), sums, strict=False):
            if tokens.requests:
                concurrency = engine.options.get("concurrency", 8)
                hours += tokens.requests * _SECONDS / concurrency / 3600
                clauses.append(
                    f"{tokens.requests:,} requests to {engine.spec} with some {tokens.prompt / 1e6:.2f} million tokens of "
                    f"prompts and {tokens.answer / 1e6:.2f} million of answers (without reasoning)"
                )
        if len(clauses) > 1:
            cost = sum(map(self.price, waiting))
            unknown = " and ".join(dict.fromkeys(getattr(self._config, name).spec for name in self._config.unpriced))
            clauses.append(f"some ${cost:.2f}" + (f" and what {unknown} costs" if unknown else ""))
            clauses.append("a day or less in each round of batches" if batch else f"some {hours:.1f} hours")
        return "; ".join(clauses) + "."

    def check(self, waiting: Sequence[Slot], yes: bool) -> None:
        """Refuse to spend much, or an unknown amount, without a yes.

        Raises:
            CrimsonError: The user must agree first.
        """
        if yes or not any(tokens.requests for slot in waiting for tokens in self._tokens(slot)):
            return
        if self._config.unpriced:
            name = self._config.unpriced[0]
            raise CrimsonError(
                f"The price of {getattr(self._config, name).spec} is unknown. Give prices.{name}: {{input: …, output: …}}, US dollars per million "
                "tokens (0 for a server of your own), or --yes to buy without."
            )
        cost = sum(map(self.price, waiting))
        if self._config.budget is not None:
            cost = min(cost, max(0.0, self._config.budget - self.spent))
        if cost > MOST_UNASKED:
            raise CrimsonError(
                f"This costs some ${cost:.2f}. Give --yes to buy it, or a budget of ${MOST_UNASKED:.0f} or less."
            )


def _judge_instructions(config: GenerateConfig) -> int:
    """Tokens of the judge's prompt without the reports."""
    options: dict[str, Any] = {key: value for key, value in config.judge.options.items() if key != "batch"}
    prompt = load_judge(config.judge.spec, **options).prompt
    return sum(len(message["content"]) for message in prompt.messages(ReportPair("", ""))) // _CHARACTERS
