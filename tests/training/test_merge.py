"""Adapters become whole models: the same logits, one text model out of a multimodal one, and a card that tells the run."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import peft
import pytest
import torch
import transformers
import yaml
from models import CHATML_TEMPLATE, save_tiny, save_tiny_multimodal
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from crimson_core import InputError, JudgeError, ReportPair
from crimson_core.judges.engines.hf import hf_judge
from training import merge as merging
from training.card import RECORD_FILE, SECTIONS, enter_test, model_card
from training.merge import merge
from training.records import REGIMES

ROOT = Path(__file__).parents[2]
IDS = torch.tensor([list(range(40, 100)), list(range(140, 200))])
LANGUAGE = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"
GENERATION = {"eos_token_id": [257, 1], "pad_token_id": 258, "max_new_tokens": 99, "temperature": 2.0}
RUN = {
    "base": "google/medgemma-4b-it",
    "base_source": "a test | really",
    "method": "LoRA",
    "prompt": {"style": "compact", "guidelines": False},
    "data": {
        "path": "/home/somebody/secret/records",
        "records": {"train": 43210, "validation": 321, "test": 123},
        "left_out": 17,
        "regimes": dict(zip(REGIMES, range(701, 707), strict=True)),
        "label_sources": {"offline|0.1": 4242},
        "corpus": "ReXGradient-160K",
        "writer": "rules 1",
        "context": 0.83,
        "forged": 0.125,
    },
    "hyperparameters": {"epochs": 7, "learning_rate": 3e-4},
    "lora": {"r": 16, "alpha": 32, "dropout": 0.05, "targets": ["q_proj", "v_proj"]},
    "hardware": "2 small cores",
    "processes": 3,
    "steps": 909,
    "records_seen": 7272,
    "seconds": 7000.0,
    "versions": {"torch": "2.13.0"},
    "evaluation": [
        {"step": 500, "loss": 0.515, "parsed": 0.97, "false_f1": 0.61},
        {"step": 909, "loss": 0.125, "parsed": 1.0, "false_f1": 0.93, "missing_f1": None},
    ],
    "best_step": 909,
}


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def save_adapter(base, folder, targets, change=lambda model: model):
    """A random LoRA adapter as a training run leaves it, without a tokenizer, and the logits of base and adapter."""
    model = change(transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32))
    torch.manual_seed(1)
    model = peft.get_peft_model(model, peft.LoraConfig(r=4, init_lora_weights=False, target_modules=targets))
    model.get_base_model().config._name_or_path = str(base)
    model.peft_config["default"].base_model_name_or_path = str(base)
    model.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(CHATML_TEMPLATE.replace("<think>", "<think>own"), encoding="utf-8")
    (folder / "generation_config.json").write_text(json.dumps(GENERATION), encoding="utf-8")
    (folder / "crimson_prompt.json").write_text('{"style": "compact"}', encoding="utf-8")
    (folder / "training_run.json").write_text(json.dumps(RUN), encoding="utf-8")
    return folder, logits(model)


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


@pytest.fixture(scope="module")
def multimodal_folder(tmp_path_factory):
    return save_tiny_multimodal(tmp_path_factory.mktemp("multimodal") / "model")


@pytest.fixture
def adapter(tiny_folder, tmp_path):
    return save_adapter(tiny_folder, tmp_path / "adapter", ["q_proj", "v_proj", "down_proj"])[0]


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def test_base_with_adapter_and_merged_give_the_same_logits(tiny_folder, tmp_path):
    adapter, expected = save_adapter(tiny_folder, tmp_path / "adapter", ["q_proj", "v_proj", "up_proj", "down_proj"])
    merge(adapter, tmp_path / "merged", dtype="float32")
    torch.testing.assert_close(logits(load(tmp_path / "merged")), expected)
    judge = hf_judge(str(tmp_path / "merged"), dtype="float32", constrained=False)
    torch.testing.assert_close(logits(judge.engine.model), expected)
    assert not torch.allclose(logits(load(tiny_folder)), expected, atol=0.1)
    beside = hf_judge(str(adapter), dtype="float32", constrained=False)
    pairs = [ReportPair("Small effusion.", "Nodule."), ReportPair("Clear.", "")]
    outputs = [[judgement.raw_output for _, judgement in j.judge(pairs)] for j in (judge, beside)]
    assert outputs[0] == outputs[1]


def test_what_a_judge_needs_is_in_the_merged_folder(adapter, tiny_folder, tmp_path):
    merge(adapter, tmp_path / "merged")
    folder = tmp_path / "merged"
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["Gemma3ForCausalLM"]
    with safe_open(folder / "model.safetensors", "pt") as weights:
        assert {str(weights.get_tensor(name).dtype) for name in weights.keys()} == {"torch.bfloat16"}  # noqa: SIM118
        assert "lm_head.weight" not in weights.keys(), "embeddings are tied"  # noqa: SIM118
    generation = json.loads((folder / "generation_config.json").read_text())
    assert {key: generation[key] for key in ("eos_token_id", "pad_token_id", "max_new_tokens", "do_sample")} == {
        "eos_token_id": [257, 1],
        "pad_token_id": 258,
        "max_new_tokens": 99,
        "do_sample": False,
    }
    assert "temperature" not in generation
    assert "<think>own" in transformers.AutoTokenizer.from_pretrained(folder).chat_template
    assert hf_judge(str(folder), constrained=False).signature()["prompt"] == "compact"
    assert (folder / "README.md").read_text(encoding="utf-8") == model_card(RUN, name="merged", merged=True)
    for path in folder.glob("*.json"):
        assert str(tmp_path.parent) not in path.read_text(encoding="utf-8"), "paths of this machine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "merged"]


@pytest.mark.parametrize("trained", ["on the multimodal model", "on the text model"])
def test_multimodal_base_becomes_a_text_model(multimodal_folder, tmp_path, trained):
    from crimson_core.judges.engines.hf.weights import language_model

    if trained == "on the text model":
        targets, change = ["q_proj", "o_proj", "gate_proj"], language_model
    else:
        targets, change = LANGUAGE, lambda model: model
    adapter, expected = save_adapter(multimodal_folder, tmp_path / "adapter", targets, change)
    with safe_open(adapter / "adapter_model.safetensors", "pt") as weights:
        inside = {".language_model." in name for name in weights.keys()}  # noqa: SIM118
    assert inside == {trained == "on the multimodal model"}

    merge(adapter, tmp_path / "merged", dtype="float32")
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert (config["model_type"], config["architectures"]) == ("gemma3_text", ["Gemma3ForCausalLM"])
    merged = load(tmp_path / "merged")
    assert type(merged) is transformers.Gemma3ForCausalLM
    assert merged.lm_head.weight is merged.model.embed_tokens.weight
    torch.testing.assert_close(logits(merged), expected)
    assert not torch.allclose(logits(load(multimodal_folder)), expected, atol=0.1)
    judges = [hf_judge(str(tmp_path / name), dtype="float32", constrained=False) for name in ("adapter", "merged")]
    for judge in judges:
        torch.testing.assert_close(logits(judge.engine.model), expected)
        assert (judge.engine.codec.ends, judge.engine.codec.max_new_tokens) == ([257, 1], 99)


def test_untied_embeddings_stay_untied(tmp_path):
    base = save_tiny(tmp_path / "base", tie_word_embeddings=False)
    adapter, expected = save_adapter(base, tmp_path / "adapter", ["q_proj"])
    merge(adapter, tmp_path / "merged", dtype="float32")
    torch.testing.assert_close(logits(load(tmp_path / "merged")), expected)


def test_base_given(adapter, tiny_folder, tmp_path):
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "./gone"}))
    with pytest.raises(JudgeError, match=r"There is no folder \./gone.*the option base"):
        merge(adapter, tmp_path / "merged")
    merge(adapter, tmp_path / "merged", base=tiny_folder)
    assert (tmp_path / "merged" / "model.safetensors").is_file()


def refused(tmp_path, match, *arguments, kind=InputError, **options):
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(kind, match=match) as caught:
        merge(*arguments, **options)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before, "nothing half-written"


def test_what_cannot_be_merged(adapter, tiny_folder, tmp_path):
    output = tmp_path / "merged"
    refused(tmp_path, "is a whole model and no adapter", tiny_folder, output)
    refused(tmp_path, "There is no folder .*nowhere", tmp_path / "nowhere", output, kind=JudgeError)
    refused(tmp_path, "There is no folder ./nowhere", adapter, output, base="./nowhere", kind=JudgeError)
    refused(tmp_path, "adapter exists already. Give another folder", adapter, adapter)
    other = save_tiny(tmp_path / "other", hidden_size=64)
    refused(tmp_path, "adapter cannot be loaded", adapter, output, base=other, kind=JudgeError)
    for record in ("[]", '{"tests": 3}', '{"tests": [3]}'):
        (adapter / "training_run.json").write_text(record)
        refused(tmp_path, "training_run.json is no record of a training run", adapter, output)
    (adapter / "training_run.json").write_text('{"data": 3, "evaluation": [4]}')
    refused(tmp_path, "training_run.json cannot be put into a model card", adapter, output)
    (adapter / "training_run.json").unlink()
    (adapter / "adapter_model.safetensors").write_bytes(b"broken")
    refused(tmp_path, "adapter cannot be loaded", adapter, output, kind=JudgeError)


def test_an_adapter_of_the_vision_part_is_refused(multimodal_folder, tmp_path):
    adapter, _ = save_adapter(multimodal_folder, tmp_path / "adapter", ["q_proj"])
    refused(tmp_path, "also adapts the vision part.*language model only", adapter, tmp_path / "merged")


def test_weights_of_the_vision_part_that_change_nothing_are_left_out(multimodal_folder, tmp_path, capsys):
    """LoRA on all modules of a name, trained on text: those of the vision tower stay as they began."""
    adapter, expected = save_adapter(multimodal_folder, tmp_path / "adapter", ["q_proj"])
    path = adapter / "adapter_model.safetensors"
    weights = {
        name: torch.zeros_like(tensor) if "vision_tower" in name and "lora_B" in name else tensor
        for name, tensor in load_file(path).items()
    }
    vision = [name for name in weights if "vision_tower" in name]
    assert vision and len(vision) < len(weights)
    save_file(weights, path, {"format": "pt"})
    merge(adapter, tmp_path / "merged", dtype="float32")
    assert f"Left out: {len(vision)} weights of the vision part" in capsys.readouterr().out
    torch.testing.assert_close(logits(load(tmp_path / "merged")), expected)


def test_no_chat_template_anywhere(adapter, tiny_folder, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(tiny_folder, base)
    (base / "chat_template.jinja").unlink()
    (adapter / "chat_template.jinja").unlink()
    refused(tmp_path, "has no chat template.*chat_template.jinja", adapter, tmp_path / "merged", base=base)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("No space left on device")])
def test_full_disk(adapter, tmp_path, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(transformers.PreTrainedModel, "save_pretrained", fail)
    refused(tmp_path, "merged cannot be written: No space left on device. Make room", adapter, tmp_path / "merged")


# --- The command and the Hub --------------------------------------------------------------------------------------


def command(tmp_path, *arguments):
    environment = {key: value for key, value in os.environ.items() if key not in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")}
    return subprocess.run(
        [sys.executable, "-m", "training.merge", *map(str, arguments)],
        cwd=ROOT,
        env=environment | {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )


def test_command(adapter, tiny_folder, tmp_path):
    done = command(tmp_path, adapter, tmp_path / "merged", "--base", tiny_folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"hf:{tmp_path / 'merged'}" in done.stdout
    done = command(tmp_path, adapter, tmp_path / "other", "--push", "somebody/judge")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "training: --push: nobody is logged in to the Hub. Run: hf auth login\n"
    done = command(tmp_path, adapter, tmp_path / "other", "--private")
    assert (done.returncode, done.stderr) == (2, "training: --private needs --push.\n")
    assert not (tmp_path / "other").exists()


def test_push(adapter, tmp_path, monkeypatch, capsys):
    asked = []

    class Hub:
        def whoami(self):
            asked.append("whoami")

        def create_repo(self, repository, **options):
            asked.append((repository, options["private"]))

        def upload_folder(self, repo_id, folder_path, **_):
            asked.append((repo_id, sorted(path.name for path in folder_path.iterdir())))

    monkeypatch.setattr(merging, "HfApi", Hub)
    monkeypatch.setattr(merging, "get_token", lambda: "token")
    merging.main(str(adapter), tmp_path / "merged", repository="somebody/judge", private=True)
    assert asked[:2] == ["whoami", ("somebody/judge", True)]
    assert {"README.md", "model.safetensors", "crimson_prompt.json", "chat_template.jinja"} <= set(asked[2][1])
    assert '"hf:somebody/judge"' in (tmp_path / "merged" / "README.md").read_text(encoding="utf-8")

    def refuse(*_, **__):
        raise ValueError("403 Forbidden\nmore")

    monkeypatch.setattr(Hub, "create_repo", refuse)
    with pytest.raises(InputError, match="--push a/b: 403 Forbidden. The model is in .*hf upload a/b"):
        merging.push(tmp_path / "merged", "a/b")
    monkeypatch.setattr(Hub, "whoami", refuse)
    with pytest.raises(InputError, match="does not know your token"):
        merging.check_login()


# --- The card -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("merged", [True, False])
def test_card_tells_the_run(merged):
    card = model_card(RUN, name="somebody/judge", merged=merged)
    front, text = card.removeprefix("---\n").split("\n---\n", 1)
    front = yaml.safe_load(front)
    assert front["base_model"] == "google/medgemma-4b-it"
    assert front["library_name"] == ("transformers" if merged else "peft")
    assert (front["license"], front["language"], front["pipeline_tag"]) == ("other", "en", "text-generation")
    assert "health-ai-developer-foundations" in front["license_link"]
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == list(SECTIONS)
    for figure in (
        "43,210", "321", "123", "left out because they are longer than the limit: 17", "offline\\|0.1 | 4242",
        "ReXGradient-160K", "rules 1", "probability 0.83.\n\n12.5 % of the candidates", "| epochs | 7 |", "| learning rate | 0.0003 |",
        "| rank (r) | 16 |", "| target modules | q_proj, v_proj |", "2 small cores", "Processes: 3", "Steps: 909",
        "Records seen: 7272", "1.9 hours", "torch 2.13.0", "| 500 | 0.515 | 0.97 | 0.61 |",
        "| **909** | 0.125 | 1 | 0.93 |", "of step 909", "sellergren2025medgemma", "zhang2025rexgradient",
        "For research only. Not for clinical decisions", "a test \\| really",
    ):  # fmt: skip
        assert figure in card, figure
    for number, regime in enumerate(REGIMES):
        assert re.search(rf"^\| {number} \| {regime} \| .* \| {701 + number} \|$", card, re.MULTILINE)
    assert "missing findings, F1" not in card, "a figure that no evaluation has"
    assert "/home" not in card
    assert "\n\n\n" not in card
    noted = model_card(RUN | {"note": "Not a judge yet."}, name="somebody/judge", merged=merged)
    assert noted.replace("**Not a judge yet.**\n\n", "") == card


def test_figures_of_a_test_are_entered(tmp_path):
    """Once for the same records, and beside those of other records."""

    def test_of(records, f1, **more):
        agreement = {"all": {"pairs": 30, "parsed": 1.0, "score_mae": 0.25, "score_tau": None, "false_f1": f1}}
        told = {"records": records, "regimes": None, "limit": None, "signature": "crimson|judge:hf:x"}
        return told | {"pairs_per_second": 2.5, "agreement": agreement} | more

    (tmp_path / RECORD_FILE).write_text(json.dumps(RUN))
    (tmp_path / "adapter_config.json").write_text("{}")
    for f1 in (0.5, 0.75):
        enter_test(tmp_path, test_of("d/test.jsonl", f1))
    enter_test(tmp_path, test_of("d/test.jsonl", 0.875, regimes=[3, 4], limit=20))
    run = json.loads((tmp_path / RECORD_FILE).read_text())
    assert run.pop("tests") == [test_of("d/test.jsonl", 0.75), test_of("d/test.jsonl", 0.875, regimes=[3, 4], limit=20)]
    assert run == RUN
    card = (tmp_path / "README.md").read_text()
    table = card[card.index("| records | regimes |") :].split("\n\n", 1)[0].splitlines()
    assert table[1:] == [
        "|---|---|" + "---:|" * 8,
        "| d/test.jsonl | all | 30 | 1 | 0.25 | – | 0.75 | – | – | 2.5 |",
        "| d/test.jsonl, the first 20 | 3, 4 | 30 | 1 | 0.25 | – | 0.875 | – | – | 2.5 |",
    ]
    assert card.count("- Signature: `crimson|judge:hf:x`") == 1 and "\n\n\n" not in card
    assert "library_name: peft" in card and f"# {tmp_path.name}\n" in card
    only = model_card({"tests": [test_of("d/test.jsonl", 0.75)]}, name="judge", merged=True)
    assert "No evaluation is recorded" not in only and "| d/test.jsonl | all |" in only and "\n\n\n" not in only


def test_card_of_a_run_without_a_record():
    card = model_card({}, name="judge", merged=True)
    assert re.findall(r"^## (.*)$", card, re.MULTILINE) == list(SECTIONS)
    assert "None" not in card.replace("None was cut", "") and "nan" not in card
    assert "base_model" not in card and "medgemma" not in card
    card = model_card({"base": "/home/somebody/gemma"}, name="judge", merged=False)
    assert "base_model" not in card and "/home" not in card
    assert '"hf:judge,base=gemma"' in card
