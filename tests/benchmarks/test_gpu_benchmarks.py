"""The GPU benchmarks on a CPU, with tiny shapes: that they run to their end, resume, and measure what they say."""

import json

import pytest
import torch

from benchmarks.gpu import correct, fast
from benchmarks.gpu.common import ENDS, SHAPES, Results, cuda_or_cpu, random_model
from benchmarks.gpu.scripted import target, typical_pairs
from crimson_core.errors import InputError
from crimson_core.judges.engines.hf import judge_in_memory
from crimson_core.protocol.evaluation import parse_evaluation
from crimson_core.protocol.prompt import Prompt

needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


def test_every_way_writes_the_targets_and_is_measured_once(gemma_folder, tmp_path, monkeypatch):
    file = tmp_path / "fast.json"
    monkeypatch.setattr(fast, "_PROMPTS", 2)
    options = {"shape": "tiny", "device": "cpu", "batch_size": [2], "n_pairs": 3}
    fast.main(gemma_folder, file, surprises=[0.3], **options)
    figures = json.loads(file.read_text())
    for name in ("crimson-score, batch 2", "generate, batch 2", "drafts, batch 2"):
        found = figures[f"{name}, 30% surprises"]
        assert found["wrong_outputs"] == 0 and found["pairs_per_second"] > 0 and found["output_tokens"] > 400
    drafts = figures["drafts, batch 2, 30% surprises"]
    assert 0.3 <= drafts["passes_per_token"] < 0.9, "three of ten tokens cannot be guessed, most others can"
    assert figures["prompt pass, batch 4"]["prompt_tokens"] > 3000
    host = figures["host, batch 2, 30% surprises"]
    assert host["wrong_outputs"] == 0 and 0 < host["ms_a_pass"] < host["ms_a_pass_of_all_threads"]

    def too_much(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(fast, "_MEASURES", {"generate": too_much})
    fast.main(gemma_folder, file, way=["generate"], surprises=[0.3], **options | {"batch_size": [3]})
    figures = json.loads(file.read_text())
    assert figures["generate, batch 3, 30% surprises"]["out_of_memory"]

    monkeypatch.setattr(fast, "_MEASURES", {})
    fast.main(gemma_folder, file, surprises=[0.3], **options)  # all is there
    assert json.loads(file.read_text()) == figures
    with pytest.raises(InputError, match="--way fast is none. Use one of: prompt pass, "):
        fast.main(gemma_folder, file, way=["fast"], **options)


def test_targets_are_evaluations_with_the_share_of_surprises(gemma_folder):
    model = random_model("tiny", torch.device("cpu"), vocab_size=300)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gemma_folder)
    judge = judge_in_memory(model, tokenizer, name="m", prompt=Prompt("compact"), constrained=False, decoding="plain")
    for seed, pair in enumerate(typical_pairs(6)):
        plain, surprising = (
            target(judge.engine.codec.encoder, tokenizer, ENDS[1], pair, share, seed) for share in (0, 0.3)
        )
        assert surprising[-1] == ENDS[1] and parse_evaluation(tokenizer.decode(surprising[:-1]))
        new = sum(token not in plain for token in surprising)
        assert new == pytest.approx(0.3 * len(surprising), rel=0.1)


def test_the_shape_is_the_published_models():
    """4 billion numbers, of which 3.2 in the layers; made on no device."""
    with torch.device("meta"):
        model = random_model("4b", torch.device("meta"))
    layers = sum(p.numel() for p in model.model.layers.parameters())
    assert layers == pytest.approx(3.209e9, rel=1e-3)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(3.88e9, rel=1e-2)
    kinds = model.config.layer_types
    assert [kinds.count("full_attention"), len(kinds)] == [5, 34]
    assert SHAPES["tiny"]["vocab_size"] == SHAPES["4b"]["vocab_size"]


def test_correctness_part(tiny_folder, tmp_path, monkeypatch):
    file = tmp_path / "correct.json"
    monkeypatch.setattr(correct, "FORGED", correct.FORGED[:2])
    correct.main(f"hf:{tiny_folder}", file, n_pairs=3, most_words=20, batch_size=[2], max_new_tokens=30, device="cpu")
    figures = json.loads(file.read_text())
    for name in ("made-up pairs, float32", "forged reports, float32", "made-up pairs, bfloat16"):
        (row,) = figures[name]["rows"]
        assert row["same"] + len(row["margins"]) == row["pairs"] >= 3
    assert figures["made-up pairs, float32"]["rows"][0]["same"] == 3
    errors = figures["packed passes, bfloat16"]
    assert 0 < errors["packed"] < 1.2 * errors["transformers"] < 0.1
    assert "memory runs out" not in figures, "which is for GPUs"
    exact = figures["packed passes, float32"]
    assert 0 < exact["packed"] < 2 * exact["transformers"] < 1e-4
    ways, products = figures["attention, float32"], figures["matrix products, float32"]
    assert len(ways) == 4 and all(0 < way["error"] < 1e-5 for way in ways.values())
    assert len(products) > 3 and all(0 < product["error"] < 1e-5 for product in products.values())
    runs = figures["one thing left out, float32"]
    assert len(runs) == 8 and set(runs.values()) == {3}


@needs_no_gpu
def test_without_a_gpu_the_error_says_what_to_do():
    with pytest.raises(InputError, match="No CUDA device was found.*--device cpu --shape tiny"):
        cuda_or_cpu(None)


def test_figures_of_another_machine_are_not_mixed(tmp_path):
    file = tmp_path / "figures.json"
    assert Results(file).once("a", lambda: 1) == 1
    assert Results(file).once("a", lambda: 2) == 1
    figures = json.loads(file.read_text())
    figures["machine"]["card"] = "another"
    file.write_text(json.dumps(figures))
    with pytest.raises(InputError, match="another machine or other versions. Give another --output"):
        Results(file)
