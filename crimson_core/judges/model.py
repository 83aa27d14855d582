"""A judge that asks a language model: prompt -> engine -> text -> judgement.

An engine writes text and knows nothing about evaluations. This module builds the questions, reads the answers and
composes the signature, whatever the engine.
"""

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Protocol

from crimson_core.judges.base import Judgement
from crimson_core.protocol.pair import ReportPair
from crimson_core.protocol.prompt import Message, Prompt

SEED = 42
_FIRST = ("judge", "model", "revision", "base", "host", "prompt")  # in a signature; the engine's own fields follow


@dataclass(frozen=True)
class Question:
    """A question to a model.

    Attributes:
        messages: The chat messages.
        seed: For an engine that samples; defaults to the reference implementation's.
        pair: The report pair in question, if there is one, for an engine that drafts the answer.
    """

    messages: list[Message] = field(repr=False)
    seed: int = SEED
    pair: ReportPair | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Answer:
    """The answer to a question.

    Attributes:
        text: The model's text, also in case of failure (a refusal, a truncated output).
        failure: Why there is no finished text, without report text; None if there is one.
        finish_reason: `stop` if the model ended its text; None if it is unknown whether the text was cut.
        usage: Token counts (`prompt_tokens`, `completion_tokens`), as far as the engine knows them.
        cost: US dollars, if the server reports it.
    """

    text: str | None = field(default=None, repr=False)
    failure: str | None = None
    finish_reason: str | None = None
    usage: dict[str, int] = field(default_factory=dict)
    cost: float | None = None


class Engine(Protocol):
    """Writes text. It owns the model, and the limits and the grammar of its outputs.

    If answers add to its signature, it also has `asked_signature()`, as a `Judge` has.
    """

    def write(self, questions: Sequence[Question]) -> Generator[tuple[int, Answer], None, None]:
        """Yield (position in `questions`, answer) once per question, in any order.

        A problem with one question is a failed answer; a problem with all of them raises `JudgeError`. Closing the
        generator stops the work.
        """
        ...

    def signature(self) -> dict[str, str]:
        """The judge's name, the model, and everything else that decides the output, except the prompt."""
        ...


class ModelJudge:
    """Judges with a language model.

    Args:
        engine: Runs the model.
        prompt: Turns a pair into messages.

    Attributes:
        engine: See above.
        prompt: See above; may be replaced by another `Prompt` of the same style.

    Raises:
        JudgeError: The prompt needs a package that is not installed.
    """

    def __init__(self, engine: Engine, prompt: Prompt) -> None:
        self.engine, self.prompt = engine, prompt
        prompt.messages(ReportPair("", ""))  # raises now instead of in the middle of a run

    def judge(self, pairs: Sequence[ReportPair]) -> Generator[tuple[int, Judgement], None, None]:
        """Yield (position in `pairs`, judgement) as they are done; short pairs start first.

        A prompt that is too long for the model, an output that does not end and one that cannot be read are failed
        judgements.
        """
        order = sorted(range(len(pairs)), key=lambda index: _size(pairs[index]))
        with closing(self.engine.write(_Questions([pairs[index] for index in order], self.prompt))) as answers:
            for place, answer in answers:
                yield order[place], _judgement(answer)

    def signature(self) -> dict[str, str]:
        """Judge, model, prompt and decoding."""
        return self._signature(self.engine.signature())

    def asked_signature(self) -> dict[str, str]:
        """The signature before any answer."""
        return self._signature(getattr(self.engine, "asked_signature", self.engine.signature)())

    def _signature(self, engine: dict[str, str]) -> dict[str, str]:
        known = engine | {"prompt": str(self.prompt)}
        return {key: known[key] for key in (*_FIRST, *known) if key in known}


class _Questions(Sequence[Question]):
    """One question per pair, built when the engine takes it, since prompts are long."""

    def __init__(self, pairs: Sequence[ReportPair], prompt: Prompt) -> None:
        self._pairs, self._prompt = pairs, prompt

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, place: int) -> Question:  # type: ignore[override]  # no slices
        pair = self._pairs[place]
        return Question(self._prompt.messages(pair), pair=pair)


def _size(pair: ReportPair) -> tuple[int, str, int]:
    """A sorting key: short pairs first, and pairs with the same reference together, since their prompts start alike.

    It counts characters, which needs no tokenizer. With long pairs last, an engine that runs out of memory has learnt
    its limits from the short ones.
    """
    context = sum(map(len, pair.context.as_dict().values() if pair.context else ()))
    return len(pair.reference) + context, pair.reference, len(pair.candidate)


def _judgement(answer: Answer) -> Judgement:
    if answer.failure:
        return Judgement(failure=answer.failure, raw_output=answer.text, usage=answer.usage, cost=answer.cost)
    judgement = Judgement.from_output(answer.text or "", answer.usage, answer.cost)
    # It is unknown whether the text was cut, and broken JSON may be truncated JSON.
    if answer.finish_reason is None and judgement.repairs:
        return replace(judgement, evaluation=None, failure="the output is no valid JSON and may be cut", repairs=[])
    return judgement
