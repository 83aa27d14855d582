"""Ratios that say by a number whether something is large: "CTR 60%", "cardiothoracic ratio 0.6"."""

from crimson_core.judges.rules.lexicon import Tag

_RATIO = "cardiothoracic_ratio"
_REACH = 4  # words from the name to the number
_POSSIBLE = range(20, 100)  # percent


def with_ratios(tags: list[Tag], words: list[str], normal_to: int) -> list[Tag]:
    """The tags of a sentence, with what the number behind a ratio says of it.

    Args:
        tags: Of the sentence.
        words: Of the sentence.
        normal_to: Percentage from above which the ratio is an increased one.
    """
    made = []
    for tag in tags:
        found = _percentage(words, tag.end) if tag.value == _RATIO else None
        if found:
            place, percent = found
            end = place + 1 + (words[place + 1 : place + 2] == ["%"])
            told = ("states", "increased") if percent > normal_to else ("normal", "normal")
            made.append(Tag(place, end, *told))
    return sorted([*tags, *made], key=lambda tag: tag.start) if made else tags


def _percentage(words: list[str], start: int) -> tuple[int, float] | None:
    """The first number from a place on, with its place, if it can be a ratio."""
    for place in range(start, min(start + _REACH, len(words))):
        if words[place][0].isdecimal():
            try:
                number = float(words[place])
            except ValueError:
                return None
            percent = 100 * number if number <= 1 else number
            return (place, percent) if int(percent) in _POSSIBLE else None
    return None
