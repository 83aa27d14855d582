"""Guesses at the next tokens of an evaluation. They decide how fast an output comes, and never what it says.

An evaluation is predictable: its keys and levels repeat, its findings are words of the reports, and rules can guess much of
the rest. So a row looks for its last tokens in several texts (the offline judge's evaluation of the same pair, its own
output, the pair's prompt, and finished outputs), and guesses that they continue as in the text with the longest match.
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

_LONGEST = 24  # tokens at the end of an output that are looked for
_PLACES = 16  # places in one text at which a match is tried
_FINISHED = 8  # finished outputs that are kept
_INSTRUCTIONS = 256  # an ending of at least so many tokens that all prompts share is indexed only once
_MOST = 32  # guesses at a time
# Layouts of JSON that models write.
_LAYOUTS: tuple[dict[str, Any], ...] = ({"separators": (",", ":")}, {}, {"indent": 2}, {"indent": 4})
_START = -1  # stands for the start of an output
_LAID_OUT = 64  # tokens at the start of an output that show its layout

# The basis of a guess: the kind of text that it comes from, and the length of the match there.
Ground = tuple[int, int]


class Text:
    """Token ids with an index, in which the last tokens of an output can be found.

    A place is given by the number of tokens before it. Each place links to the previous one after the same token, since lists
    of places would keep Python's garbage collector busy.

    Attributes:
        tokens: The ids.
        last: The last place after each token and after each pair of tokens (`_two` makes a pair's key).
    """

    def __init__(self, tokens: Sequence[int] = ()) -> None:
        self.tokens: list[int] = []
        self.last: dict[int, int] = {}
        self._earlier = (
            array("i", (0,)),
            array("i", (0, 0)),
        )  # by place: the previous place after the same token, and after the same two
        self.extend(tokens)

    def extend(self, tokens: Sequence[int]) -> None:
        """Add tokens at the end."""
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
        """The longest match of the end of `ending`: its length and the place after it; (0, 0) if none is long enough.

        Args:
            place: The last place after the last token of `ending`, or after its last two tokens.
            ending: Token ids.
            both: Whether `place` is after two tokens.
            least: A match must be longer than this.
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
    """The text with the longest match of the end of `ending`.

    Returns:
        The text's position in `texts`, the length of the match, and the place after it; (0, 0, 0) if there is none.
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
            break  # a match of one token is shorter
    return best


def _two(before: int, token: int) -> int:
    """A key for two tokens that differs from the ids of single ones."""
    return (before + 2) << 32 | token + 2


class Drafts:
    """What the rows of a run share: finished outputs, and how often guesses were right.

    Args:
        encode: Turns text into token ids.
        decode: Turns token ids into text.
        costs: Cost of a pass, and of one more row in it; see `decoding.Pace`.
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
        """The drafter of a row, from a guess at its whole evaluation."""
        try:
            tokens = self._encode(json.dumps(guess, ensure_ascii=False, **self._layout))
        except ValueError:  # it contains control tokens, which no output may contain
            tokens = []
        return Drafter(self, guess, [Text([_START, *tokens]), Text([_START]), *self._texts_of(prompt)])

    def _texts_of(self, prompt: Sequence[int]) -> list[Text]:
        """The texts of a prompt: its own part, and the instructions at its end, which are indexed once for all prompts."""
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
        """Keep a finished output, and learn the layout of its JSON from its start."""
        self.finished.append(drafter.own)
        text = self._decode(drafter.own.tokens[1:_LAID_OUT])
        start = {key: value[:1] for key, value in drafter.guess.items() if isinstance(value, list)}
        self._layout = max(
            (self._layout, *_LAYOUTS), key=lambda layout: _common(text, json.dumps(start, ensure_ascii=False, **layout))
        )

    def least_chance(self, rows: int) -> float:
        """The probability above which a guess is worth its cost, in a pass of so many rows.

        A row's turn costs its share of the pass, the row itself, and one for each token that goes through the layers. A guess
        is worth its cost if it brings more tokens per cost than turns do on average.
        """
        turn = self._pass / rows + self._row + 1
        return self._written / (turn * self._turns + self._guessed)

    def took_turn(self, guessed: int, written: int) -> None:
        """Count a row's turn."""
        self._turns += 1
        self._guessed += guessed
        self._written += written

    def chance(self, ground: Ground) -> float:
        """The probability that a guess is right."""
        agreed, tried = self._tried.get(ground, (0, 0))
        return (agreed + 4 * ground[1] / (ground[1] + 0.5)) / (tried + 4)

    def learn(self, ground: Ground, agreed: bool) -> None:
        """Count whether a guess was right."""
        before, tried = self._tried.get(ground, (0, 0))
        self._tried[ground] = before + agreed, tried + 1


class Drafter:
    """Guesses for one row.

    Attributes:
        guess: The offline judge's evaluation of its pair.
        own: The output so far.
    """

    def __init__(self, drafts: Drafts, guess: dict[str, Any], texts: list[Text]) -> None:
        self.guess = guess
        self._drafts, self._texts = drafts, texts
        self.own = texts[1]
        self._followed: list[Ground | None] = []

    def wrote(self, tokens: Sequence[int], agreed: int) -> None:
        """Note the written tokens, of which the first `agreed` had been guessed."""
        self.own.extend(tokens)
        self._drafts.took_turn(len(self._followed), len(tokens))
        for place, ground in enumerate(self._followed[: agreed + 1]):
            if ground is not None:
                self._drafts.learn(ground, place < agreed)

    def guesses(self, rows: int) -> "Guesses":
        """The guesses for the next pass, which `rows` rows share."""
        guesses = Guesses(self._drafts, [*self._texts, *self._drafts.finished], self.own.tokens[-_LONGEST:], rows)
        self._followed = guesses.grounds
        return guesses


class Guesses:
    """Guesses at the next tokens, one after the other.

    Attributes:
        grounds: The basis of each token so far; None if it was no guess.
    """

    def __init__(self, drafts: Drafts, texts: list[Text], ending: list[int], rows: int) -> None:
        self._drafts, self._texts, self._ending = drafts, texts, ending
        self._least = drafts.least_chance(rows)
        self.grounds: list[Ground | None] = []
        self._chance = 1.0
        self._text, self._place, self._length = 0, 0, 0

    def peek(self) -> int | None:
        """The next guess, if there is one that is worth its cost."""
        if len(self.grounds) >= _MOST or not self._look():
            return None
        chance = self._chance * self._drafts.chance(self._ground)
        return self._texts[self._text].tokens[self._place] if chance > self._least else None

    def all(self, most: int, ends: Set[int]) -> list[int]:
        """All guesses that are worth their cost, at most `most`, up to the first that ends the output."""
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
        """Find the text that the output follows; False if there is none."""
        if not self._length or self._place == len(self._texts[self._text].tokens):
            self._text, self._length, self._place = find(self._texts, self._ending[-_LONGEST:])
        return self._length > 0

    def go_on(self, token: int, guessed: bool) -> None:
        """Go on by the next guess, or by a token that was not guessed."""
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
    """The offline judge's evaluation of a pair, with the keys of the schema only; empty if there is none, which costs only time."""
    if pair is None:
        return {}
    try:
        evaluation = evaluate_pair(pair).model_dump()
    except Exception:  # the model judges the pair without it
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
