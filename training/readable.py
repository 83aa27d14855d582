"""Makes reports and rule-made labels complete: keeps sentences that can be labelled fully, and lengthens texts of findings."""

import re
from functools import cache

from crimson_core.judges.rules.extraction import unnamed_clauses
from crimson_core.judges.rules.lexicon import lexicon, normalise, words_of
from crimson_core.judges.rules.sentences import sentences
from crimson_core.protocol.evaluation import Evaluation, Finding
from training.writers.pieces import leaning, pattern, phrases

_NUMBER = re.compile(r"\s*(?:\d{1,2}[.)]\s*|[-•]\s+)?")
_WHOLE = re.compile(r"[A-Z][^.!?]*(?:(?<=\d)\.\d[^.!?]*)*\.")
_MOST_WORDS, _MOST_COMMAS = 25, 2


def readable(report: str) -> str:
    """The sentences of a report that can be labelled fully, without list numbers, notes and repetitions; may be empty.

    A sentence stays if it is complete and has at most 25 words and two commas, and if the offline judge's lexicon knows each
    word or the word means nothing ("neutral_words" of `phrases.yaml`). A sentence that refers to a dropped one is dropped.
    """
    kept: list[str] = []
    gone = False  # the sentence before
    for start, end in sentences(report, lexicon()):
        text = " ".join(report[_NUMBER.match(report, start, end).end() : end].split())
        if not text:
            continue
        gone = text in kept or not _is_read(text) or bool((gone or not kept) and leaning().match(text))
        if not gone:
            kept.append(text)
    return " ".join(kept)


def _is_read(sentence: str) -> bool:
    if len(sentence.split()) > _MOST_WORDS or sentence.count(",") > _MOST_COMMAS:
        return False
    if not _WHOLE.fullmatch(sentence) or pattern("notes").search(sentence):
        return False
    words = [word for word, _, _ in words_of(sentence)]
    known = {place for tag in lexicon().tags(words) for place in range(tag.start, tag.end)}
    unknown = {word for place, word in enumerate(words) if place not in known and word[0].isalpha()}
    return len(words) > 1 and unknown <= _neutral() and not unnamed_clauses(sentence)


@cache
def _neutral() -> frozenset[str]:
    return frozenset(map(normalise, phrases()["neutral_words"].split()))


_LEAD = re.compile(r"there (?:is|are|has been|have been) |(?:an?|the) ", re.IGNORECASE)
_DANGLING = re.compile(
    r"\b(?:right|left|both|lower|upper|mid|the|enteric|feeding|nasogastric|endotracheal|tracheostomy|stable|standard|good"
    r"|satisfactory|similar|expected)\Z",
    re.IGNORECASE,
)
_NEXT_NOUN = re.compile(
    r" (?:lungs?|sides?|hearts?|hemithorax|lobes?|(?:lung )?(?:fields?|zones?|bases?)|chest|abdomen|tubes?|lines?|catheters?"
    r"|positions?|placements?)\b",
    re.IGNORECASE,
)
_STATE = re.compile(r"(?:\w+ly )?\w+(?:ed|ous)\Z", re.IGNORECASE)  # said of a noun before it: "tortuous and calcified"
# What is said of this subject and of another one before it: "enteric tube" of "The ET tube and enteric tube are in place".
_OF_BOTH = re.compile(r"(?<!s) (?:are|were|have)\b.*\Z", re.DOTALL)
_SUBJECT = re.compile(
    r"[^,;:]{0,60}\Z"
)  # what may stand between the start of a sentence and what it says of its subject


def with_whole_texts(evaluation: Evaluation, reference: str, candidate: str) -> Evaluation:
    """An evaluation of the offline judge whose findings have complete texts.

    The judge marks only the words that it has read. If a sentence has one finding, the finding's text becomes the sentence,
    without "There is" and the full stop. Otherwise it is extended to the noun ("in both" lungs), and a statement about the
    subject begins with the subject ("aorta is tortuous", "aorta is tortuous and calcified"). Findings without a `span` keep
    their texts.
    """
    return evaluation.model_copy(
        update={
            "reference_findings": _whole(evaluation.reference_findings, reference),
            "predicted_findings": _whole(evaluation.predicted_findings, candidate),
        }
    )


def _whole(findings: list[Finding], report: str) -> list[Finding]:
    spans = [getattr(finding, "span", None) for finding in findings]
    whole = []
    spans_of_sentences = list(sentences(report, lexicon()))
    for finding, span in zip(findings, spans, strict=True):
        if span:
            start, end = next(((s, e) for s, e in spans_of_sentences if s <= span[0] < e), span)
            beside = [other for other in spans if other and start <= other[0] < end]
            statement = _statement(report, start, end)
            if len(beside) == 1 and len(report[start:end].split()) <= _MOST_WORDS:
                span = statement
            else:
                first = span == min(beside)
                if _DANGLING.search(report[: span[1]]) and (more := _NEXT_NOUN.match(report, span[1])):
                    span = [span[0], more.end()]
                if not first and (both := _OF_BOTH.search(report[slice(*span)])):
                    span = [span[0], span[0] + both.start()]
                of_subject = first or _STATE.fullmatch(report[span[0] : span[1]])
                if of_subject and statement[0] < span[0] and _SUBJECT.match(report, statement[0], span[0]):
                    span = [statement[0], span[1]]
            finding = finding.model_copy(update={"finding": report[span[0] : span[1]], "span": span})
        whole.append(finding)
    return whole


def _statement(report: str, start: int, end: int) -> list[int]:
    start = _NUMBER.match(report, start, end).end()
    while lead := _LEAD.match(report, start, end):
        start = lead.end()
    return [start, start + len(report[start:end].rstrip(" \t\r\n.;,"))]
