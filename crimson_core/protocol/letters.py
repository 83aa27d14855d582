"""The Latin letters that a reader sees in characters of other kinds."""

import re
import unicodedata
from functools import lru_cache

# Unicode categories: marks of format and control, marks above and around letters
_UNSEEN = frozenset(("Cf", "Cc", "Mn", "Me", "Cs"))
# Letters of other scripts that look like Latin ones
_CYRILLIC = ("аеіјорсухѕԁһԛԝѵӏтмкпгАВЕЅІЈКМНОРСТУХԀҺԚԜѴӀ", "aeijopcyxsdhqwvltmknrABESIJKMHOPCTYXDHQWVI")
_GREEK = ("αεικορυντχΑΒΕΖΗΙΚΜΝΟΡΤΥΧ", "aeikopuvtxABEZHIKMNOPTYX")
_OTHERS = ("օհսցոքℓ", "ohugnpl")
_LOOK_ALIKES = {ord(other): latin for pair in (_CYRILLIC, _GREEK, _OTHERS) for other, latin in zip(*pair, strict=True)}
# Letters that Unicode does not take apart, such as circled white ones, small capitals and those with a stroke
_NAMED = re.compile(
    r"(?P<small>SMALL )?LETTER (?:SMALL CAPITAL |DOTLESS |SCRIPT |OPEN )?(?P<letter>[A-Z])(?: WITH .*)?\Z"
)
_SMALL_CAPITAL = "LETTER SMALL CAPITAL"


@lru_cache(2**16)
def as_seen(character: str) -> str:
    """A character in Latin letters and other ASCII characters: "" for one that nobody sees, itself if there are none for it."""
    plain = unicodedata.normalize("NFKD", character)
    latin = "".join(c for c in plain if c.isspace() or unicodedata.category(c) not in _UNSEEN).translate(_LOOK_ALIKES)
    if latin.isascii():
        return latin
    name = unicodedata.name(character, "")
    named = _NAMED.search(name) if "LATIN" in name or " SYMBOL LETTER" in name else None
    if named is None:
        return character  # one of another script may stand for many
    return named["letter"].lower() if named["small"] or _SMALL_CAPITAL in name else named["letter"]
