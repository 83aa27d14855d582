"""Words of the pages, and phrases that depend on a number."""

SIGNIFICANCE = {
    "urgent": "urgent",
    "actionable_not_urgent": "actionable, not urgent",
    "not_actionable_not_urgent": "not actionable, not urgent",
    "benign_expected": "benign or expected",
}


def band(score: float) -> str:
    """The band of the scale in which a score or a mean lies."""
    if score != score:
        return "unscored"
    if score == 1:
        return "nothing wrong that counts"
    if score == 0:
        return "like a normal template"
    return "better than a normal template" if score > 0 else "worse than a normal template"


def meaning(score: float) -> str:
    """One sentence about a score; `band` is its heading."""
    if score == 1:
        return "Every finding that counts is reported correctly, and none is false."
    if score > 0:
        return f"{score:.0%} of the weight of the reference’s findings is reported correctly, after false findings are subtracted."
    if score == 0:
        return "No better than a report that finds nothing."
    return "False findings outweigh the correct ones."


def significance(level: str) -> str:
    """A clinical significance in words; a judge may have invented one."""
    return SIGNIFICANCE.get(level, level or "not stated")
