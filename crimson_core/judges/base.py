"""The interface of judges: report pairs in, one judgement each out."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from crimson_core.errors import JudgeError
from crimson_core.protocol.evaluation import Evaluation, parse_evaluation
from crimson_core.protocol.pair import ReportPair

IN_MEMORY = "in-memory"  # the revision of a model that a signature cannot identify


@dataclass(frozen=True)
class Judgement:
    """A judge's answer about one report pair: an evaluation, or the reason why there is none.

    Attributes:
        evaluation: The judge's evaluation before the consistency repair; None if it failed.
        failure: Why this pair has no evaluation, without report text; None if it has one.
        repairs: One line per repair that was needed to read the output.
        raw_output: The model's text, if there is one.
        usage: Token counts (`prompt_tokens`, `completion_tokens`), as far as the judge knows them.
        cost: US dollars, if the server reports it.
        from_store: Whether it was read from a store instead of judged now.
    """

    evaluation: Evaluation | None = field(default=None, repr=False)  # contains report text
    failure: str | None = None
    repairs: list[str] = field(default_factory=list)
    raw_output: str | None = field(default=None, repr=False)
    usage: dict[str, int] = field(default_factory=dict)
    cost: float | None = None
    from_store: bool = False

    @classmethod
    def from_output(cls, text: str, usage: dict[str, int] | None = None, cost: float | None = None) -> "Judgement":
        """Read a model's complete output; text without an evaluation becomes a failure."""
        try:
            evaluation, repairs = parse_evaluation(text)
        except ValueError as error:
            return cls(failure=str(error), raw_output=text, usage=usage or {}, cost=cost)
        return cls(evaluation, repairs=repairs, raw_output=text, usage=usage or {}, cost=cost)


@runtime_checkable
class Judge(Protocol):
    """A judge. Its constructor loads the model and raises `JudgeError` if that fails.

    If answers add to its signature (the revision behind an API model's name), it also has `asked_signature()`, the
    signature before any answer; a store uses that one in its keys.
    """

    def judge(self, pairs: Sequence[ReportPair]) -> Generator[tuple[int, Judgement], None, None]:
        """Yield (position in `pairs`, judgement) once per pair, in any order.

        A problem with one pair is a failed judgement; a problem with all of them raises `JudgeError`. Closing the
        generator stops the work.
        """
        ...

    def signature(self) -> dict[str, str]:
        """Everything that somebody else needs to reproduce this judge's evaluations, in printing order."""
        ...


def repeated(index: int) -> JudgeError:
    """The error for a judge that yields a position twice, or one outside the pairs."""
    return JudgeError(f"The judge gave pair {index} twice, or there is no such pair. This is a defect of the judge.")
