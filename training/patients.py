"""Draws ages and sexes for synthetic reports, which have none, so that a judge learns what they change."""

import random
import re

from crimson_core.protocol.pair import PatientContext

_AGES = range(18, 96)
_FEMALE = re.compile(r"\b(?:woman|female|lady|girl|she|her)\b|[\d_]\s*(?-i:F)\b", re.IGNORECASE)
_MALE = re.compile(r"\b(?:man|male|gentleman|boy|he|his|him)\b|[\d_]\s*(?-i:M)\b", re.IGNORECASE)


def with_patient(context: PatientContext | None, seed: str) -> PatientContext:
    """The context with an age and a sex, drawn if they are missing; a sex in the indication counts."""
    known = context or PatientContext()
    rng = random.Random(seed)
    age, sex = str(rng.choice(_AGES)), rng.choice(("male", "female"))
    indication = known.indication or ""
    female, male = bool(_FEMALE.search(indication)), bool(_MALE.search(indication))
    if female != male:
        sex = "female" if female else "male"
    return PatientContext(known.age or age, known.sex or sex, known.indication)
