"""What every judge is: report pairs in, one judgement each out."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from crimson_core.errors import JudgeError
from crimson_core.protocol.evaluation import Evaluation, parse_evaluation
from crimson_core.protocol.pair import ReportPair

IN_MEMORY = "in-memory"  # the revision of a model that no signature can tell from others


@dataclass(frozen=True)
class Judgement:
    """What a judge said about one report pair: an evaluation, or the reason why there is none.

    Attributes:
        evaluation: As the judge gave it, before the consistency repair; None if it failed.
        failure: Why this pair has no evaluation, without report text; None if it has one.
        repairs: One line per thing that had to be mended to read the output.
        raw_output: The model's text, where there is one.
        usage: Token counts (`prompt_tokens`, `completion_tokens`), where the judge knows them.
        cost: US dollars, where the server tells.
        from_store: Whether it was read from a store, and not judged now.
    """

    evaluation: Evaluation | None = field(default=None, repr=False)  # holds report text
    failure: str | None = None
    repairs: list[str] = field(default_factory=list)
    raw_output: str | None = field(default=None, repr=False)
    usage: dict[str, int] = field(default_factory=dict)
    cost: float | None = None
    from_store: bool = False

    @classmethod
    def from_output(cls, text: str, usage: dict[str, int] | None = None, cost: float | None = None) -> "Judgement":
        """Read a model's complete output text; text that holds no evaluation becomes a failure."""
        try:
            evaluation, repairs = parse_evaluation(text)
        except ValueError as error:
            return cls(failure=str(error), raw_output=text, usage=usage or {}, cost=cost)
        return cls(evaluation, repairs=repairs, raw_output=text, usage=usage or {}, cost=cost)


@runtime_checkable
class Judge(Protocol):
    """A judge. Who builds it loads what it needs and raises `JudgeError` where that cannot be had.

    One whose signature tells more after answers (the revision behind an API model's name) also has `asked_signature()`,
    the signature as it is before any; a store keeps judgements under that one.
    """

    def judge(self, pairs: Sequence[ReportPair]) -> Generator[tuple[int, Judgement], None, None]:
        """Yield (position in `pairs`, judgement), each pair once, in whatever order they are done.

        What is wrong with one pair is a failed judgement. What makes going on pointless raises `JudgeError`.
        Closing the generator early stops the work.
        """
        ...

    def signature(self) -> dict[str, str]:
        """What somebody else must know to reproduce this judge's evaluations, in the order to print it."""
        ...


def repeated(index: int) -> JudgeError:
    """The error for a judge that gives a position twice, or one that is none."""
    return JudgeError(f"The judge gave pair {index} twice, or one that is none. This is a defect of the judge.")
