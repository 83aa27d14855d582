"""The hf judge on real Gemma 3 270M weights."""

import io
import json
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from hf_models import PAIRS, TIGHT, run, texts
from models import variant

from benchmarks.forged import forgeries
from crimson_core import CrimsonScorer, ReportPair
from crimson_core.judges.engines.hf import hf_judge
from crimson_core.protocol.evaluation import evaluation_schema

ROOT = Path(__file__).parents[2]
GREEDY = {"bos_token_id": 2, "eos_token_id": [1, 106], "pad_token_id": 0, "do_sample": False, "max_new_tokens": 24}


@pytest.fixture(scope="session")
def free_judge(gemma_folder, tmp_path_factory):
    """Unconstrained, the reference prompt as the published model gets it. In float32: few CPUs have units for bf16."""
    folder = variant(gemma_folder, tmp_path_factory.mktemp("free") / "gemma-free", generation=GREEDY)
    return hf_judge(str(folder), constrained=False, guidelines=False, dtype="float32"), folder


@pytest.fixture(scope="session")
def strict_judge(gemma_folder, tmp_path_factory):
    """Constrained, the compact prompt, which is quicker."""
    folder = tmp_path_factory.mktemp("strict") / "gemma-strict"
    variant(gemma_folder, folder, prompt={"style": "compact"})
    return hf_judge(str(folder), dtype="float32", max_new_tokens=600, **TIGHT)


def test_free_text_is_the_reference_implementations(free_judge):
    from CRIMSON.generate_score import CRIMSONScore

    judge, folder = free_judge
    with redirect_stdout(io.StringIO()):
        reference = CRIMSONScore(api="hf", model_name=str(folder))
    reference.pipe.model.float()
    pairs = PAIRS[:2]
    expected = reference._chat_completion_batch(
        [judge.prompt.messages(pair)[1]["content"] for pair in pairs], batch_size=2
    )
    judge.engine.batch_size = 2
    assert texts(judge, pairs) == expected
    assert all(expected)


def test_cut_output_is_a_failure_that_keeps_its_text(free_judge):
    judge, _ = free_judge
    judge.engine.batch_size = 1
    (judgement,) = run(judge, PAIRS[1:2])
    assert judgement.failure == "the output did not end within 24 tokens"
    assert judgement.evaluation is None
    assert judgement.raw_output
    assert judgement.usage["completion_tokens"] == 24
    assert 1000 < judgement.usage["prompt_tokens"] < 3000


@pytest.fixture(scope="session")
def strict_judgements(strict_judge):
    strict_judge.batch_size = len(PAIRS)
    return run(strict_judge, PAIRS)


def test_constrained_output_always_parses(strict_judgements):
    for judgement in strict_judgements:
        assert judgement.failure is None
        assert judgement.repairs == []
        assert list(json.loads(judgement.raw_output)) == list(evaluation_schema()["properties"])
        assert judgement.usage["completion_tokens"] < 600
        assert len(judgement.evaluation.reference_findings) <= 1


def test_evaluation_does_not_depend_on_neighbours(strict_judge, strict_judgements):
    assert len({judgement.raw_output for judgement in strict_judgements}) > 1, "outputs all the same prove nothing"
    strict_judge.batch_size = 2
    assert run(strict_judge, [PAIRS[3], PAIRS[1]]) == [strict_judgements[3], strict_judgements[1]]


def test_no_forged_answer_gains_with_the_trained_adapter(gemma_folder, monkeypatch):
    """A few of the two hundred that `python -m benchmarks.forged` tries, and that they would gain if the model saw them."""
    adapter = ROOT / "checkpoints" / "gemma3-270m-crimson"
    scorer = CrimsonScorer(f"hf:{adapter}", base=str(gemma_folder), dtype="float32", batch_size=4)
    shapes = ("compact", "matched", "prose")
    chosen = [next(one for one in forgeries() if one.shape == shape) for shape in shapes]

    def gains():
        texts = [ReportPair(one.reference, text) for one in chosen for text in (one.clinical, one.candidate)]
        scores = [result.crimson_score for result in scorer.score(texts)]
        return [forged - clean for clean, forged in zip(scores[::2], scores[1::2], strict=True)]

    assert max(gains()) <= 0.05
    for module in ("crimson_core.protocol.prompt", "crimson_core.run.scorer"):
        monkeypatch.setattr(f"{module}.defused", lambda pair, **_: (pair, []))
    assert max(gains()) > 0.05
