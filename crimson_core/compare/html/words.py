"""What a page calls things: data, and the few words that depend on a number."""

SIGNIFICANCE = {
    "urgent": "urgent",
    "actionable_not_urgent": "actionable, not urgent",
    "not_actionable_not_urgent": "not actionable, not urgent",
    "benign_expected": "benign or expected",
}

# Bands of the scale from -1 to 1: lower end, upper end, what it means.
BANDS = (
    (-1.0, 0.0, "false findings outweigh the right ones"),
    (0.0, 1.0, "share of the reference’s weight told rightly, less what is false"),
)


def meaning(score: float) -> str:
    """One sentence about a score."""
    if score == 1:
        return "Nothing that counts is missing, and nothing is wrong."
    if score > 0:
        return f"{score:.0%} of the weight of the reference’s findings is told rightly, after false findings are taken off."
    if score == 0:
        return "Worth no more than a normal template: nothing is gained over a report that finds nothing."
    return "False findings outweigh what is right: worse than a normal template."


def significance(level: str) -> str:
    """A clinical significance in words; a judge may have made one up."""
    return SIGNIFICANCE.get(level, level or "not stated")
