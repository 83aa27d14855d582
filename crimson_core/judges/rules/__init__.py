"""The offline judge: a judge of rules and a lexicon, with no model, no download and no network.

The way of a text such as "Heart is enlarged. No left effusion, but a 5 mm nodule." through the modules:

    text        legible.py         without what only a computer sees: soft hyphens, line breaks in words, hidden signs
    sentences   sentences.py       without history and technique (histories.py finds reports there)
    words       lexicon.py         normalised, typing errors mended; phrases of the lexicon become tags
    tags        shared_nouns.py    "pleural and pericardial effusions" -> two names
                ratios.py          "CTR 60%" -> increased
                change.py          "slightly larger" -> worse
                forms.py           "Effusion: no" -> denied
                denials.py         "not seen" denies what stands before it, or what follows
    clauses     clauses.py         "No left effusion" | "a 5 mm nodule"
    mentions    mentions.py        which words belong to which finding of a clause; it asks in turn
                naming.py            what is named: a term, or what an anaphor ("the other one") stands for
                states.py            a structure and its state: "heart" + "enlarged" -> cardiomegaly
                attributes.py        what its words say: side, zone, degree, size, change, ...
                assertion.py         whether it is there: present, absent, or unsaid (asked about, history)
                sharing.py           what an enumeration shares: "left effusion and atelectasis"
                joining.py           which mentions are one finding: "opacity, likely pneumonia"
    readings    clause_reading.py  what a clause tells by itself
                continuations.py   what it says of findings before it: "It has grown", "This suggests edema"
    findings    extraction.py      the sentences together: each finding at its place in the report
                repeats.py         each finding once, though findings and impression tell it
    matches     matching.py        which findings of two reports are one (assignment.py: the best choice of pairs)
    errors      attribute_errors.py  what is wrong with a match
                devices.py           whether a device is in place
    levels      significance.py    how much a finding matters in this patient
    evaluation  judge.py           all of this for a pair

The lexicon is `concepts/` and `language.yaml`; `rules.yaml` says how errors are graded. schema.py checks these files,
compiled.py keeps them between runs. explain.py shows the steps for a report, and which entry or rule decided each;
minilm.py adds a sentence encoder.
"""

from crimson_core.judges.rules.judge import OfflineJudge

__all__ = ["OfflineJudge"]
