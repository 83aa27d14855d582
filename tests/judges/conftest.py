"""What tests of judges share."""

import pytest
from models import byte_tokenizer


@pytest.fixture(autouse=True)
def _no_api(monkeypatch):
    """No key and no address of an API from outside."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "AZURE_OPENAI_API_KEY", "AZURE_OPENAI_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("OPENAI_API_VERSION", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def one_thread():
    """One thread for tiny models: on a busy machine, threads that wait for each other take twenty times as long."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def _tiny_judge(tiny_folder):
    from hf_models import tight_judge

    return tight_judge(tiny_folder)


@pytest.fixture
def tiny_judge(_tiny_judge):
    _tiny_judge.engine.batch_size = 4
    return _tiny_judge


@pytest.fixture
def plain_judge(tiny_folder):
    """With `generate`; what is the same with drafts is in test_drafts.py."""
    from hf_models import tight_judge

    return tight_judge(tiny_folder, decoding="plain", batch_size=4)


@pytest.fixture(scope="session")
def adapter(tiny_folder, tmp_path_factory):
    """A random LoRA adapter of the tiny model, and the model that it makes when merged by peft itself."""
    import peft
    import torch
    import transformers

    folder, merged = (tmp_path_factory.mktemp("lora") / name for name in ("adapter", "merged"))
    base = transformers.AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)
    torch.manual_seed(1)
    config = peft.LoraConfig(
        r=4, lora_alpha=64, init_lora_weights=False, target_modules=["q_proj", "v_proj", "up_proj"]
    )
    model = peft.get_peft_model(base, config)
    model.save_pretrained(folder)
    model.merge_and_unload().save_pretrained(merged)
    byte_tokenizer().save_pretrained(merged)
    for target in (folder, merged):
        (target / "crimson_prompt.json").write_text('{"style": "compact"}', encoding="utf-8")
    return folder, merged
