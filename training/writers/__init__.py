"""Writers of candidate reports: their tasks, their drafts, and how they are loaded."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from inspect import signature
from typing import Any, Literal, NamedTuple, Protocol

from crimson_core.errors import InputError
from crimson_core.protocol.evaluation import Evaluation
from crimson_core.protocol.pair import PatientContext
from crimson_core.run.config_file import Strict

ErrorKind = Literal["false_finding", "attribute_error", "omission"]
ERROR_KINDS: tuple[ErrorKind, ...] = ErrorKind.__args__
# The attributes of the CRIMSON model card; "descriptor" is its morphology.
Attribute = Literal["location", "severity", "descriptor", "measurement", "certainty", "temporal"]
ATTRIBUTES: tuple[Attribute, ...] = Attribute.__args__


class Aim(NamedTuple):
    """An attribute error that a report allows: the attribute, and the lexicon's concept of the finding."""

    attribute: Attribute
    concept: str


class Change(Strict):
    """One error that a writer put into a candidate."""

    kind: ErrorKind
    attribute: Attribute | None = None  # the wrong one, for an attribute error
    before: str = ""  # the words of the ground truth that are changed or left out; empty for a false finding
    after: str = ""  # the words of the candidate with the error; empty for an omission


@dataclass(frozen=True)
class Task:
    """One candidate to write."""

    report: str = field(repr=False)  # the ground truth
    # the errors to make, one of each kind; empty for a rewrite with the same clinical meaning
    kinds: tuple[ErrorKind, ...]
    seed: str  # seed of random choices: with a deterministic writer, the same task has the same draft
    context: PatientContext | None = None  # the part of the patient context that the record will contain
    aim: Aim | None = None  # the attribute error to make; None lets the writer choose


@dataclass(frozen=True)
class Draft:
    """The result of a task: a candidate, or the reason why there is none."""

    candidate: str | None = field(default=None, repr=False)  # the report
    changes: tuple[Change, ...] = ()  # the errors in it, one per kind of the task
    evaluation: Evaluation | None = field(default=None, repr=False)  # the label, if the writer knows it by construction
    failure: str | None = None  # why there is no candidate, without report text
    # token counts (`prompt_tokens`, `completion_tokens`) that were paid for, also for a failure
    usage: dict[str, int] = field(default_factory=dict)


class Writer(Protocol):
    """A writer. Its constructor raises `JudgeError` or `InputError` if it cannot be loaded."""

    def possible(self, report: str, kinds: Sequence[ErrorKind], aim: Aim | None = None) -> bool:
        """Whether one candidate for a report can have all these errors. Cheap; asks no API."""
        ...

    def aims(self, report: str) -> frozenset[Aim]:
        """The attribute errors that a report allows; empty if the writer accepts no aim. Cheap, too."""
        ...

    def write(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Draft]]:
        """Yield (position in `tasks`, draft) once per task, in any order.

        A problem with one task is a failed draft; a problem with all of them raises `JudgeError`. Closing the iterator stops
        the work.
        """
        ...

    def signature(self) -> dict[str, str]:
        """Everything that somebody else needs to write the same candidates."""
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
        **options: Options of the writer, for example `temperature` of `LLMWriter`.

    Raises:
        InputError: The spec names no writer, or the writer has no such option.
        JudgeError: A package, a key or an endpoint is missing.
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
