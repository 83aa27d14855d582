"""Decoding with drafts: works on the rows of many questions at a time; a finished row makes room for the next."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from crimson_core.errors import check_whole, needed
from crimson_core.judges.engines.hf import decoding
from crimson_core.judges.engines.hf.decoding import Decoder, Flight, Pace, Row
from crimson_core.judges.engines.hf.drafts import Drafter, Drafts, guess_of
from crimson_core.judges.engines.hf.engine import HFEngine, too_large
from crimson_core.judges.engines.hf.grammar import Grammar, NoGrammar
from crimson_core.judges.engines.hf.packed import PackedModel
from crimson_core.judges.model import Answer, Question

_AHEAD = 4  # questions that are prepared before there is room for them


@dataclass(eq=False)
class DraftEngine(HFEngine):
    """Guesses tokens ahead and lets the model check them.

    Attributes:
        packed: The model, for packed passes.
        pace: Settings for the model's device.
    """

    packed: PackedModel
    pace: Pace = field(init=False)

    def __post_init__(self) -> None:
        self.pace = decoding.CPU_PACE if self.model.device.type == "cpu" else decoding.CUDA_PACE

    def write(self, questions: Sequence[Question]) -> Generator[tuple[int, Answer], None, None]:
        """Yield (position in `questions`, answer) as they are done."""
        codec, pace = self.codec, self.pace
        grammar = Grammar(needed("xgrammar", "hf"), self.grammar, self.model.device) if self.grammar else NoGrammar()
        drafts = Drafts(codec.encoder.encode_text, lambda ids: str(codec.tokenizer.decode(ids)), pace.costs)
        hand = _Hand(pace.crews, lambda: Decoder(self.packed, grammar, frozenset(codec.ends), self.work, pace))
        modules = list(self.model.modules())
        turn = 0

        def ready(question: Question) -> _Ready:
            prompt = codec.encode(question.messages)
            return _Ready(prompt, drafts.row(guess_of(question.pair), prompt))

        with closing(_Waiting(questions, ready)) as waiting:
            while waiting or hand.rows:
                check_whole("batch_size", self.batch_size)
                turn = (turn + 1) % pace.crews
                done: list[tuple[int, Row]] = []
                refused: list[tuple[int, Answer]] = []

                def go_on() -> None:
                    done.extend(hand.land(turn))  # noqa: B023 (called at once)
                    self._take_up(waiting, hand, turn, refused)  # noqa: B023
                    hand.launch(turn)  # noqa: B023

                with self.writing(modules):
                    fits = self.fits(go_on)
                for index, row in done:
                    with self.work.timed("drafting"):
                        drafts.finish(row.drafter)
                    with self.work.timed("parsing"):
                        answer = codec.answer(len(row.prompt), row.output, row.limit)
                    yield index, answer
                yield from refused
                if not fits:
                    yield from self._begin_again(waiting, hand)

    def _take_up(self, waiting: "_Waiting", hand: "_Hand", turn: int, refused: list[tuple[int, Answer]]) -> None:
        """Add rows to a crew, as far as the next pass has room for their prompts; questions that cannot be asked are refused."""
        crew, decoder = hand.crews[turn], hand.decoder
        others = len(hand.rows) - len(crew)
        batch_size = self.batch_size if hand.alone is None else 1
        most = min(batch_size - others, -(-batch_size // len(hand.crews)))
        while waiting and len(crew) < most and decoder.wants_more(crew.values()):
            try:
                with self.work.timed("tokenising"):
                    prompt, drafter = waiting.first()
            except ValueError as error:
                refused.append((waiting.take(), Answer(failure=str(error))))
                continue
            if not decoder.has_room(len(prompt), others + len(crew)):
                break
            if hand.alone is None:
                decoder.reserve(len(prompt), min(self.batch_size, len(waiting)))
            row = decoder.start(prompt, self.codec.limit(len(prompt)), drafter)
            crew[waiting.take()] = row

    def _begin_again(self, waiting: "_Waiting", hand: "_Hand") -> Iterator[tuple[int, Answer]]:
        """After memory has run out, put the rows back and go on with a smaller batch, at last with one row alone."""
        rows, alone = hand.rows, hand.alone
        self.packed.forget()
        hand.drop()
        waiting.put_back(rows)
        if len(rows) > 1:
            self.batch_size = len(rows) // 2
        elif not rows and self.batch_size > 1:  # nothing but room for rows was asked for
            self.batch_size //= 2
        elif alone == waiting.next:
            prompt, _ = waiting.first()
            yield waiting.take(), too_large(prompt)
        else:
            hand.alone = waiting.next


class _Ready(NamedTuple):
    """A prepared question: the prompt's token ids and the drafter."""

    prompt: list[int]
    drafter: Drafter


class _Waiting:
    """The questions that wait for room, in order. A thread prepares the first ones with `make` while the device works."""

    def __init__(self, questions: Sequence[Question], make: Callable[[Question], _Ready]) -> None:
        self._questions, self._make = questions, make
        self._queue = deque(range(len(questions)))
        self._thread = ThreadPoolExecutor(1)
        self._ready: dict[int, Future[_Ready]] = {}

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def next(self) -> int:
        """Index of the first question."""
        return self._queue[0]

    def first(self) -> _Ready:
        """The first question, prepared.

        Raises:
            ValueError: It cannot be asked; the message says why.
        """
        for index in islice(self._queue, _AHEAD):
            if index not in self._ready:
                self._ready[index] = self._thread.submit(self._made, index)
        return self._ready[self.next].result()

    def _made(self, index: int) -> _Ready:
        return self._make(self._questions[index])

    def take(self) -> int:
        """Remove the first question, and return its index."""
        index = self._queue.popleft()
        self._ready.pop(index, None)
        return index

    def put_back(self, indices: Iterable[int]) -> None:
        """Put questions back at the front."""
        self._queue.extendleft(reversed(list(indices)))

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(cancel_futures=True)


class _Hand:
    """The rows that are being written, in one or two crews, and the passes that the device has been given.

    With two crews, the device works on a pass of one while the host reads the answers for the other.

    Attributes:
        crews: For each crew, its rows by the index of their question.
        decoder: The decoder that all crews share.
        alone: Index of a question that ran out of memory beside kept or reserved caches alone; it is tried again without them.
    """

    def __init__(self, n: int, make: Callable[[], Decoder]) -> None:
        self._n, self._make = n, make
        self.drop()

    def drop(self) -> None:
        """Drop all rows and passes."""
        self.crews: list[dict[int, Row]] = [{} for _ in range(self._n)]
        self.decoder = self._make()
        self.alone: int | None = None
        self._flights: list[Flight | None] = [None] * self._n

    @property
    def rows(self) -> dict[int, Row]:
        """The rows of all crews."""
        return {index: row for crew in self.crews for index, row in crew.items()}

    def land(self, turn: int) -> list[tuple[int, Row]]:
        """Wait for a crew's pass, and return its finished rows, which leave the crew."""
        flight, self._flights[turn] = self._flights[turn], None
        if flight is not None:
            self.decoder.land(flight)
        crew = self.crews[turn]
        done = [(index, row) for index, row in crew.items() if row.done]
        for index, row in done:
            self.decoder.finish(row)
            del crew[index]
            self.alone = None if index == self.alone else self.alone
        return done

    def launch(self, turn: int) -> None:
        """Start a pass over a crew's rows, if it has any."""
        if crew := self.crews[turn]:
            self._flights[turn] = self.decoder.launch(list(crew.values()))
