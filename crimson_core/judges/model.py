"""A judge that asks a language model: prompt -> engine -> text -> judgement.

An engine writes text and knows nothing of evaluations; how a pair is put to the model, what its answer says and what
stands in the signature of every such judge is decided here.
"""

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Protocol

from crimson_core.judges.base import Judgement
from crimson_core.protocol.pair import ReportPair
from crimson_core.protocol.prompt import Message, Prompt

SEED = 42
_FIRST = ("judge", "model", "revision", "base", "host", "prompt")  # of a signature; the rest is the engine's


@dataclass(frozen=True)
class Question:
    """What a model is asked.

    Attributes:
        messages: Of the chat.
        seed: For an engine that draws; by default the reference implementation's.
        pair: The report pair that it is about, if it is about one, for an engine that guesses at the answer.
    """

    messages: list[Message] = field(repr=False)
    seed: int = SEED
    pair: ReportPair | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Answer:
    """What came of a question.

    Attributes:
        text: What the model wrote, also where that is a failure (a refusal, an output that was cut).
        failure: Why there is no finished text, without report text; None if there is one.
        finish_reason: `stop` where the model has ended its text; None where nobody knows whether it was cut.
        usage: Token counts (`prompt_tokens`, `completion_tokens`), where the engine knows them.
        cost: US dollars, where a server tells.
    """

    text: str | None = field(default=None, repr=False)
    failure: str | None = None
    finish_reason: str | None = None
    usage: dict[str, int] = field(default_factory=dict)
    cost: float | None = None


class Engine(Protocol):
    """What writes text. It holds the model, and whatever keeps outputs in bounds or inside a grammar.

    One whose signature tells more after answers also has `asked_signature()`, as a `Judge` has.
    """

    def write(self, questions: Sequence[Question]) -> Generator[tuple[int, Answer], None, None]:
        """Yield (position in `questions`, answer), each question once, in whatever order they are done.

        What is wrong with one question is a failed answer. What makes going on pointless raises `JudgeError`. Closing
        the generator early stops the work.
        """
        ...

    def signature(self) -> dict[str, str]:
        """The judge's name, the model, and all else that decides what is written, but for the prompt."""
        ...


class ModelJudge:
    """Judges with a language model.

    Args:
        engine: What runs the model.
        prompt: How a pair is put to it.

    Attributes:
        engine: As above.
        prompt: As above; may be replaced by another `Prompt` of the same style.

    Raises:
        JudgeError: The prompt cannot be had.
    """

    def __init__(self, engine: Engine, prompt: Prompt) -> None:
        self.engine, self.prompt = engine, prompt
        prompt.messages(ReportPair("", ""))  # raises now, not in the middle of a run, if the prompt cannot be had

    def judge(self, pairs: Sequence[ReportPair]) -> Generator[tuple[int, Judgement], None, None]:
        """Yield (position in `pairs`, judgement), each as it is done; short pairs are begun first.

        A pair whose prompt the model cannot hold, or whose output does not end or cannot be read, is a failed
        judgement.
        """
        order = sorted(range(len(pairs)), key=lambda index: _size(pairs[index]))
        with closing(self.engine.write(_Questions([pairs[index] for index in order], self.prompt))) as answers:
            for place, answer in answers:
                yield order[place], _judgement(answer)

    def signature(self) -> dict[str, str]:
        """Judge, model, prompt and decoding, as far as they are known."""
        return self._signature(self.engine.signature())

    def asked_signature(self) -> dict[str, str]:
        """The signature as it is before any answer."""
        return self._signature(getattr(self.engine, "asked_signature", self.engine.signature)())

    def _signature(self, engine: dict[str, str]) -> dict[str, str]:
        known = engine | {"prompt": str(self.prompt)}
        return {key: known[key] for key in (*_FIRST, *known) if key in known}


class _Questions(Sequence[Question]):
    """A question for each pair, made when an engine takes it: prompts are long."""

    def __init__(self, pairs: Sequence[ReportPair], prompt: Prompt) -> None:
        self._pairs, self._prompt = pairs, prompt

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, place: int) -> Question:  # type: ignore[override]  # no slices
        pair = self._pairs[place]
        return Question(self._prompt.messages(pair), pair=pair)


def _size(pair: ReportPair) -> tuple[int, str, int]:
    """A sorting key: short ones first, and those with the same reference together, since their prompts start alike.

    By characters, which needs no tokenising ahead. Memory runs out in the long ones, and by then an engine has learnt.
    """
    context = sum(map(len, pair.context.as_dict().values() if pair.context else ()))
    return len(pair.reference) + context, pair.reference, len(pair.candidate)


def _judgement(answer: Answer) -> Judgement:
    if answer.failure:
        return Judgement(failure=answer.failure, raw_output=answer.text, usage=answer.usage, cost=answer.cost)
    judgement = Judgement.from_output(answer.text or "", answer.usage, answer.cost)
    # Nobody knows whether it was cut, and broken JSON may be JSON that was.
    if answer.finish_reason is None and judgement.repairs:
        return replace(judgement, evaluation=None, failure="the output is no valid JSON and may be cut", repairs=[])
    return judgement
