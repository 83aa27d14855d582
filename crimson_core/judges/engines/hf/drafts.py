"""Guesses at the next tokens of an evaluation. They decide how fast an answer comes, and nothing of what it says.

An evaluation is predictable: its keys and levels repeat, its findings are words of the reports, and rules can guess at
much of the rest. A row therefore looks for its last tokens in four texts (what the offline rules say of the same pair, its own output,
the pair's prompt, and outputs that are finished) and guesses that they go on as the text in which most of them are found.
"""

import json
from array import array
from collections import deque
from collections.abc import Callable, Sequence, Set
from os.path import commonprefix
from typing import Any

from crimson_core.judges.rules.judge import evaluate_pair
from crimson_core.protocol.evaluation import evaluation_schema
from crimson_core.protocol.pair import ReportPair

_LONGEST = 24  # tokens of an ending that are compared
_PLACES = 16  # of one ending in one text that are looked at
_FINISHED = 8  # outputs that are kept to look in
_INSTRUCTIONS = 256  # tokens that prompts have in common at their end, from which on they are kept apart
_MOST = 32  # guesses at a time
# Of JSON, as models write it.
_LAYOUTS: tuple[dict[str, Any], ...] = ({"separators": (",", ":")}, {}, {"indent": 2}, {"indent": 4})
_START = -1  # stands for the start of an output
_LAID_OUT = 64  # tokens of an output that show its layout

# What a guess rests on: the kind of text that it was taken from, and how many tokens were found together there.
Ground = tuple[int, int]


class Text:
    """Token ids in which endings can be found.

    A place is a number of tokens: those before it. Places are chained, since lists of them would keep Python's garbage
    collector busy.

    Attributes:
        tokens: Their ids.
        last: The last place behind each token and, by a number for both, each two tokens.
    """

    def __init__(self, tokens: Sequence[int] = ()) -> None:
        self.tokens: list[int] = []
        self.last: dict[int, int] = {}
        self._earlier = (
            array("i", (0,)),
            array("i", (0, 0)),
        )  # by place: the one before, behind the same token, the same two
        self.extend(tokens)

    def extend(self, tokens: Sequence[int]) -> None:
        """Add what follows."""
        last, (ones, twos), place = self.last, self._earlier, len(self.tokens)
        before = self.tokens[-1] if self.tokens else None
        self.tokens += tokens
        for token in tokens:
            place += 1
            ones.append(last.get(token, 0))
            last[token] = place
            if before is not None:
                both = _two(before, token)
                twos.append(last.get(both, 0))
                last[both] = place
            before = token

    def longest(self, place: int, ending: Sequence[int], both: bool, least: int) -> tuple[int, int]:
        """How many of the last tokens of `ending` stand together before a place, and the last such place; (0, 0) for too few.

        Args:
            place: The last one behind the last token of `ending`, or behind the last two.
            ending: Token ids.
            both: Whether it is behind two.
            least: More than so many have to stand together.
        """
        tokens, earlier, found = self.tokens, self._earlier[both], (0, 0)
        whole, end = len(ending), len(tokens)
        for _ in range(_PLACES):
            length = least + 1
            if length <= place != end and tokens[place - length : place] == ending[whole - length :]:
                most = min(whole, place)
                while length < most and tokens[place - 1 - length] == ending[-1 - length]:
                    length += 1
                found, least = (length, place), length
                if length == whole:
                    break
            place = earlier[place]
            if not place:
                break
        return found


def find(texts: Sequence[Text], ending: list[int]) -> tuple[int, int, int]:
    """The text in which most of the last tokens of `ending` stand together.

    Returns:
        Its number, how many tokens, and the place behind the last time they stand there; (0, 0, 0) if none does.
    """
    best = 0, 0, 0
    if not ending:
        return best
    last = ending[-1]
    for both in (True, False) if len(ending) > 1 else (False,):
        key, least = (_two(ending[-2], last), 1) if both else (last, 0)
        for n, text in enumerate(texts):
            if (place := text.last.get(key)) is not None:
                length, place = text.longest(place, ending, both, least)
                if length:
                    best, least = (n, length, place), length
                    if length == len(ending):
                        return best
        if best[1]:
            break  # what ends with one token alone is shorter
    return best


def _two(before: int, token: int) -> int:
    """A number for two tokens that no single one has."""
    return (before + 2) << 32 | token + 2


class Drafts:
    """What the rows of a run share: finished outputs, and how often guesses have come true.

    Args:
        encode: Text to token ids.
        decode: Token ids to text.
        costs: Of a pass itself, and of one row more in it; as tokens on their way through the layers.
    """

    def __init__(
        self, encode: Callable[[str], list[int]], decode: Callable[[list[int]], str], costs: tuple[int, int]
    ) -> None:
        self._encode, self._decode = encode, decode
        self._pass, self._row = costs
        self._layout = _LAYOUTS[0]
        self._before: Sequence[int] = ()
        self._instructions = Text()
        self.finished: deque[Text] = deque(maxlen=_FINISHED)
        self._tried: dict[Ground, tuple[float, float]] = {}
        self._turns, self._written, self._guessed = 1, 1, 0

    def row(self, guess: dict[str, Any], prompt: Sequence[int]) -> "Drafter":
        """Who guesses for a row, given a guess at all that it will say."""
        try:
            tokens = self._encode(json.dumps(guess, ensure_ascii=False, **self._layout))
        except ValueError:  # control tokens: nothing that an output may hold
            tokens = []
        return Drafter(self, guess, [Text([_START, *tokens]), Text([_START]), *self._texts_of(prompt)])

    def _texts_of(self, prompt: Sequence[int]) -> list[Text]:
        """A prompt to look in. The instructions at its end, which are those of the prompt before, are made ready once."""
        known = self._instructions.tokens
        if not known or prompt[-len(known) :] != known:
            other = known or self._before
            most = min(len(prompt), len(other))
            same = next((n for n in range(most) if prompt[-1 - n] != other[-1 - n]), most)
            self._instructions = Text(prompt[len(prompt) - same :] if same >= _INSTRUCTIONS else ())
        self._before = prompt
        own = len(prompt) - len(self._instructions.tokens)
        return [Text(prompt[:own]), self._instructions]

    def finish(self, drafter: "Drafter") -> None:
        """Keep an output to look in, and learn its layout, which shows at its start."""
        self.finished.append(drafter.own)
        text = self._decode(drafter.own.tokens[1:_LAID_OUT])
        start = {key: value[:1] for key, value in drafter.guess.items() if isinstance(value, list)}
        self._layout = max(
            (self._layout, *_LAYOUTS), key=lambda layout: _common(text, json.dumps(start, ensure_ascii=False, **layout))
        )

    def least_chance(self, rows: int) -> float:
        """The chance from which on a guess is worth its way through the layers, in a pass of so many rows.

        A row's turn costs its share of a pass, the row itself, and each token that goes through the layers. A guess is worth its
        cost if it brings more tokens for it than turns do on average.
        """
        turn = self._pass / rows + self._row + 1
        return self._written / (turn * self._turns + self._guessed)

    def took_turn(self, guessed: int, written: int) -> None:
        """Count a row's turn."""
        self._turns += 1
        self._guessed += guessed
        self._written += written

    def chance(self, ground: Ground) -> float:
        """How likely a guess comes true."""
        agreed, tried = self._tried.get(ground, (0, 0))
        return (agreed + 4 * ground[1] / (ground[1] + 0.5)) / (tried + 4)

    def learn(self, ground: Ground, agreed: bool) -> None:
        """Count what became of a guess."""
        before, tried = self._tried.get(ground, (0, 0))
        self._tried[ground] = before + agreed, tried + 1


class Drafter:
    """Guesses for one row.

    Attributes:
        guess: What the offline rules say of its pair.
        own: The output so far.
    """

    def __init__(self, drafts: Drafts, guess: dict[str, Any], texts: list[Text]) -> None:
        self.guess = guess
        self._drafts, self._texts = drafts, texts
        self.own = texts[1]
        self._followed: list[Ground | None] = []

    def wrote(self, tokens: Sequence[int], agreed: int) -> None:
        """Take note of what was written, of which the first `agreed` tokens had been guessed."""
        self.own.extend(tokens)
        self._drafts.took_turn(len(self._followed), len(tokens))
        for place, ground in enumerate(self._followed[: agreed + 1]):
            if ground is not None:
                self._drafts.learn(ground, place < agreed)

    def guesses(self, rows: int) -> "Guesses":
        """Begin to guess; `rows` share a pass."""
        guesses = Guesses(self._drafts, [*self._texts, *self._drafts.finished], self.own.tokens[-_LONGEST:], rows)
        self._followed = guesses.grounds
        return guesses


class Guesses:
    """Guesses at what follows, one token after the other.

    Attributes:
        grounds: Of each token so far; None where it was no guess.
    """

    def __init__(self, drafts: Drafts, texts: list[Text], ending: list[int], rows: int) -> None:
        self._drafts, self._texts, self._ending = drafts, texts, ending
        self._least = drafts.least_chance(rows)
        self.grounds: list[Ground | None] = []
        self._chance = 1.0
        self._text, self._place, self._length = 0, 0, 0

    def peek(self) -> int | None:
        """The next guess, if one is worth it."""
        if len(self.grounds) >= _MOST or not self._look():
            return None
        chance = self._chance * self._drafts.chance(self._ground)
        return self._texts[self._text].tokens[self._place] if chance > self._least else None

    def all(self, most: int, ends: Set[int]) -> list[int]:
        """All guesses that are worth it, up to so many and up to the first that ends the output."""
        guessed: list[int] = []
        if most < 1 or not self._look():
            return guessed
        tokens, source = self._texts[self._text].tokens, min(self._text, 3)
        for token in tokens[self._place : self._place + min(most, _MOST)]:
            ground = source, min(self._length + len(guessed), 8)
            self._chance *= self._drafts.chance(ground)
            if self._chance <= self._least:
                break
            self.grounds.append(ground)
            guessed.append(token)
            if token in ends:
                break
        return guessed

    def _look(self) -> bool:
        """Find the text that is followed; False if there is none."""
        if not self._length or self._place == len(self._texts[self._text].tokens):
            self._text, self._length, self._place = find(self._texts, self._ending[-_LONGEST:])
        return self._length > 0

    def go_on(self, token: int, guessed: bool) -> None:
        """Take the next guess, or a token that was none."""
        if guessed:
            self._chance *= self._drafts.chance(self._ground)
        self.grounds.append(self._ground if guessed else None)
        self._ending.append(token)
        tokens = self._texts[self._text].tokens
        if self._length and self._place < len(tokens) and tokens[self._place] == token:
            self._place, self._length = self._place + 1, min(self._length + 1, _LONGEST)
        else:
            self._length = 0

    @property
    def _ground(self) -> Ground:
        return min(self._text, 3), min(self._length, 8)


def guess_of(pair: ReportPair | None) -> dict[str, Any]:
    """What the offline rules say of a pair, as the schema has it; nothing where they break on it, which costs time alone."""
    if pair is None:
        return {}
    try:
        evaluation = evaluate_pair(pair).model_dump()
    except Exception:  # whatever it is, the model is asked all the same
        return {}
    guess: dict[str, Any] = _only(evaluation, evaluation_schema())
    return guess


def _only(data: Any, schema: dict[str, Any]) -> Any:
    if schema["type"] == "array":
        return [_only(item, schema["items"]) for item in data]
    if schema["type"] == "object":
        return {key: _only(data[key], value) for key, value in schema["properties"].items()}
    return data


def _common(one: str, other: str) -> int:
    return len(commonprefix([one, other]))
