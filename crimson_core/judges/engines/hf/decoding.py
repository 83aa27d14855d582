"""Greedy decoding with drafts: each row guesses its next tokens, and one forward pass checks the guesses of all rows.

What is written is what greedy decoding would write, token by token: a guess counts only where it is the likeliest token
that the grammar allows, and only behind guesses that count. Prompts are read in chunks, in the same passes.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence, Set
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
_WORTH_SHARING = 16  # tokens
_MOST = 64  # tokens of a draft, where the grammar leaves no choice at all
_ASKED_ALIGNED = 64  # positions at which the whole output layer is asked are a multiple of it
_EXPECTED = 512  # tokens of an output, for which memory should be free
_ROUND = 256  # rows of much the same length get slots of the same number, so that one fits where another was
_SHARE = 0.7, 0.9  # of the free memory that caches may take: of a CPU, which others use too; of an accelerator


class Pace(NamedTuple):
    """What suits a device.

    Attributes:
        tokens: Of a pass, as far as prompts fill it.
        chunk: Most tokens of one row in a pass.
        head: Positions that the output layer is asked about at once.
        allowed_first: Whether the grammar is asked first, and the output layer only about what it allows. It is the other
            way round where the output layer is cheap and asking the grammar holds the device up.
        crews: Groups of rows: the device works on one while the host reads the answers of the other.
        costs: Of a pass itself, and of having one row more in it, whose cache has to be read; as tokens on their way through
            the layers.
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
    """What decoding has done, for benchmarks.

    Attributes:
        passes: Forward passes of the model's layers.
        row_passes: The same, counted for each row that was asked for tokens.
        prompt_tokens: Tokens of prompts that went through the layers.
        tokens: Output tokens, end tokens included.
        drafted: Guesses that went through the layers.
        agreed: Those that came true.
        head: Positions at which the whole output layer was asked.
        seconds: By what they were spent on. On an accelerator the seconds of a pass are those of handing it over, and
            `waiting` are those in which there was nothing left to do but wait for it.
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
        cache: Of what has been read.
        output: Token ids so far.
        done: Whether it has ended or come to its limit.
        left: Whether nobody but rows with the same start of a prompt has a use for its cache.
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
        """How many tokens the model has not read; in the middle of an output one."""
        return len(self.prompt) + len(self.output) - self.cache.length

    def next_tokens(self, most: int) -> list[int]:
        """Those of them that come first."""
        read = self.cache.length
        if read < len(self.prompt):
            return self.prompt[read : read + most]
        return self.output[read - len(self.prompt) :]


class Question(NamedTuple):
    """A row's guesses.

    Attributes:
        row: Whose.
        draft: Token ids.
        allowed: What the grammar allows in the place of each and behind them, where it was asked first.
        last: Where in the pass the row's last known token is; the guesses are behind it.
    """

    row: Row
    draft: list[int]
    allowed: list[Allowed]
    last: int


class Flight(NamedTuple):
    """A pass that the device has been given.

    Attributes:
        spans: What it reads.
        questions: Of the rows that it asks for tokens.
        hidden: The last hidden states, where the grammar was asked first.
        answers: The likeliest tokens, question by question and place by place, elsewhere; on their way to the host.
        logits: That they were taken from.
        arrived: When the answers are there; None if they are.
        followed: How many guesses of each question the grammar accepts; the rows' matchers have gone on by them.
    """

    spans: list[Span]
    questions: list[Question]
    hidden: Tensor | None
    answers: Tensor
    logits: list[Tensor]
    arrived: torch.cuda.Event | None
    followed: Future[list[int]] | None


class Decoder:
    """Writes the outputs of rows, some tokens of each at a time.

    Args:
        model: Of the judge.
        grammar: What outputs must obey.
        ends: End tokens.
        work: Where to count.
        pace: Of the device.
    """

    def __init__(
        self, model: PackedModel, grammar: Grammar | NoGrammar, ends: Set[int], work: Work, pace: Pace
    ) -> None:
        self._model, self._grammar, self._ends, self._work, self._pace = model, grammar, ends, work, pace
        self._kept: deque[Row] = deque()
        self._reserved = False
        self._aside = ThreadPoolExecutor(1)  # follows guesses through the grammar while the device works
        self.cache = model.cache(pace.chunk)

    def wants_more(self, rows: Iterable[Row]) -> bool:
        """Whether the next pass over some rows has room for a prompt more."""
        return sum(row.to_read for row in rows) < self._pace.tokens

    def has_room(self, prompt_tokens: int, rows: int) -> bool:
        """Whether memory is free for a row more, beside so many; a row alone is always tried."""
        tokens = _room(prompt_tokens)
        while (lacking := self.cache.lacking_bytes(tokens)) and lacking > self._budget():
            if not self._drop_kept():
                return not rows
        return True

    def reserve(self, prompt_tokens: int, rows: int) -> None:
        """Before the first row: take memory for so many at once, or for as many as fit, and for those that are kept."""
        if not self._reserved:
            self._reserved, tokens = True, _room(prompt_tokens)
            self.cache.reserve(max(1, min(rows + _KEPT, self._budget() // self.cache.row_bytes(tokens))), tokens)

    def start(self, prompt: list[int], limit: int, drafter: Drafter) -> Row:
        """A new row. What the prompt has in common with one that was read is not read again."""
        row = Row(prompt, limit, self._grammar.start(), drafter, self.cache.open(_room(len(prompt))))
        same = [(_common(prompt[:-1], other.prompt[: other.cache.length]), other) for other in self._kept]
        length, other = max(same, key=lambda item: item[0], default=(0, row))
        if length >= _WORTH_SHARING:
            self.cache.copy_start(row.cache, other.cache, length)
        return row

    def finish(self, row: Row) -> None:
        """Let go of a row that is done, as soon as no other is to share its prompt."""
        row.left = True
        if not any(row is kept for kept in self._kept):
            self.cache.close(row.cache)

    @torch.no_grad()
    def launch(self, rows: Sequence[Row]) -> Flight:
        """Give the device a pass over what rows have to read: their guesses, and prompts as far as there is room."""
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
        """Wait for a pass, and add to its rows what it says."""
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
        """Guesses for the next tokens, and, if the grammar is asked first, what it allows in the place of each and behind.

        In that case the row's matcher has gone on by them.
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
        """Give the device the output layer to do, at every guess and behind, and meanwhile a thread the grammar."""
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

        Where the likeliest token is none that the grammar allows, the likeliest of those that it does takes its place.
        """
        answers, place = flight.answers.tolist(), 0
        said: list[list[int]] = []  # of each question
        written: list[list[int]] = []
        too_far: list[int] = []  # tokens by which its matcher has to go back
        with self._work.timed("grammar"):
            followed = flight.followed.result() if flight.followed else []
            for question, most in zip(flight.questions, followed, strict=True):
                said.append(answers[place : place + len(question.draft) + 1])
                written.append(question.draft[: min(most, _common(question.draft, said[-1]))])
                too_far.append(most - len(written[-1]))
                place += len(said[-1])
            self._grammar.go_back([question.row.matcher for question in flight.questions], too_far)
            on = [n for n, tokens in enumerate(written) if not tokens or tokens[-1] not in self._ends]
            matchers = [flight.questions[n].row.matcher for n in on]
            accepted = self._grammar.follow(matchers, [[said[n][len(written[n])]] for n in on])
            for n, one in zip(on, accepted, strict=True):
                if one:
                    written[n].append(said[n][len(written[n])])
        for n, one in zip(on, accepted, strict=True):
            if not one:
                self._go_on(flight, n, said[n], written[n])
        return written

    def _go_on(self, flight: Flight, n: int, said: list[int], tokens: list[int]) -> None:
        """Add to `tokens` what a question's row writes from there on, where the grammar refuses the likeliest token."""
        draft, matcher = flight.questions[n].draft, flight.questions[n].row.matcher
        before = sum(len(question.draft) + 1 for question in flight.questions[:n])
        at, accepted = len(tokens), False
        while True:
            if not accepted:
                with self._work.timed("grammar"):
                    may = self._grammar.allowed(matcher)
                with self._work.timed("output layer"):
                    part, offset = divmod(before + at, self._pace.head)
                    said[at] = may.best(flight.logits[part][offset])
                matcher.accept_token(said[at])
            tokens.append(said[at])
            if said[at] in self._ends or draft[at : at + 1] != [said[at]]:
                return
            at += 1
            accepted = matcher.accept_token(said[at])

    # --- What rows hold

    def _take(self, question: Question, tokens: list[int]) -> None:
        """Add to a row what was written."""
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
        """Keep what was read of a prompt, for others that start alike."""
        self._kept.append(row)
        if len(self._kept) > _KEPT:
            self._drop_kept()

    def _drop_kept(self) -> bool:
        """Keep one prompt less; False if none is kept."""
        if not self._kept:
            return False
        row = self._kept.popleft()
        if row.left:
            self.cache.close(row.cache)
        return True

    def _budget(self) -> int:
        """Bytes that caches may still take."""
        pace, on_cpu = self._pace, self._model.device.type == "cpu"
        # Twice the tokens, since drafts come on top of prompts; logits stay until the pass of each crew has been read.
        passes = self._model.pass_bytes(2 * pace.tokens, pace.head * (1 if pace.allowed_first else 2 * pace.crews))
        return int(free_memory(self._model.device) * _SHARE[0 if on_cpu else 1]) - passes


def _room(prompt_tokens: int) -> int:
    """Slots for a prompt and the output to come; an output that needs more moves."""
    return -(-(prompt_tokens + _EXPECTED) // _ROUND) * _ROUND


def _unknown(question: Question, known: dict[int, int]) -> list[int]:
    """The places before the first known disagreement that greedy decoding has not been asked about."""
    places = range(len(question.allowed))
    end = next((i for i in places if i in known and question.draft[i : i + 1] != [known[i]]), len(places))
    return [i for i in places[:end] if i not in known]


def _agreed_and_next(question: Question, known: dict[int, int]) -> list[int]:
    """The guesses up to the first disagreement, and there what greedy decoding writes instead."""
    tokens: list[int] = []
    for i in range(len(question.allowed)):
        tokens.append(known[i])
        if question.draft[i : i + 1] != [known[i]]:
            break
    return tokens


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two texts have in common at their start."""
    most = min(len(one), len(other))
    if one[:most] == other[:most]:
        return most
    return next(i for i, (a, b) in enumerate(zip(one, other)) if a != b)  # noqa: B905 (one may be longer)
