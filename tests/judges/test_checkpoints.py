"""Checkpoints: adapters, prompt files, revisions, the Hub, and folders that are no models."""

import io
import json
import shutil
from contextlib import redirect_stderr

import pytest
import torch
from hf_models import PAIRS, texts, tight_judge
from huggingface_hub import errors as hub_errors
from models import CHATML_TEMPLATE, byte_tokenizer, variant
from safetensors.torch import load_file, save_file

from crimson_core import InputError, JudgeError, load_judge
from crimson_core.judges.engines import local
from crimson_core.judges.engines.hf import hf_judge
from crimson_core.judges.engines.local.checkpoint import find_checkpoint
from crimson_core.protocol.prompt import PUBLISHED_MODEL, Prompt
from training.card import RECORD_FILE

pytestmark = pytest.mark.usefixtures("one_thread")


def test_lora_adapter_equals_the_merged_model(adapter, tiny_judge):
    lora, merged = (tight_judge(folder) for folder in adapter)
    ids = torch.tensor([lora.engine.codec.encoder.encode(lora.prompt.messages(PAIRS[0]))])
    with torch.no_grad():
        logits = [judge.engine.model(input_ids=ids).logits for judge in (lora, merged, tiny_judge)]
    torch.testing.assert_close(logits[0], logits[1])
    assert not torch.allclose(logits[0], logits[2], atol=0.1)
    assert texts(lora, PAIRS) == texts(merged, PAIRS) != texts(tiny_judge, PAIRS)
    assert lora.prompt.style == "compact", "the adapter's own prompt file counts"
    assert lora.signature()["base"] == f"model@{tiny_judge.signature()['revision']}"
    assert "base" not in merged.signature()


def test_lora_adapter_with_its_own_tokenizer(adapter, tmp_path):
    folder = tmp_path / "adapter"
    shutil.copytree(adapter[0], folder)
    byte_tokenizer(CHATML_TEMPLATE.replace("<think>", "<think>own")).save_pretrained(folder)
    judge = hf_judge(str(folder), constrained=False)
    assert "<think>own" in judge.engine.codec.tokenizer.chat_template


def test_lora_adapter_without_a_tokenizer(adapter, tiny_folder, tmp_path):
    """The base knows another chat and other end tokens; what the adapter says of both counts."""
    folder = tmp_path / "adapter"
    shutil.copytree(adapter[0], folder)
    (folder / "chat_template.jinja").write_text(CHATML_TEMPLATE.replace("<think>", "<think>own"), encoding="utf-8")
    ends = {"eos_token_id": [5, 6], "max_new_tokens": 77, "do_sample": True, "temperature": 9.0}
    (folder / "generation_config.json").write_text(json.dumps(ends), encoding="utf-8")
    base = variant(tiny_folder, tmp_path / "base", generation={"eos_token_id": 7, "pad_token_id": 8})
    (base / "chat_template.jinja").unlink()
    judge = hf_judge(str(folder), base=str(base), constrained=False)
    assert "<think>own" in judge.engine.codec.tokenizer.chat_template
    assert (judge.engine.codec.ends, judge.engine.codec.pad, judge.engine.codec.max_new_tokens) == ([5, 6], 8, 77)
    assert judge.signature()["base"].startswith("base@sampled-")


def test_base_of_an_adapter_in_the_judge_spec(adapter, tiny_folder, tmp_path):
    lost = tmp_path / "adapter"
    shutil.copytree(adapter[0], lost)
    config = json.loads((lost / "adapter_config.json").read_text())
    (lost / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "./gone"}))
    judge = load_judge(f"hf:{lost},base={tiny_folder}", constrained=False)
    assert judge.signature()["base"].startswith("model@sampled-")
    with pytest.raises(JudgeError, match=r"There is no folder \./else.*given as base, the base model of adapter"):
        load_judge(f"hf:{lost},base=./else", constrained=False)
    with pytest.raises(JudgeError, match="adapter: its base model adapter is an adapter too"):
        hf_judge(str(lost), base=str(adapter[0]), constrained=False)
    with pytest.raises(InputError, match="base is 'a/b', but model is a whole model"):
        hf_judge(str(tiny_folder), base="a/b", constrained=False)
    with pytest.raises(InputError, match="base is ''"):
        hf_judge(str(lost), base="", constrained=False)


def test_prompt_file_and_guidelines(tiny_folder, tmp_path):
    record = {"style": "reference", "guidelines": False}
    told = hf_judge(str(variant(tiny_folder, tmp_path / "told", prompt=record)), constrained=False, guidelines=True)
    assert told.signature()["prompt"].startswith("reference-without-guidelines,crimson-score-0.2.")
    folder = variant(tiny_folder, tmp_path / "untold")
    (folder / "crimson_prompt.json").unlink()
    assert hf_judge(str(folder), constrained=False).signature()["prompt"].startswith("reference,crimson-score-0.2.")
    untold = hf_judge(str(folder), constrained=False, guidelines=False)
    assert untold.signature()["prompt"].startswith("reference-without-guidelines,crimson-score-0.2.")
    untold.prompt = Prompt(guidelines=True)
    assert untold.signature()["prompt"].startswith("reference,crimson-score-0.2.")


def test_folder_digest_follows_the_weights(tiny_folder, tmp_path):
    def digest(folder):
        return local.checkpoint.revision_of(find_checkpoint(str(folder)))

    copy = tmp_path / "copy"
    shutil.copytree(tiny_folder, copy)
    same = digest(copy)
    assert same == digest(tiny_folder)
    for name in (RECORD_FILE, "README.md"):  # what is told of a model later changes no evaluation
        (copy / name).write_text("{}", encoding="utf-8")
    assert digest(copy) == same
    tensors = load_file(copy / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"] += 0.01
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    assert digest(copy) != same
    (tmp_path / "template").mkdir()
    other = variant(tiny_folder, tmp_path / "template" / "copy")
    (other / "chat_template.jinja").write_text("other", encoding="utf-8")
    assert digest(other) != same


def test_hub_model(tiny_folder, tmp_path, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    folder, asked = variant(tiny_folder, tmp_path / commit), []
    monkeypatch.setattr(
        local.checkpoint, "snapshot_download", lambda name, **options: asked.append((name, options)) or str(folder)
    )
    judge = hf_judge("someone/some-model@v1.0", constrained=False)
    assert asked[0][0] == "someone/some-model"
    assert asked[0][1]["revision"] == "v1.0"
    assert judge.signature()["judge"] == "hf:someone/some-model"
    assert judge.signature()["revision"] == commit
    assert judge.signature()["prompt"] == "compact", "the repository's prompt file counts"
    hf_judge("someone/some-model", revision="main", constrained=False)
    assert asked[1][1]["revision"] == "main"
    published = hf_judge(PUBLISHED_MODEL, constrained=False)
    assert published.signature()["prompt"].startswith("reference-without-guidelines,crimson-score-0.2.")


def test_a_folder_whose_name_holds_an_at_sign_wins(tiny_folder, tmp_path):
    folder = variant(tiny_folder, tmp_path / "model@v2")
    assert find_checkpoint(str(folder)).name == "model@v2"


RESPONSE = type("Response", (), {"headers": {}, "status_code": 404, "request": None})()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (hub_errors.GatedRepoError("", response=RESPONSE), "is gated. Accept its terms .*hf auth login"),
        (hub_errors.RevisionNotFoundError("", response=RESPONSE), "has no revision 'v9' on the Hub"),
        (hub_errors.RepositoryNotFoundError("", response=RESPONSE), "neither a local folder nor a model on the Hub"),
        (hub_errors.LocalEntryNotFoundError(""), "the Hub cannot be reached"),
        (hub_errors.OfflineModeIsEnabled(""), "the Hub cannot be reached"),
        (OSError(28, "No space left on device"), "cannot be downloaded: .*No space left"),
    ],
)
def test_hub_errors(monkeypatch, error, message):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(local.checkpoint, "snapshot_download", fail)
    with pytest.raises(JudgeError, match=f"^someone/model .*{message}") as caught:
        hf_judge("someone/model", revision="v9")
    assert caught.value.__cause__ is None and caught.value.__suppress_context__ or caught.value.__context__ is None


def test_no_network(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(JudgeError, match="nobody/no-such-model is not a local folder, the Hub cannot be reached"):
        hf_judge("nobody/no-such-model")


def spoiled(kind, tiny_folder, adapter, target):
    if kind == "empty folder":
        target.mkdir()
        return str(target), r"model is not a model folder: it has neither config\.json nor adapter_config\.json"
    if kind == "missing folder":
        return str(target), "There is no folder .*model"
    if kind == "missing base":
        shutil.copytree(adapter[0], target)
        config = json.loads((target / "adapter_config.json").read_text())
        (target / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "./gone"}))
        return str(target), r"There is no folder \./gone.*base model that the adapter model names"
    if kind == "pickled adapter":
        shutil.copytree(adapter[0], target)
        (target / "adapter_model.safetensors").rename(target / "adapter_model.bin")
        (target / "other.safetensors").write_bytes(b"")
        return str(target), r"adapter without adapter_model\.safetensors"
    shutil.copytree(tiny_folder, target)
    weights = target / "model.safetensors"
    if kind == "pickled weights":
        weights.unlink()
        (target / "pytorch_model.bin").write_bytes(b"")
        return str(target), "has no safetensors"
    if kind == "broken weights":
        weights.write_bytes(b"not a model")
    elif kind == "missing weights":
        tensors = load_file(weights)
        del tensors["model.layers.1.mlp.up_proj.weight"]
        save_file(tensors, weights, metadata={"format": "pt"})
    elif kind == "broken config":
        (target / "config.json").write_text("{")
    elif kind == "unknown architecture":
        (target / "config.json").write_text('{"model_type": "no-such-model"}')
    elif kind == "remote code":
        auto_map = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
        (target / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": auto_map}))
        (target / "evil.py").write_text("raise SystemExit('remote code ran')")
    elif kind == "broken prompt file":
        (target / "crimson_prompt.json").write_text('{"style": "haiku"}')
        return str(target), "crimson_prompt.json cannot be read"
    elif kind == "no chat template":
        (target / "chat_template.jinja").unlink()
        return str(target), "model has no chat template"
    return str(target), "model cannot be loaded: "


@pytest.mark.parametrize(
    "kind",
    [
        "empty folder",
        "missing folder",
        "missing base",
        "pickled adapter",
        "pickled weights",
        "broken weights",
        "missing weights",
        "broken config",
        "unknown architecture",
        "remote code",
        "broken prompt file",
        "no chat template",
    ],
)
def test_what_is_no_model_is_one_clear_error(tiny_folder, adapter, tmp_path, kind):
    model, message = spoiled(kind, tiny_folder, adapter, tmp_path / "model")
    with redirect_stderr(io.StringIO()), pytest.raises(JudgeError, match=message) as caught:
        hf_judge(model, constrained=False)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_two_revisions():
    with pytest.raises(InputError, match="revision is 'v2'. Give one revision"):
        hf_judge("someone/model@v1", revision="v2")
    with pytest.raises(InputError, match="Give one revision"):
        hf_judge("someone/model@")
