"""The hf judge around a tiny random model: batches, limits, failures, options, models in memory."""

import subprocess
import sys

import peft
import pytest
import torch
import transformers
from hf_models import PAIRS, TIGHT, run, texts, tight_judge
from models import byte_tokenizer, variant

from crimson_core import CrimsonScorer, InputError, Judge, JudgeError, ReportPair
from crimson_core.install import install_command
from crimson_core.judges.engines import hf, local
from crimson_core.judges.engines.hf import hf_judge, judge_in_memory
from crimson_core.protocol.prompt import Prompt

pytestmark = pytest.mark.usefixtures("one_thread")


def test_is_a_judge_and_scores(tiny_judge):
    assert isinstance(tiny_judge, Judge)
    scorer = CrimsonScorer(tiny_judge)
    results = scorer.score(PAIRS)
    assert [result.failure for result in results] == [None] * len(PAIRS)
    assert scorer.signature.startswith("crimson|judge:hf:model|revision:sampled-")


def test_batch_size_and_order_do_not_matter(tiny_judge):
    expected = run(tiny_judge, PAIRS)
    assert len({judgement.raw_output for judgement in expected}) > len(PAIRS) // 2
    for batch_size in (1, 3, len(PAIRS)):
        tiny_judge.engine.batch_size = batch_size
        assert run(tiny_judge, PAIRS[::-1]) == expected[::-1]
    assert run(tiny_judge, PAIRS[2:5]) == expected[2:5]


def test_batches_are_halved_when_memory_runs_out_and_stay_so(plain_judge, monkeypatch):
    expected = texts(plain_judge, PAIRS)
    generate, sizes = plain_judge.engine.model.generate, []

    def small_memory(input_ids, **options):
        sizes.append(len(input_ids))
        if len(input_ids) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return generate(input_ids=input_ids, **options)

    monkeypatch.setattr(plain_judge.engine.model, "generate", small_memory)
    plain_judge.engine.batch_size = 8
    assert texts(plain_judge, PAIRS) == expected
    assert sizes == [8, 4, 2, 2, 2, 2, 1]
    assert plain_judge.engine.batch_size == 2


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("MPS backend out of memory"),
        MemoryError(),
    ],
)
def test_a_pair_that_does_not_fit_alone_fails_and_the_run_goes_on(plain_judge, monkeypatch, error):
    generate = plain_judge.engine.model.generate

    def no_long_prompts(input_ids, **options):
        if input_ids.shape[1] > 1000:
            raise error
        return generate(input_ids=input_ids, **options)

    monkeypatch.setattr(plain_judge.engine.model, "generate", no_long_prompts)
    first, second, third = run(plain_judge, [PAIRS[0], ReportPair("effusion " * 100, ""), PAIRS[1]])
    assert second.failure.startswith("out of memory on a prompt of ")
    assert second.evaluation is None
    assert first.evaluation and third.evaluation
    assert plain_judge.engine.batch_size == 1


def test_other_errors_of_the_engine_are_not_taken_for_lack_of_memory(plain_judge, monkeypatch):
    def broken(**_):
        raise RuntimeError("device-side assert")

    monkeypatch.setattr(plain_judge.engine.model, "generate", broken)
    with pytest.raises(RuntimeError, match="device-side assert"):
        list(plain_judge.judge(PAIRS))


def test_too_long_a_prompt_is_a_failure_with_numbers(tiny_judge):
    tiny_judge.engine.batch_size = 2
    pairs = [PAIRS[0], ReportPair("x" * 5000, ""), PAIRS[1]]
    first, second, third = run(tiny_judge, pairs)
    length = len(tiny_judge.engine.codec.encoder.encode(tiny_judge.prompt.messages(pairs[1])))
    assert second.failure == f"the prompt has {length} tokens, and the model's context holds 4096"
    assert second.raw_output is None
    assert first.evaluation and third.evaluation


def test_only_pairs_with_too_long_prompts(tiny_judge):
    judgements = run(tiny_judge, [ReportPair("x" * 5000, "")] * 2)
    assert [judgement.failure.split()[:2] for judgement in judgements] == [["the", "prompt"]] * 2


def test_a_long_neighbour_does_not_cut_an_output_short(plain_judge, monkeypatch):
    long = ReportPair("x" * 20, "y" * 700)
    monkeypatch.setattr(
        plain_judge.engine.codec,
        "context",
        len(plain_judge.engine.codec.encoder.encode(plain_judge.prompt.messages(long))) + 9,
    )
    plain_judge.engine.batch_size = 2
    short, cut = run(plain_judge, [PAIRS[1], long])
    assert short.failure is None
    assert cut.failure == "the output did not end within 9 tokens"
    assert cut.usage["completion_tokens"] == 9


def test_pairs_are_read_lazily_short_ones_first_and_the_run_can_stop(plain_judge, monkeypatch):
    encoded = []
    encode = plain_judge.engine.codec.encode
    monkeypatch.setattr(plain_judge.engine.codec, "encode", lambda said: encoded.append(said) or encode(said))
    pairs = [ReportPair("long " * n, "short") for n in range(200, 0, -1)]
    judgements = plain_judge.judge(pairs)
    assert [next(judgements)[0] for _ in range(4)] == [199, 198, 197, 196]
    judgements.close()
    assert len(encoded) == 4


def test_sampling_flags_of_a_checkpoint_change_nothing_and_no_word_reaches_the_terminal(tiny_folder, tmp_path):
    sampling = {"do_sample": True, "top_k": 3, "repetition_penalty": 9.0, "num_beams": 2}
    ignored = {"do_sample": False, "temperature": 0.1, "top_p": 0.5}  # what Transformers warns about
    ends = {"eos_token_id": byte_tokenizer().eos_token_id, "max_new_tokens": 100}
    folders = [
        variant(tiny_folder, tmp_path / str(n), generation=flags | ends)
        for n, flags in enumerate((sampling, ignored, {}))
    ]
    code = """
import json, sys, torch
from transformers.utils import logging
from crimson_core import ReportPair
from crimson_core.judges.engines.hf import hf_judge, judge_in_memory
torch.set_num_threads(1)
before = logging.get_verbosity(), logging.is_progress_bar_enabled()
texts = []
for folder in sys.argv[1:]:
    judge = hf_judge(folder, dtype="float32", constrained=False)
    assert judge.signature()["decoding"] == "greedy,max100,unconstrained"
    texts.append([judgement.raw_output for _, judgement in judge.judge([ReportPair("a", "b"), ReportPair("c", "")])])
assert before == (logging.get_verbosity(), logging.is_progress_bar_enabled()) == (logging.WARNING, True)
assert texts[0] == texts[1] == texts[2], "not greedy"
"""
    # A process of its own: Transformers' handler keeps the standard error that was there when it was imported.
    done = subprocess.run([sys.executable, "-c", code, *map(str, folders)], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_new_tokens_default_to_the_reference_implementations(tiny_folder, tmp_path):
    folder = variant(tiny_folder, tmp_path / "model")
    (folder / "generation_config.json").unlink()
    assert hf_judge(str(folder), constrained=False).signature()["decoding"] == "greedy,max8192,unconstrained"


# --- Models in memory ---------------------------------------------------------------------------------------------


def test_a_model_in_training_is_judged_as_it_stands_and_left_as_it_was(adapter, tiny_folder, tiny_judge):
    base = transformers.AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(base, adapter[0], is_trainable=True)
    model.train()
    model.get_base_model().model.layers[0].eval()
    model.generation_config.update(do_sample=True, temperature=50.0, repetition_penalty=9.0)
    model.config.use_cache = False
    model.gradient_checkpointing_enable()
    wishes, modes = model.generation_config, [module.training for module in model.modules()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local.grammar, "_MAX_WHITESPACE", 1)
        judge = judge_in_memory(
            model, byte_tokenizer(), name="step 8", prompt=Prompt("compact"), max_new_tokens=600, **TIGHT
        )
    judge.engine.batch_size = 4
    with torch.random.fork_rng():
        before = torch.random.get_rng_state()
        outputs = texts(judge, PAIRS[:4])
        assert torch.equal(torch.random.get_rng_state(), before)
    assert outputs == texts(tight_judge(adapter[0]), PAIRS[:4])
    assert model.generation_config is model.get_base_model().generation_config is wishes
    assert (wishes.do_sample, wishes.repetition_penalty) == (True, 9.0)
    assert [module.training for module in model.modules()] == modes
    assert all(p.requires_grad == ("lora_" in name) for name, p in model.named_parameters())
    assert judge.signature() == tiny_judge.signature() | {"judge": "hf:step 8", "revision": "in-memory"}

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.zero_()
    assert texts(judge, PAIRS[:4]) == texts(tiny_judge, PAIRS[:4]), "the weights of now count"


def test_a_model_in_memory_is_left_as_it_was_when_it_breaks(tiny_folder, monkeypatch):
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_folder).train()
    wishes = model.generation_config
    judge = judge_in_memory(
        model, byte_tokenizer(), name="m", prompt=Prompt("compact"), constrained=False, decoding="plain"
    )

    def broken(**_):
        assert not model.training and model.generation_config is not wishes
        raise RuntimeError("device-side assert")

    monkeypatch.setattr(model, "generate", broken)
    with pytest.raises(RuntimeError, match="device-side assert"):
        list(judge.judge(PAIRS))
    assert model.training and model.generation_config is wishes
    with pytest.raises(InputError, match="max_text is 0"):
        judge_in_memory(model, byte_tokenizer(), name="m", prompt=Prompt("compact"), max_text=0)


def test_signature(tiny_judge, tiny_folder):
    signature = tiny_judge.signature()
    assert list(signature) == [
        "judge", "revision", "prompt", "decoding", "dtype", "torch", "transformers", "xgrammar",
    ]  # fmt: skip
    assert signature["judge"] == "hf:model"
    assert signature["prompt"] == "compact"
    assert signature["decoding"] == "greedy,max600,xgrammar,findings1,text12"
    assert signature["dtype"] == "float32"
    assert not any(str(tiny_folder.parent) in value for value in signature.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int4"}, "dtype is 'int4'. Use one of bfloat16, float16, float32."),
        ({"device": "toaster"}, "device is 'toaster'. This machine has cpu"),
        ({"device": "meta"}, "device is 'meta'"),
        ({"device": "cpu:7"}, "device is 'cpu:7'"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": True}, "batch_size is True"),
        ({"max_new_tokens": -1}, "max_new_tokens is -1"),
        ({"max_findings": "many"}, "max_findings is 'many'"),
        ({"max_text": None}, "max_text is None"),
        ({"revision": "v1"}, "revision is 'v1', but .* is a folder"),
    ],
)
def test_bad_options(tiny_folder, options, message):
    with pytest.raises(InputError, match=message):
        hf_judge(str(tiny_folder), **options)


def test_bad_batch_size_set_later(tiny_judge):
    tiny_judge.engine.batch_size = 0
    with pytest.raises(InputError, match="batch_size is 0"):
        list(tiny_judge.judge(PAIRS))


def test_device_and_dtype(tiny_folder):
    judge = hf_judge(str(tiny_folder), device="cpu", dtype="float16", constrained=False)
    assert judge.engine.model.device.type == "cpu"
    assert judge.engine.model.dtype == torch.float16
    assert hf_judge(str(tiny_folder), constrained=False).engine.model.dtype == torch.bfloat16


@pytest.mark.parametrize("module", ["xgrammar", "peft"])
def test_missing_package_is_named_before_anything_loads(tiny_folder, adapter, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(hf.judge, "load_model", lambda *_: pytest.fail("loaded"))
    folder = adapter[0] if module == "peft" else tiny_folder
    with pytest.raises(JudgeError, match=rf"needs {module}, which is not installed. Run: .*crimson-metric\[hf\] @ git"):
        hf_judge(str(folder), constrained=module == "xgrammar")


@pytest.mark.parametrize("module", ["torch", "transformers"])
def test_missing_engine(module):
    code = f"""
import sys
sys.modules[{module!r}] = None
from crimson_core import JudgeError, load_judge
try:
    load_judge("hf:someone/model")
except JudgeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"The hf judge needs {module}, which is not installed. Run: {install_command('hf')}\n"
