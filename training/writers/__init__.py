"""Writers of candidate reports: what is asked of them, and what comes back."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from inspect import signature
from typing import Any, Literal, NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict

from crimson_core.errors import InputError
from crimson_core.protocol.evaluation import Evaluation
from crimson_core.protocol.pair import PatientContext

ErrorKind = Literal["false_finding", "attribute_error", "omission"]
ERROR_KINDS: tuple[ErrorKind, ...] = ErrorKind.__args__
# As the CRIMSON card names them; "descriptor" is its morphology.
Attribute = Literal["location", "severity", "descriptor", "measurement", "certainty", "temporal"]
ATTRIBUTES: tuple[Attribute, ...] = Attribute.__args__


class Aim(NamedTuple):
    """An attribute error that a report allows: of which attribute, and of which concept of the lexicon."""

    attribute: Attribute
    concept: str


class Change(BaseModel):
    """One error that a writer put into a candidate.

    Attributes:
        kind: What kind of error it is.
        attribute: Which attribute is wrong, for an attribute error.
        before: The words of the ground truth that it is about; empty for a false finding.
        after: The words of the candidate that hold it; empty for an omission.
    """

    model_config = ConfigDict(extra="forbid")

    kind: ErrorKind
    attribute: Attribute | None = None
    before: str = ""
    after: str = ""


@dataclass(frozen=True)
class Task:
    """One candidate to be written.

    Attributes:
        report: The ground truth.
        kinds: The errors to make, one each; none for a rewrite with the same clinical meaning.
        seed: Decides what chance decides, so that the same task has the same draft where the writer is deterministic.
        context: The part of the patient context that the record will hold.
        aim: Which attribute error to make; None leaves it to the writer.
    """

    report: str = field(repr=False)
    kinds: tuple[ErrorKind, ...]
    seed: str
    context: PatientContext | None = None
    aim: Aim | None = None


@dataclass(frozen=True)
class Draft:
    """What a writer made of a task: a candidate, or the reason why there is none.

    Attributes:
        candidate: The report.
        changes: The errors in it, one per kind of the task.
        evaluation: The label, where the writer knows it by construction.
        failure: Why there is no candidate, without report text.
        usage: Token counts (`prompt_tokens`, `completion_tokens`) that were paid for, also of a failure.
    """

    candidate: str | None = field(default=None, repr=False)
    changes: tuple[Change, ...] = ()
    evaluation: Evaluation | None = field(default=None, repr=False)
    failure: str | None = None
    usage: dict[str, int] = field(default_factory=dict)


class Writer(Protocol):
    """A writer. Its constructor raises `JudgeError` or `InputError` where it cannot be had."""

    def possible(self, report: str, kinds: Sequence[ErrorKind], aim: Aim | None = None) -> bool:
        """Whether these errors can be made on a report, all in one candidate; cheap, and asks no API."""
        ...

    def aims(self, report: str) -> frozenset[Aim]:
        """The attribute errors that a report allows; none where the writer takes no aim. As cheap."""
        ...

    def write(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Draft]]:
        """Yield (position in `tasks`, draft), each task once, in whatever order they are done.

        What is wrong with one task is a failed draft; what makes going on pointless raises `JudgeError`. Closing the
        iterator early stops the work.
        """
        ...

    def signature(self) -> dict[str, str]:
        """What somebody else must know to write the same candidates."""
        ...


# Spec or spec prefix -> module and class, imported when the writer is first built.
WRITERS = {
    "rules": "training.writers.rules:RuleWriter",
    "openai": "training.writers.llm:LLMWriter",
    "azure": "training.writers.llm:LLMWriter",
}


def load_writer(spec: str, **options: Any) -> Writer:
    """Build the writer that a spec names.

    Args:
        spec: `rules`, `openai:<model>` or `azure:<deployment>`.
        **options: For the writer's constructor, for example `temperature` of `LLMWriter`.

    Raises:
        InputError: The spec names no writer, or the writer knows no such option.
        JudgeError: The writer cannot be had: a package, a key or an endpoint is missing.
    """
    prefix, colon, model = spec.strip().partition(":") if isinstance(spec, str) else ("", "", "")
    if prefix not in WRITERS or bool(model.strip()) != (prefix != "rules") or (prefix == "rules" and colon):
        raise InputError(f"writer {spec!r} is unknown. Use rules, openai:<model> or azure:<deployment>.")
    module, _, name = WRITERS[prefix].partition(":")
    writer = getattr(import_module(module), name)
    if prefix != "rules":
        return writer(spec.strip(), **options)
    for option in options:
        if option not in signature(writer).parameters:
            known = ", ".join(sorted(signature(writer).parameters)) or "none"
            raise InputError(f"writer {spec!r} knows no option {option!r}. Its options: {known}.")
    return writer(**options)
