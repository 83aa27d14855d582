"""Greedy decoding with drafts: each row guesses its next tokens, and one forward pass checks the guesses of all rows.

The output is the same as that of greedy decoding, token by token: a guess counts only if it is the likeliest token that the
grammar allows, and only if all guesses before it count. Prompts are read in chunks, in the same passes.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import NamedTuple

import torch
from torch import Tensor

from crimson_core.judges.engines.hf.cache import RowCache
from crimson_core.judges.engines.hf.device import free_memory
from crimson_core.judges.engines.hf.drafts import Drafter, Guesses
from crimson_core.judges.engines.hf.grammar import Allowed, Grammar, Matcher, NoGrammar
from crimson_core.judges.engines.hf.packed import PackedModel, Span

_KEPT = 4  # rows whose prompts are kept to share
_WORTH_SHARING = 16  # tokens that two prompts must have in common
_MOST = 64  # tokens of a draft where the grammar allows only one token each time
_ASKED_ALIGNED = 64  # the number of positions for the output layer is rounded up to a multiple of this
_EXPECTED = 512  # tokens of an output; a row starts only if memory for them is free
_ROUND = 256  # slots of a row are a multiple of this, so that a row fits where a similar one was
_SHARE = (
    0.7,
    0.9,
)  # share of the free memory for caches: on a CPU, whose memory other programs use too; on an accelerator


class Pace(NamedTuple):
    """Settings of decoding that depend on the device.

    Attributes:
        tokens: Maximum number of tokens in a pass, as long as rows have prompt tokens to read.
        chunk: Maximum number of tokens of one row in a pass.
        head: Number of positions for which the output layer computes logits at once.
        allowed_first: Ask the grammar first, and compute logits only for the tokens that it allows. False computes all
            logits first, which is better where the output layer is cheap and the device would wait for the grammar.
        crews: Number of groups of rows. With two, the device works on one while the host reads the answers of the other.
        costs: Cost of a pass, and of one more row in it, whose cache must be read. The unit is the cost of one token that
            goes through the layers.
    """

    tokens: int
    chunk: int
    head: int
    allowed_first: bool
    crews: int
    costs: tuple[int, int]


CPU_PACE = Pace(tokens=512, chunk=512, head=64, allowed_first=True, crews=1, costs=(16, 0))
CUDA_PACE = Pace(tokens=4096, chunk=512, head=1024, allowed_first=False, crews=2, costs=(256, 3))


@dataclass
class Work:
    """Counts and times of decoding, for benchmarks.

    Attributes:
        passes: Forward passes of the model's layers.
        row_passes: Sum over these passes of the rows that got tokens from them.
        prompt_tokens: Prompt tokens that went through the layers.
        tokens: Output tokens, including end tokens.
        drafted: Guesses that went through the layers.
        agreed: Guesses that were right.
        head: Positions for which logits over the whole vocabulary were computed.
        seconds: Time by activity. On an accelerator, the time of a pass is that of starting it, and `waiting` is the time in
            which the host had nothing to do but wait for it.
        clock: Measures the time.
    """

    passes: int = 0
    row_passes: int = 0
    prompt_tokens: int = 0
    tokens: int = 0
    drafted: int = 0
    agreed: int = 0
    head: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    clock: Callable[[], float] = perf_counter
    _open: list[str] = field(default_factory=list, repr=False)
    _since: float = field(default=0.0, repr=False)

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Add the time of a block to `seconds`, without the time of timed blocks inside it."""
        self._turn()
        self._open.append(what)
        try:
            yield
        finally:
            self._turn()
            self._open.pop()

    def _turn(self) -> None:
        now = self.clock()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now


@dataclass
class Row:
    """One output that is being written.

    Attributes:
        prompt: Token ids.
        limit: Maximum number of output tokens.
        matcher: State of the output in the grammar.
        drafter: Makes the guesses.
        cache: Keys and values of the tokens that the model has read.
        output: Token ids so far.
        done: Whether the output has ended or reached its limit.
        left: Whether the row is finished, and its cache is kept only for rows whose prompts start alike.
    """

    prompt: list[int]
    limit: int
    matcher: Matcher
    drafter: Drafter
    cache: RowCache
    output: list[int] = field(default_factory=list)
    done: bool = False
    left: bool = False

    @property
    def to_read(self) -> int:
        """Number of tokens that the model has not read yet; 1 while the row writes."""
        return len(self.prompt) + len(self.output) - self.cache.length

    def next_tokens(self, most: int) -> list[int]:
        """The first tokens that the model has not read yet."""
        read = self.cache.length
        if read < len(self.prompt):
            return self.prompt[read : read + most]
        return self.output[read - len(self.prompt) :]


class Question(NamedTuple):
    """A row's guesses in a pass.

    Attributes:
        row: The row.
        draft: Token ids of the guesses.
        allowed: The tokens that the grammar allows at the place of each guess and after the last one; empty if the grammar
            is not asked first.
        last: Position in the pass of the row's last known token, which the guesses follow.
    """

    row: Row
    draft: list[int]
    allowed: list[Allowed]
    last: int


class Flight(NamedTuple):
    """A pass that the device has been given.

    Attributes:
        spans: The tokens that it reads.
        questions: Guesses of the rows that get tokens from it.
        hidden: The last hidden states, if the grammar was asked first; else None.
        answers: If it was not, the likeliest token at each place of each question; the copy to the host may still run.
        logits: The logits that the answers were taken from.
        arrived: Event that tells when the answers are on the host; None if they are there.
        followed: Number of guesses of each question that the grammar accepts; the rows' matchers have advanced by them.
    """

    spans: list[Span]
    questions: list[Question]
    hidden: Tensor | None
    answers: Tensor
    logits: list[Tensor]
    arrived: torch.cuda.Event | None
    followed: Future[list[int]] | None


class Decoder:
    """Writes the outputs of rows, some tokens of each at a time, until one of `ends`."""

    def __init__(
        self, model: PackedModel, grammar: Grammar | NoGrammar, ends: Set[int], work: Work, pace: Pace
    ) -> None:
        self._model, self._grammar, self._ends, self._work, self._pace = model, grammar, ends, work, pace
        self._kept: deque[Row] = deque()
        self._reserved = False
        self._aside = ThreadPoolExecutor(1)  # follows guesses through the grammar while the device works
        self.cache = model.cache(pace.chunk)

    def wants_more(self, rows: Iterable[Row]) -> bool:
        """Whether the next pass over these rows has room for another prompt."""
        return sum(row.to_read for row in rows) < self._pace.tokens

    def has_room(self, prompt_tokens: int, rows: int) -> bool:
        """Whether enough memory is free for another row beside `rows` others; a single row is always tried."""
        tokens = _room(prompt_tokens)
        while (lacking := self.cache.lacking_bytes(tokens)) and lacking > self._budget():
            if not self._drop_kept():
                return not rows
        return True

    def reserve(self, prompt_tokens: int, rows: int) -> None:
        """Before the first row, reserve memory for `rows` rows, or as many as fit, and for the kept prompts."""
        if not self._reserved:
            self._reserved, tokens = True, _room(prompt_tokens)
            self.cache.reserve(max(1, min(rows + _KEPT, self._budget() // self.cache.row_bytes(tokens))), tokens)

    def start(self, prompt: list[int], limit: int, drafter: Drafter) -> Row:
        """A new row. If its prompt starts like one that is kept, that start is copied instead of read again."""
        row = Row(prompt, limit, self._grammar.start(), drafter, self.cache.open(_room(len(prompt))))
        same = [(_common(prompt[:-1], other.prompt[: other.cache.length]), other) for other in self._kept]
        length, other = max(same, key=lambda item: item[0], default=(0, row))
        if length >= _WORTH_SHARING:
            self.cache.copy_start(row.cache, other.cache, length)
        return row

    def finish(self, row: Row) -> None:
        """Free the cache of a finished row, unless it is kept for rows whose prompts start alike."""
        row.left = True
        if not any(row is kept for kept in self._kept):
            self.cache.close(row.cache)

    @torch.no_grad()
    def launch(self, rows: Sequence[Row]) -> Flight:
        """Start a pass over the rows' unread tokens and their guesses; prompts are read as far as there is room."""
        spans: list[Span] = []
        questions: list[Question] = []
        place, room = 0, self._pace.tokens
        reading = 0
        with self._work.timed("drafting"):
            for row in sorted(rows, key=lambda row: not row.output):  # those that write come first
                to_read = row.to_read
                if to_read > 1 and room <= 0:
                    break
                tokens = row.next_tokens(max(1, min(self._pace.chunk, room)))
                if to_read > 1:
                    reading += len(tokens)
                last = place + len(tokens) - 1
                if len(tokens) == to_read:
                    draft, allowed = self._draft(row, len(rows))
                    questions.append(Question(row, draft, allowed, last))
                    tokens = tokens + draft
                self.cache.make_room(row.cache, len(tokens))
                spans.append(Span(row.cache, tokens))
                place += len(tokens)
                room -= len(tokens)
        with self._work.timed("prompt pass" if reading else "decoding"), self._model.attention():
            hidden = self._model.hidden_states(self.cache, spans)
        self._work.passes += 1
        self._work.row_passes += len(questions)
        self._work.prompt_tokens += reading
        if self._pace.allowed_first:
            return Flight(spans, questions, hidden, torch.empty(0), [], None, None)
        with self._work.timed("output layer"):
            return self._ask_all(spans, questions, hidden)

    @torch.no_grad()
    def land(self, flight: Flight) -> None:
        """Wait for a pass, and add the tokens that it gives to its rows."""
        if flight.arrived is not None:
            with self._work.timed("waiting"):
                flight.arrived.synchronize()
        if flight.hidden is not None:
            with self._work.timed("output layer"):
                written = self._written(flight.questions, flight.hidden)
        else:
            written = self._checked(flight)
        for span in flight.spans:
            span.cache.length += len(span.tokens)
        for question, tokens in zip(flight.questions, written, strict=True):
            if not question.row.output:
                self._keep(question.row)
            self._take(question, tokens)

    # --- Guesses

    def _draft(self, row: Row, rows: int) -> tuple[list[int], list[Allowed]]:
        """Guesses for the next tokens and, if the grammar is asked first, the tokens it allows at each place and after them.

        In that case the row's matcher has advanced by the guesses.
        """
        guesses = row.drafter.guesses(rows)
        if self._pace.allowed_first:
            return self._allowed_draft(row, guesses)
        return guesses.all(row.limit - len(row.output) - 1, self._ends), []

    def _allowed_draft(self, row: Row, guesses: Guesses) -> tuple[list[int], list[Allowed]]:
        draft: list[int] = []
        allowed: list[Allowed] = []
        while len(row.output) + len(draft) < row.limit:
            with self._work.timed("grammar"):
                may = self._grammar.allowed(row.matcher)
            allowed.append(may)
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

    # --- Answers, where the grammar was asked first

    def _written(self, asked: Sequence[Question], hidden: Tensor) -> list[list[int]]:
        """For each row its guesses as far as greedy decoding agrees, and the token that it writes where it does not."""
        answers: list[dict[int, int]] = [{} for _ in asked]  # what greedy decoding writes, by place in the draft
        few: dict[int, tuple[Tensor, list[tuple[int, int]]]] = {}
        for n, question in enumerate(asked):
            for i, may in enumerate(question.allowed):
                if may.only is not None:
                    answers[n][i] = may.only
                elif may.few is not None:
                    few.setdefault(id(may), (may.few, []))[1].append((n, i))
        found = []
        for ids, places in few.values():
            logits = self._model.logits(hidden[[asked[n].last + i for n, i in places]], ids)
            found.append(ids[logits.argmax(-1)])
        if found:
            everywhere = [place for _, places in few.values() for place in places]
            for (n, i), token in zip(everywhere, torch.cat(found).tolist(), strict=True):
                answers[n][i] = token

        # The whole vocabulary, from the left, so that what follows the first disagreement costs nothing.
        while unknown := {
            n: row_places for n, question in enumerate(asked) if (row_places := _unknown(question, answers[n]))
        }:
            each = max(1, self._pace.head // len(unknown))
            places = [(n, i) for n, row_places in unknown.items() for i in row_places[:each]]
            logits = self._model.logits(hidden[[asked[n].last + i for n, i in places]])
            self._work.head += len(places)
            for (n, i), token, row in zip(places, logits.argmax(-1).tolist(), logits, strict=True):
                may = asked[n].allowed[i]
                answers[n][i] = token if token in may else may.best(row)
        written = [_agreed_and_next(question, known) for question, known in zip(asked, answers, strict=True)]
        for question, tokens in zip(asked, written, strict=True):
            agreed = _common(question.draft, tokens)
            question.row.matcher.rollback(len(question.draft) - agreed)
            if len(tokens) > agreed:
                question.row.matcher.accept_token(tokens[-1])
        return written

    # --- Answers, where the output layer is asked first

    def _ask_all(self, spans: list[Span], questions: list[Question], hidden: Tensor) -> Flight:
        """Start the output layer on the device, for each guess and the place after it, and the grammar in a thread."""
        places = [place for q in questions for place in range(q.last, q.last + len(q.draft) + 1)]
        self._work.head += len(places)
        logits: list[Tensor] = []
        for start in range(0, len(places), self._pace.head):
            some = places[start : start + self._pace.head]
            # Filled up, so that the next logits fit where these were: torch is slow to find memory of ever new sizes.
            index = torch.tensor(some + [0] * (-len(some) % min(_ASKED_ALIGNED, self._pace.head)))
            if hidden.device.type == "cuda":
                index = index.pin_memory()
            logits.append(self._model.logits(hidden[index.to(hidden.device, non_blocking=True)]))
        answers = torch.cat([part.argmax(-1) for part in logits])[: len(places)] if logits else torch.empty(0).long()
        arrived = None
        if answers.device.type == "cuda":
            answers = answers.to("cpu", non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
        followed = self._aside.submit(
            self._grammar.follow, [q.row.matcher for q in questions], [q.draft for q in questions]
        )
        return Flight(spans, questions, None, answers, logits, arrived, followed)

    def _checked(self, flight: Flight) -> list[list[int]]:
        """For each row its guesses as far as greedy decoding agrees, and the token that it writes where it does not.

        If the grammar does not allow the likeliest token, the likeliest of those that it allows is written instead.
        """
        answers, place = flight.answers.tolist(), 0
        likeliest: list[list[int]] = []  # of each question
        written: list[list[int]] = []
        too_far: list[int] = []  # number of tokens by which its matcher must go back
        with self._work.timed("grammar"):
            followed = flight.followed.result() if flight.followed else []
            for question, most in zip(flight.questions, followed, strict=True):
                likeliest.append(answers[place : place + len(question.draft) + 1])
                written.append(question.draft[: min(most, _common(question.draft, likeliest[-1]))])
                too_far.append(most - len(written[-1]))
                place += len(likeliest[-1])
            self._grammar.go_back([question.row.matcher for question in flight.questions], too_far)
            on = [n for n, tokens in enumerate(written) if not tokens or tokens[-1] not in self._ends]
            matchers = [flight.questions[n].row.matcher for n in on]
            accepted = self._grammar.follow(matchers, [[likeliest[n][len(written[n])]] for n in on])
            for n, one in zip(on, accepted, strict=True):
                if one:
                    written[n].append(likeliest[n][len(written[n])])
        for n, one in zip(on, accepted, strict=True):
            if not one:
                self._go_on(flight, n, likeliest[n], written[n])
        return written

    def _go_on(self, flight: Flight, n: int, likeliest: list[int], tokens: list[int]) -> None:
        """Add to `tokens` what a row writes from the place on at which the grammar refuses the likeliest token."""
        draft, matcher = flight.questions[n].draft, flight.questions[n].row.matcher
        before = sum(len(question.draft) + 1 for question in flight.questions[:n])
        at, accepted = len(tokens), False
        while True:
            if not accepted:
                with self._work.timed("grammar"):
                    may = self._grammar.allowed(matcher)
                with self._work.timed("output layer"):
                    part, offset = divmod(before + at, self._pace.head)
                    likeliest[at] = may.best(flight.logits[part][offset])
                matcher.accept_token(likeliest[at])
            tokens.append(likeliest[at])
            if likeliest[at] in self._ends or draft[at : at + 1] != [likeliest[at]]:
                return
            at += 1
            accepted = matcher.accept_token(likeliest[at])

    # --- Rows

    def _take(self, question: Question, tokens: list[int]) -> None:
        """Add the written tokens to a row."""
        row, draft = question.row, question.draft
        agreed = _common(draft, tokens)
        row.cache.length -= len(draft) - agreed
        row.output += tokens
        row.done = row.output[-1] in self._ends or len(row.output) >= row.limit
        row.drafter.wrote(tokens, agreed)
        self._work.drafted += len(draft)
        self._work.agreed += agreed
        self._work.tokens += len(tokens)

    def _keep(self, row: Row) -> None:
        """Keep the cache of a prompt for others that start alike."""
        self._kept.append(row)
        if len(self._kept) > _KEPT:
            self._drop_kept()

    def _drop_kept(self) -> bool:
        """Drop the oldest kept prompt; False if none is kept."""
        if not self._kept:
            return False
        row = self._kept.popleft()
        if row.left:
            self.cache.close(row.cache)
        return True

    def _budget(self) -> int:
        """Number of bytes that caches may still take."""
        pace, on_cpu = self._pace, self._model.device.type == "cpu"
        # Twice the tokens, since drafts come on top of prompts; logits stay until the pass of each crew has been read.
        passes = self._model.pass_bytes(2 * pace.tokens, pace.head * (1 if pace.allowed_first else 2 * pace.crews))
        return int(free_memory(self._model.device) * _SHARE[0 if on_cpu else 1]) - passes


def _room(prompt_tokens: int) -> int:
    """Number of slots for a prompt and an output of usual length; a row that needs more is moved."""
    return -(-(prompt_tokens + _EXPECTED) // _ROUND) * _ROUND


def _unknown(question: Question, known: dict[int, int]) -> list[int]:
    """The places before the first known disagreement whose likeliest token is not known yet."""
    places = range(len(question.allowed))
    end = next((i for i in places if i in known and question.draft[i : i + 1] != [known[i]]), len(places))
    return [i for i in places[:end] if i not in known]


def _agreed_and_next(question: Question, known: dict[int, int]) -> list[int]:
    """The guesses up to the first disagreement, and the token that greedy decoding writes there instead."""
    tokens: list[int] = []
    for i in range(len(question.allowed)):
        tokens.append(known[i])
        if question.draft[i : i + 1] != [known[i]]:
            break
    return tokens


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Number of tokens that two texts have in common at their start."""
    most = min(len(one), len(other))
    if one[:most] == other[:most]:
        return most
    return next(i for i, (a, b) in enumerate(zip(one, other)) if a != b)  # noqa: B905 (one may be longer)
