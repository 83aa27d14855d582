import json
import math
import pickle
from dataclasses import replace

import pytest

from crimson_core import CrimsonScorer, InputError, JudgeError, Judgement, ReportPair, load_judge, make_pairs, summarize
from crimson_core.judges import JUDGES, JudgeSpec, parse_spec
from crimson_core.protocol.evaluation import Evaluation
from crimson_core.protocol.prompt import PUBLISHED_MODEL


def finding(i):
    return {"id": i, "finding": "x", "clinical_significance": "urgent"}


GOOD = Evaluation.model_validate(
    {
        "reference_findings": [finding("R1")],
        "predicted_findings": [finding("P1")],
        "matched_findings": [{"ref_id": "R1", "pred_id": "P1"}],
    }
)
INCONSISTENT = GOOD.model_copy(update={"errors": GOOD.errors.model_copy(update={"missing_findings": ["R1"], "false_findings": ["P1"]})})  # fmt: skip


class BackwardsJudge:
    """Done with the last pair first; fails on every third."""

    def judge(self, pairs):
        for index in reversed(range(len(pairs))):
            if index % 3 == 2:
                yield index, Judgement(failure="no answer")
            else:
                yield index, Judgement(INCONSISTENT if index == 0 else GOOD)

    def signature(self):
        return {"judge": "backwards"}


PAIRS = make_pairs(["p"] * 7, ["r"] * 7, ids=list("abcdefg"))


def test_order_is_kept_failures_are_counted_and_nothing_is_dropped():
    scorer = CrimsonScorer(BackwardsJudge())
    results = scorer.score(PAIRS)
    assert [r.index for r in results] == list(range(7))
    assert [r.id for r in results] == list("abcdefg")
    assert [r.index for r in scorer.stream(PAIRS)] == list(reversed(range(7)))
    summary = summarize(results, scorer.signature)
    assert summary["crimson_score"] == 1.0
    assert [math.isnan(s) for s in summary["scores"]] == [False, False, True] * 2 + [False]
    assert (summary["n_pairs"], summary["n_unscored"], summary["n_repaired"]) == (7, 2, 1)
    assert summary["failures"] == {2: "no answer", 5: "no answer"}
    assert results[2].as_dict()["crimson_score"] is None
    json.loads(json.dumps([r.as_dict() for r in results], allow_nan=False))


def test_repair_is_visible_and_can_be_left_out():
    repaired, plain = (CrimsonScorer(BackwardsJudge(), repair=r) for r in (True, False))
    assert repaired.score(PAIRS)[0].crimson_score == 1.0
    assert len(repaired.score(PAIRS)[0].repairs) == 2
    assert plain.score(PAIRS)[0].crimson_score == 0.0
    assert plain.score(PAIRS)[0].repairs == []
    assert "repair:yes" in repaired.signature
    assert "repair:no" in plain.signature


def test_nothing_scored_is_nan_and_not_zero():
    class Mute(BackwardsJudge):
        def judge(self, pairs):
            return ((i, Judgement(failure="mute")) for i in range(len(pairs)))

    summary = summarize(CrimsonScorer(Mute()).score(PAIRS), "s")
    assert math.isnan(summary["crimson_score"])
    assert math.isnan(summary["mean_false_findings"])
    assert summary["n_unscored"] == 7


def test_stopping_early_closes_the_judge():
    closed = []

    class Endless(BackwardsJudge):
        def judge(self, pairs):
            try:
                yield from super().judge(pairs)
            finally:
                closed.append(True)

    stream = CrimsonScorer(Endless()).stream(PAIRS)
    next(stream)
    assert not closed
    stream.close()
    assert closed


def test_a_judge_that_loses_a_pair_leaves_it_unscored_and_one_that_repeats_is_refused():
    class Forgetful(BackwardsJudge):
        def judge(self, pairs):
            yield 3, Judgement(GOOD)

    results = CrimsonScorer(Forgetful()).score(PAIRS)
    assert [r.failure for r in results] == [None if i == 3 else "the judge gave no judgement" for i in range(7)]

    class Stuttering(BackwardsJudge):
        def judge(self, pairs):
            yield 3, Judgement(GOOD)
            yield 3, Judgement(GOOD)

    with pytest.raises(JudgeError, match="3 twice"):
        CrimsonScorer(Stuttering()).score(PAIRS)


def test_a_progress_bar_counts_pairs(capfd):
    CrimsonScorer("offline").score(PAIRS, progress=True)
    assert "7/7" in capfd.readouterr().err
    CrimsonScorer("offline").score(PAIRS)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("spec", "parsed"),
    [
        ("default", JudgeSpec("hf", PUBLISHED_MODEL)),
        ("offline", JudgeSpec("offline", None)),
        ("hf:a/b", JudgeSpec("hf", "a/b")),
        ("a/b", JudgeSpec("hf", "a/b")),
        ("hf:a/b@rev", JudgeSpec("hf", "a/b@rev")),
        ("openai:gpt-5", JudgeSpec("openai", "gpt-5")),
        ("openai:org/model:free", JudgeSpec("openai", "org/model:free")),
        ("azure:my-gpt5", JudgeSpec("azure", "my-gpt5")),
        ("hf:a/b,base=c/d", JudgeSpec("hf", "a/b", (("base", "c/d"),))),
        ("a/b@v1, base = ./c,d , dtype=float32", JudgeSpec("hf", "a/b@v1", (("base", "./c,d"), ("dtype", "float32")))),
        ("openai:m,base_url=http://x/v1", JudgeSpec("openai", "m", (("base_url", "http://x/v1"),))),
    ],
)
def test_judge_specs(spec, parsed):
    assert parse_spec(spec) == parsed


def test_a_bare_folder_is_an_hf_judge(tmp_path):
    assert parse_spec(str(tmp_path)) == JudgeSpec("hf", str(tmp_path))
    assert parse_spec(f"{tmp_path},base=a/b") == JudgeSpec("hf", str(tmp_path), (("base", "a/b"),))


def test_a_folder_may_be_called_like_a_spec_with_options(tmp_path):
    folder = tmp_path / "run,r=16,base=x"
    assert parse_spec(f"hf:{folder}") == JudgeSpec("hf", str(tmp_path / "run"), (("r", "16"), ("base", "x")))
    folder.mkdir()
    assert parse_spec(f"hf:{folder}") == JudgeSpec("hf", str(folder))
    assert parse_spec(f"{folder},base=a/b") == JudgeSpec("hf", str(folder), (("base", "a/b"),))


@pytest.mark.parametrize(
    "spec", ["", "  ", "nope", "offline:x", "hf:", "openai", "foo:bar", "/no/such/folder", None, 3]
)
def test_unknown_specs_name_the_known_ones(spec):
    with pytest.raises(InputError, match="(?s)judge.*offline"):
        parse_spec(spec)


def test_unknown_options_and_wrong_judges_are_refused():
    with pytest.raises(InputError, match="temperature"):
        load_judge("offline", temperature=1)
    with pytest.raises(InputError, match="'openai:m' knows no option 'bass'. Its options: api_key, base_url"):
        load_judge("openai:m,bass=secret")
    with pytest.raises(InputError, match="option base has no value"):
        load_judge("hf:a/b,base=")
    with pytest.raises(InputError, match="option base is given twice"):
        load_judge("hf:a/b,base=c,base=d")
    with pytest.raises(InputError, match="base_url is in the judge spec already"):
        load_judge("openai:m,base_url=x", base_url="y")
    for option in ("concurrency=2", "guidelines=false", "api_key=secret"):
        with pytest.raises(InputError, match=f"^{option.partition('=')[0]} cannot be part of a judge spec") as caught:
            load_judge(f"openai:m,{option}")
        assert "secret" not in str(caught.value)
    with pytest.raises(InputError, match="judge is of type int"):
        CrimsonScorer(3)
    with pytest.raises(InputError, match="built already"):
        CrimsonScorer(BackwardsJudge(), batch_size=3)


def test_only_report_pairs_are_scored():
    scorer = CrimsonScorer("offline")
    with pytest.raises(InputError, match="empty"):
        scorer.score([])
    with pytest.raises(InputError, match=r"pairs\[1\].*tuple"):
        scorer.score([ReportPair("a", "b"), ("a", "b")])


def test_every_registered_judge_can_be_imported():
    from importlib import import_module
    from importlib.util import find_spec

    needs = {"vllm": "vllm", "hf": "torch"}  # vllm in an environment of its own
    for prefix, place in JUDGES.items():
        module, _, name = place.partition(":")
        if prefix in needs and find_spec(needs[prefix]) is None:
            with pytest.raises(JudgeError, match=rf"crimson-metric\[{prefix}\]"):
                load_judge(f"{prefix}:someone/model")
        else:
            assert callable(getattr(import_module(module), name))


def test_the_core_imports_no_engine():
    import subprocess
    import sys

    heavy = ["torch", "transformers", "openai", "evaluate", "datasets", "pandas", "numpy", "CRIMSON", "scipy"]
    code = f"import sys, crimson_core, crimson_core.cli; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_packed_result_is_the_same_one():
    whole, failed = CrimsonScorer("offline").score(PAIRS)[0], CrimsonScorer(BackwardsJudge()).score(PAIRS)[2]
    for result in (whole, failed):
        packed = pickle.loads(pickle.dumps(result.packed()))
        assert packed == result == packed.packed() and packed.as_dict() == result.as_dict()
        assert packed.outcome == result.outcome and packed.score == result.score
        assert math.isnan(packed.crimson_score) or packed.crimson_score == result.crimson_score
    assert whole.packed(7) == replace(whole, index=7)
    odd = replace(whole, evaluation={"x": object()})
    assert odd.packed() == odd, "what cannot be packed stays"
    with pytest.raises(AttributeError, match="nothing"):
        whole.packed().nothing  # noqa: B018
