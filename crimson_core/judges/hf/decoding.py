"""Greedy decoding with drafts: each row guesses its next tokens, and one forward pass checks the guesses of all rows.

What is written is what greedy decoding would write, token by token: a guess counts only where it is the likeliest token
that the grammar allows, and only behind guesses that count. Where the grammar leaves one choice, the model is not asked.
"""

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import NamedTuple

import torch
from torch import Tensor

from crimson_core.judges.hf.cache import RowCache
from crimson_core.judges.hf.drafts import Drafter
from crimson_core.judges.hf.grammar import Allowed, Grammar, Matcher, NoGrammar
from crimson_core.judges.hf.packed import PackedModel, Span

_PROMPT_TOKENS = 512, 4096  # of a pass over prompts: on a CPU, on an accelerator
_SHARING = 4  # rows whose prompts are kept to share
_WORTH_SHARING = 16  # tokens
_HEAD_ROWS = 64, 128  # positions that the output layer is asked about at once
_MOST = 64  # tokens of a draft, where the grammar leaves no choice at all


@dataclass
class Work:
    """What decoding has done, for benchmarks.

    Attributes:
        passes: Forward passes of the model's layers.
        row_passes: The same, counted for each row that took part.
        prompt_tokens: Tokens of prompts that went through the layers.
        tokens: Output tokens, end tokens included.
        drafted: Guesses that went through the layers.
        agreed: Those that came true.
        head: Positions at which the whole output layer was asked.
        seconds: By what they were spent on.
    """

    passes: int = 0
    row_passes: int = 0
    prompt_tokens: int = 0
    tokens: int = 0
    drafted: int = 0
    agreed: int = 0
    head: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    _open: list[str] = field(default_factory=list, repr=False)
    _since: float = field(default=0.0, repr=False)

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Add the time of a block to `seconds`; a block inside of it is not counted twice."""
        self._turn()
        self._open.append(what)
        try:
            yield
        finally:
            self._turn()
            self._open.pop()

    def _turn(self) -> None:
        now = perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now


@dataclass
class Row:
    """One output that is being written.

    Attributes:
        prompt: Token ids.
        limit: Most tokens of the output.
        matcher: Where the output stands in the grammar.
        drafter: Who guesses.
        output: Token ids so far.
        done: Whether it has ended or come to its limit.
        cache: Of what has been read.
    """

    prompt: list[int]
    limit: int
    matcher: Matcher
    drafter: Drafter
    output: list[int] = field(default_factory=list)
    done: bool = False
    cache: RowCache = field(default_factory=RowCache)

    @property
    def unread(self) -> list[int]:
        """Tokens that the model has not read; in the middle of an output one."""
        read = self.cache.length
        return self.prompt[read:] + self.output if read < len(self.prompt) else self.output[read - len(self.prompt) :]


class Decoder:
    """Writes the outputs of rows, some tokens of each at a time.

    Args:
        model: Of the judge.
        grammar: What outputs must obey.
        ends: End tokens.
        work: Where to count.
    """

    def __init__(self, model: PackedModel, grammar: Grammar | NoGrammar, ends: Set[int], work: Work) -> None:
        self._model, self._grammar, self._ends, self._work = model, grammar, ends, work
        self._read: deque[tuple[list[int], RowCache]] = deque(maxlen=_SHARING)
        on_cpu = model.device.type == "cpu"
        self._prompt_tokens, self._head_rows = (sizes[0 if on_cpu else 1] for sizes in (_PROMPT_TOKENS, _HEAD_ROWS))

    def forget(self) -> None:
        """Let go of what was read."""
        self._read.clear()

    @torch.no_grad()
    def step(self, rows: Sequence[Row]) -> None:
        """One forward pass, over prompts that have not been read as long as there are some, else over all rows."""
        reading = [row for row in rows if len(row.unread) > 1]
        spans: list[Span] = []
        asked: list[_Asked] = []
        place, room = 0, self._prompt_tokens
        for row in reading or rows:
            if reading and room <= 0:
                break
            if not row.cache.length:
                self._share(row)
            unread = row.unread
            tokens = unread[:room] if reading else unread
            room -= len(tokens)
            self._work.prompt_tokens += len(tokens) if reading else 0
            last = place + len(tokens) - 1
            if len(tokens) == len(unread):
                draft, allowed = self._draft(row, len(rows))
                asked.append(_Asked(row, draft, allowed, last))
                tokens = tokens + draft
            spans.append(Span(row.cache, tokens))
            place += len(tokens)
        with self._work.timed("prompt pass" if reading else "decoding"), self._model.attention():
            hidden = self._model.hidden_states(spans)
        with self._work.timed("output layer"):
            written = self._written(asked, hidden)
        if reading:
            self._read += [(question.row.prompt, question.row.cache) for question in asked]
        self._work.passes += 1
        self._work.row_passes += len(asked)
        for span in spans:
            span.cache.length += len(span.tokens)
        for question, tokens in zip(asked, written, strict=True):
            self._take(question, tokens)

    def _share(self, row: Row) -> None:
        """Take over what another row has read, as far as the prompts are the same: one text stands around all reports."""
        same = [(_common(row.prompt[:-1], prompt), cache) for prompt, cache in self._read]
        length, cache = max(same, key=lambda item: item[0], default=(0, None))
        if length >= _WORTH_SHARING and cache.length >= length:
            row.cache.copy_start(cache, length)

    def _draft(self, row: Row, rows: int) -> tuple[list[int], list[Allowed]]:
        """Guesses for the next tokens, and what the grammar allows in the place of each and behind them.

        The row's matcher has gone on by them.
        """
        with self._work.timed("drafting"):
            guesses = row.drafter.guesses(rows)
        draft: list[int] = []
        allowed: list[Allowed] = []
        while len(row.output) + len(draft) < row.limit:
            with self._work.timed("grammar"):
                may = self._grammar.allowed(row.matcher)
            allowed.append(may)
            with self._work.timed("drafting"):
                token = may.only if may.only is not None else guesses.peek()
                if token is None or token not in may or (may.only is not None and len(draft) >= _MOST):
                    break
                guesses.go_on(token, may.only is None)
            draft.append(token)
            with self._work.timed("grammar"):
                row.matcher.accept_token(token)
            if token in self._ends:
                break
        return draft, allowed

    def _written(self, asked: Sequence["_Asked"], hidden: Tensor) -> list[list[int]]:
        """For each row its guesses as far as greedy decoding agrees, and the token that it writes where it does not."""
        answers: list[dict[int, int]] = [{} for _ in asked]  # what greedy decoding writes, by place in the draft
        few: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for n, question in enumerate(asked):
            for i, may in enumerate(question.allowed):
                if may.only is not None:
                    answers[n][i] = may.only
                elif may.few is not None:
                    few[id(may)].append((n, i))
        found = []
        for places in few.values():
            (n, i), *_ = places
            ids = asked[n].allowed[i].few
            logits = self._model.logits(hidden[[asked[n].last + i for n, i in places]], ids)
            found.append(ids[logits.argmax(-1)])
        if found:
            everywhere = [place for places in few.values() for place in places]
            for (n, i), token in zip(everywhere, torch.cat(found).tolist(), strict=True):
                answers[n][i] = token

        # The whole vocabulary, from the left, so that what follows the first disagreement costs nothing.
        while unknown := {n: places for n, question in enumerate(asked) if (places := question.unknown(answers[n]))}:
            each = max(1, self._head_rows // len(unknown))
            places = [(n, i) for n, row_places in unknown.items() for i in row_places[:each]]
            logits = self._model.logits(hidden[[asked[n].last + i for n, i in places]])
            self._work.head += len(places)
            for (n, i), token, row in zip(places, logits.argmax(-1).tolist(), logits, strict=True):
                may = asked[n].allowed[i]
                answers[n][i] = token if token in may else may.best(row)
        return [question.written(known) for question, known in zip(asked, answers, strict=True)]

    def _take(self, question: "_Asked", tokens: list[int]) -> None:
        """Add to a row what was written."""
        row, draft = question.row, question.draft
        agreed = sum(1 for guess, token in zip(draft, tokens) if guess == token)  # noqa: B905 (one is longer)
        row.cache.length -= len(draft) - agreed
        row.output += tokens
        row.matcher.rollback(len(draft) - agreed)
        if len(tokens) > agreed:
            row.matcher.accept_token(tokens[-1])
        row.done = row.output[-1] in self._ends or len(row.output) >= row.limit
        row.drafter.wrote(tokens, agreed)
        self._work.drafted += len(draft)
        self._work.agreed += agreed
        self._work.tokens += len(tokens)


class _Asked(NamedTuple):
    """A row's guesses, what the grammar allows in the place of each and behind them, and where its last known token is."""

    row: Row
    draft: list[int]
    allowed: list[Allowed]
    last: int

    def unknown(self, known: dict[int, int]) -> list[int]:
        """The places before the first known disagreement that greedy decoding has not been asked about."""
        places = range(len(self.allowed))
        end = next((i for i in places if i in known and self.draft[i : i + 1] != [known[i]]), len(self.allowed))
        return [i for i in places[:end] if i not in known]

    def written(self, known: dict[int, int]) -> list[int]:
        """The guesses up to the first disagreement, and there what greedy decoding writes instead."""
        tokens: list[int] = []
        for i in range(len(self.allowed)):
            tokens.append(known[i])
            if self.draft[i : i + 1] != [known[i]]:
                break
        return tokens


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two texts have in common at their start."""
    return next((i for i, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))  # noqa: B905
