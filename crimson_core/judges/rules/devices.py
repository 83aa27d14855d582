"""Whether a tube or line is where it should be."""

from crimson_core.judges.rules.attributes import ReportFinding
from crimson_core.judges.rules.lexicon import lexicon


def position(finding: ReportFinding) -> str | None:
    """Good or bad, by what the report says in words or by where the tip is; None if it says nothing or is no device.

    A tip in a right place outweighs a wrong place on the way to it ("through the esophagus into the stomach"), and a vertebra
    outweighs words: a "low-lying" umbilical arterial catheter is one whose right place is at L3 to L5.
    """
    concept = lexicon().concepts[finding.concepts[0]]
    told = finding.attributes
    if not concept.device:
        return None
    levels = {site for site in told.sites if site[-1].isdecimal()} if concept.tip_levels else None
    if levels:
        return "good" if levels & concept.tip_levels else "bad"
    said = None if concept.looped and told.position == "coiled" else told.position
    if said == "coiled":
        return "good" if "stomach" in told.sites & concept.tip_normal else "bad"
    if said == "bad":
        return "bad"
    if told.above_carina_mm is not None and concept.tip_above_carina_mm:
        low, high = concept.tip_above_carina_mm
        return "good" if low <= told.above_carina_mm <= high else "bad"
    if told.sites & concept.tip_normal or said == "good":  # "CVC right IJ, good position"
        return "good"
    if told.sites & concept.tip_misplaced:
        return "bad"
    return "bad" if said == "moved" else said
