"""A report's text -> the sentences that tell findings, with their place in the report."""

import re
from collections.abc import Iterator

from crimson_core.judges.offline.lexicon import Lexicon

# A full stop ends a sentence before a space or a capital ("clear.No effusion"), but not in "1.5 cm" or "vs. edema". A new line
# ends one unless the next line goes on in lower case, as wrapped lines do. List numbers stand alone and mean nothing.
_END = re.compile(r"(?<!\bvs)(?<!\bDr)(?<!\be\.g)(?<!\bi\.e)[.!?]+(?=\s|[A-Z]|$)|\n[^\S\n]*(?=[^a-z\s])")
_HEADING = re.compile(r"\s*(?P<name>[A-Za-z][A-Za-z /&]{1,40}?)\s*:")


def sentences(report: str, lexicon: Lexicon) -> Iterator[tuple[int, int]]:
    """Character spans of the sentences about this radiograph; history, technique and the like are left out."""
    skipping = False
    start = 0
    for end in [*(match.end() for match in _END.finditer(report)), len(report)]:
        heading = _HEADING.match(report, start, end)
        if heading:  # it stays in the sentence: in "Pneumothorax: small, right" it names the finding
            skipping = heading["name"].lower() in lexicon.skipped_sections
        if not skipping and report[start:end].strip():
            yield start, end
        start = end
