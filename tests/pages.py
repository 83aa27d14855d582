"""What tests of pages share: texts that want to be more than text, and what a browser makes of HTML."""

import re
import unicodedata
from html.parser import HTMLParser

HOSTILE = [
    "<script>window.hacked = 1</script> Small left pleural effusion.",
    'Left effusion <img src=x onerror="window.hacked = 1"> <svg/onload=window.hacked=1>.',
    "</div></span></article><style>body { display: none }</style> Cardiomegaly.",
    "# Cardiomegaly\n**bold** [link](javascript:alert(1)) | a | b |\n{{ 7 * 7 }} ${value} {% raw %}",
    "Cardiomegaly \u202eegral\u202c. Épanchement \U0001fa7b \u0627\u0644\u0642\u0644\u0628 effusion. \x00\x07",
    '"\' onmouseover="window.hacked = 1" Right pneumothorax. &lt;b&gt; &amp;',
]


def as_shown(text):
    """A report's text as a page shows it: what controls, or turns the direction of what is behind it, is a sign."""
    turns = ("ALM", "LRM", "RLM", "LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI")
    return "".join(
        "\ufffd"
        if c not in "\t\n\r"
        and (unicodedata.category(c) == "Cc" or unicodedata.bidirectional(c) in turns)
        or c in "\u200e\u200f\u061c"
        else c
        for c in text
    )


class Shown(HTMLParser):
    """What a browser makes of HTML: the tags, their attributes, and the text of the reports without the page's own words."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.reports, self.text = set(), set(), [], ""
        self._open = []
        self.feed(html)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.add(tag)
        self.attributes |= attributes.keys()
        if attributes.get("class") == "text":
            self.reports.append("")
        self._open += [] if tag == "br" else [(tag, attributes.get("class", ""))]

    def handle_endtag(self, tag):
        assert self._open.pop()[0] == tag

    def handle_data(self, data):
        self.text += data
        classes = [name for _, name in self._open]
        if "text" in classes and not {"chip", "tip"} & set(classes):
            self.reports[-1] += data


OUR_TAGS = frozenset(
    re.findall(r"\S+", "article section p span div i b ul li h2 h3 h4 button table thead tbody tr th td br code")
)
OUR_ATTRIBUTES = frozenset(
    re.findall(
        r"\S+",
        "class id type role style dir tabindex scope colspan aria-label aria-hidden aria-describedby data-mark data-group data-label",
    )
)
