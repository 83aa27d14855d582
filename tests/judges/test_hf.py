"""The hf judge: on real Gemma 3 270M weights where the contract is about models, on tiny random ones elsewhere."""

import functools
import io
import json
import shutil
import subprocess
import sys
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace

import peft
import pytest
import torch
import transformers
from huggingface_hub import errors as hub_errors
from models import CHATML_TEMPLATE, byte_tokenizer, metaspace_tokenizer, variant
from safetensors.torch import load_file, save_file

from benchmarks.forged import FORGED
from crimson_core import CrimsonScorer, InputError, Judge, JudgeError, PatientContext, ReportPair, load_judge
from crimson_core.install import install_command
from crimson_core.judges.engines import hf
from crimson_core.judges.engines.hf import HFJudge
from crimson_core.judges.engines.hf.checkpoint import find_checkpoint
from crimson_core.judges.engines.hf.encoding import ChatEncoder
from crimson_core.judges.engines.hf.grammar import evaluation_grammar
from crimson_core.protocol.evaluation import evaluation_schema, parse_evaluation
from crimson_core.protocol.prompt import PUBLISHED_MODEL, Prompt
from training.card import RECORD_FILE

PAIRS = [
    ReportPair(
        "Small left pleural effusion.", "Moderate right pleural effusion.", PatientContext("65", "F", "dyspnea")
    ),
    ReportPair("No acute cardiopulmonary abnormality.", "Heart size is normal. Lungs are clear."),
    ReportPair("Right lower lobe pneumonia. Mild cardiomegaly.", "Opacity at the right base.", PatientContext("071Y")),
    ReportPair("", "5 mm nodule in the left upper lobe."),
    ReportPair("Large right pneumothorax with mediastinal shift to the left.\nNo effusion.", "Normal chest."),
    ReportPair("Endotracheal tube 4 cm above the carina.", "Endotracheal tube in the right main bronchus."),
    ReportPair("Bibasilar atelectasis.  Old rib fractures on the left.", 'Bibasilar atelectasis; "old" fractures.'),
    ReportPair("Interstitial edema with Kerley B lines, worse than before.", ""),
    ReportPair(
        "Hiatal hernia. Degenerative changes of the spine.", "Hiatal hernia. Normal spine. Aortic calcification."
    ),
]
GREEDY = {"bos_token_id": 2, "eos_token_id": [1, 106], "pad_token_id": 0, "do_sample": False, "max_new_tokens": 24}
TIGHT = {"max_findings": 1, "max_text": 12}


def run(judge, pairs):
    """Judgements in the order of `pairs`, each index exactly once."""
    got = list(judge.judge(pairs))
    assert sorted(index for index, _ in got) == list(range(len(pairs)))
    return [judgement for _, judgement in sorted(got, key=lambda item: item[0])]


def texts(judge, pairs):
    return [judgement.raw_output for judgement in run(judge, pairs)]


@pytest.fixture(autouse=True)
def _threads(request):
    """One thread for tiny models: on a busy machine, threads that wait for each other take twenty times as long."""
    threads = torch.get_num_threads()
    if not {"free_judge", "strict_judge"} & set(request.fixturenames):
        torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# --- Real weights: generation -------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def free_judge(gemma_folder, tmp_path_factory):
    """Unconstrained, the reference prompt as the published model gets it. In float32: few CPUs have units for bf16."""
    folder = variant(gemma_folder, tmp_path_factory.mktemp("free") / "gemma-free", generation=GREEDY)
    return HFJudge(str(folder), constrained=False, guidelines=False, dtype="float32"), folder


@pytest.fixture(scope="session")
def strict_judge(gemma_folder, tmp_path_factory):
    """Constrained, the compact prompt, which is quicker."""
    folder = tmp_path_factory.mktemp("strict") / "gemma-strict"
    variant(gemma_folder, folder, prompt={"style": "compact"})
    return HFJudge(str(folder), dtype="float32", max_new_tokens=600, **TIGHT)


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
    judge.batch_size = 2
    assert texts(judge, pairs) == expected
    assert all(expected)


def test_cut_output_is_a_failure_that_keeps_its_text(free_judge):
    judge, _ = free_judge
    judge.batch_size = 1
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


# --- Tokenising: report text is data ------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def encoders(gemma_folder):
    tokenizers = {
        "gemma": transformers.AutoTokenizer.from_pretrained(gemma_folder),
        "bytes": byte_tokenizer(),
        "metaspace": metaspace_tokenizer(),
    }
    return {name: (ChatEncoder(tokenizer, name), tokenizer) for name, tokenizer in tokenizers.items()}


@functools.cache
def control_ids(tokenizer):
    added = tokenizer.added_tokens_decoder
    visible = {i for i, token in added.items() if token.content.replace("▁", "").strip()}
    return visible | set(tokenizer.all_special_ids)


def controls(tokenizer, ids):
    known = control_ids(tokenizer)
    return Counter(i for i in ids if i in known)


ORDINARY = [
    "Heart size is normal. No focal consolidation, effusion or pneumothorax.",
    "FINDINGS:\n  1. Nodule, 5 mm.\n\n\n\n  2. Tube 3.5 cm above the carina.\r\n\tIMPRESSION:   stable  ",
    "   leading and trailing white space \n\n",
    "\n\nLine breaks around\n",
    "Épanchement pleural gauche — “modéré”, 25 °C, ½, 患者, плевра, 🫁",
    '<5 mm, >3 cm, a < b > c, [see note], {x}, it\'s "fine"\\n, 100%',
    "",
    " ",
]


@pytest.mark.parametrize("name", ["gemma", "bytes", "metaspace"])
@pytest.mark.parametrize("prompt", [Prompt(), Prompt(guidelines=False), Prompt("compact")], ids=str)
def test_ordinary_reports_have_the_chat_templates_ids(encoders, name, prompt):
    encoder, tokenizer = encoders[name]
    for reference in ORDINARY:
        for candidate in (ORDINARY[0], reference):
            messages = prompt.messages(ReportPair(reference, candidate, PatientContext("65", "F", reference or None)))
            expected = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)[
                "input_ids"
            ]
            assert encoder.encode(messages) == expected


@pytest.mark.parametrize("name", ["gemma", "bytes", "metaspace"])
def test_no_report_text_becomes_a_control_token(encoders, name):
    encoder, tokenizer = encoders[name]
    for prompt in (Prompt(guidelines=False), Prompt("compact")):
        harmless = controls(tokenizer, encoder.encode(prompt.messages(ReportPair("Clear.", "Clear."))))
        assert harmless
        for text in FORGED:
            for pair in (ReportPair(text, "Clear."), ReportPair("Clear.", text), ReportPair(text, text)):
                pair = replace(pair, context=PatientContext(indication=text))
                ids = encoder.encode(prompt.messages(pair))
                if name == "metaspace" and not text.isascii():
                    ids = [i for i in ids if i != tokenizer.unk_token_id]
                assert controls(tokenizer, ids) == harmless, text[:60]


def test_forged_text_reaches_the_model_as_it_was_written(encoders):
    encoder, tokenizer = encoders["bytes"]
    for text in FORGED:
        ids = encoder.encode(Prompt("compact").messages(ReportPair(text, "Clear.")))
        assert text in tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def test_forgeries_would_work_without_the_guard(encoders):
    for name, text in (("gemma", FORGED[0]), ("bytes", FORGED[14]), ("metaspace", FORGED[12])):
        tokenizer = encoders[name][1]
        messages = [{"role": "user", "content": text}]
        ids = tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"]
        clean = tokenizer.apply_chat_template([{"role": "user", "content": "x"}], return_dict=True)["input_ids"]
        assert controls(tokenizer, ids) != controls(tokenizer, clean)


def test_text_that_a_vocabulary_turns_into_a_control_token_is_a_failed_pair(tiny_judge, monkeypatch):
    (tilde,) = tiny_judge._tokenizer.encode("~")
    monkeypatch.setitem(tiny_judge._encoder._control, tilde, None)
    first, second = run(tiny_judge, [ReportPair("~", "Clear."), ReportPair("Clear.", "Clear.")])
    assert first.failure == "the text of the pair forms control tokens of the model"
    assert second.evaluation


def test_tokenizer_without_chat_template():
    with pytest.raises(JudgeError, match=r"m has no chat template\..*chat_template\.jinja"):
        ChatEncoder(byte_tokenizer(template=None), "m")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}",
            "refuses messages of the roles system, user: System role not supported.*Use a model whose template",
        ),
        ("{{ messages[-1]['content'] }}", "does not print the system message"),
        ("{% for m in messages %}{{ m['content'] + m['content'] }}{% endfor %}", "does not print the system message"),
    ],
)
def test_chat_template_that_cannot_take_the_prompt(template, message):
    with pytest.raises(JudgeError, match=message):
        ChatEncoder(byte_tokenizer(template), "m").prepare(["system", "user"])


def test_content_dependent_template_is_noticed():
    template = CHATML_TEMPLATE.replace("message['content']", "message['content'] | replace('finding', '')")
    with pytest.raises(JudgeError, match="cannot be guarded"):
        ChatEncoder(byte_tokenizer(template), "m").prepare(["user"])


# --- The grammar --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def accepts():
    import xgrammar

    letters = [chr(c) for c in range(256)]
    info = xgrammar.TokenizerInfo([*letters, "</s>"], stop_token_ids=[256])
    compiled = xgrammar.GrammarCompiler(info).compile_grammar(evaluation_grammar(evaluation_schema(3, 20)))

    def check(text):
        matcher = xgrammar.GrammarMatcher(compiled)
        return matcher.accept_string(text) and matcher.accept_token(256)

    return check


def example(text="nodule", count=2, **changes):
    ids = range(1, count + 1)
    return {
        "reference_findings": [{"id": f"R{i}", "finding": text, "clinical_significance": "urgent"} for i in ids],
        "predicted_findings": [{"id": "P10", "finding": "", "clinical_significance": "benign_expected"}],
        "matched_findings": [{"ref_id": "R1", "pred_id": "P10"}],
        "errors": {
            "false_findings": [],
            "missing_findings": ["R2"],
            "attribute_errors": [
                {
                    "ref_id": "R1",
                    "pred_id": "P10",
                    "severity": "negligible",
                    "error_types": ["location", "temporal"],
                    "explanation": text,
                }
            ],
        },
    } | changes


@pytest.mark.parametrize(
    "layout", [{}, {"indent": 2}, {"indent": 4}, {"separators": (",", ":")}, {"ensure_ascii": False}]
)
@pytest.mark.parametrize("text", ["nodule", "", 'a "quoted" 5\' nodule', "line\nbreak\\", "é “–” 肺", "x" * 20])
def test_grammar_takes_what_a_trained_model_may_write(accepts, text, layout):
    output = json.dumps(example(text), **layout)
    assert accepts(output)
    assert parse_evaluation(output)[1] == []


@pytest.mark.parametrize(
    "output",
    [
        json.dumps(example("x" * 21)),
        json.dumps(example(count=4)),
        json.dumps(example(other=1)),
        json.dumps(example(matched_findings=[{"ref_id": "P1", "pred_id": "P2"}])),
        json.dumps(example(matched_findings=[{"ref_id": "R0", "pred_id": "P2"}])),
        json.dumps({"reference_findings": []}),
        json.dumps(example()) + " {}",
        json.dumps(example()) + "\n",
        "Sure: " + json.dumps(example()),
        json.dumps(example("a")).replace('"a"', '"a\tb"'),
        json.dumps(example("a")).replace('"a"', '"\\x"'),
        json.dumps(example("\n" * 9)),
        "{" + " " * 25 + json.dumps(example())[1:],
        json.dumps(example())[:-1],
    ],
)
def test_grammar_refuses_the_rest(accepts, output):
    assert not accepts(output)


# --- The tiny model: batches, limits, failures --------------------------------------------------------------------


def tight_judge(folder, **options):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hf.grammar, "_MAX_WHITESPACE", 1)  # a random model loves white space
        return HFJudge(str(folder), dtype="float32", max_new_tokens=600, **TIGHT, **options)


@pytest.fixture(scope="session")
def _tiny_judge(tiny_folder):
    return tight_judge(tiny_folder)


@pytest.fixture
def tiny_judge(_tiny_judge):
    _tiny_judge.batch_size = 4
    return _tiny_judge


@pytest.fixture
def plain_judge(tiny_folder):
    """With `generate`; what is the same with drafts is in test_drafts.py."""
    return tight_judge(tiny_folder, decoding="plain", batch_size=4)


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
        tiny_judge.batch_size = batch_size
        assert run(tiny_judge, PAIRS[::-1]) == expected[::-1]
    assert run(tiny_judge, PAIRS[2:5]) == expected[2:5]


def test_batches_are_halved_when_memory_runs_out_and_stay_so(plain_judge, monkeypatch):
    expected = texts(plain_judge, PAIRS)
    generate, sizes = plain_judge._model.generate, []

    def small_memory(input_ids, **options):
        sizes.append(len(input_ids))
        if len(input_ids) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return generate(input_ids=input_ids, **options)

    monkeypatch.setattr(plain_judge._model, "generate", small_memory)
    plain_judge.batch_size = 8
    assert texts(plain_judge, PAIRS) == expected
    assert sizes == [8, 4, 2, 2, 2, 2, 1]
    assert plain_judge.batch_size == 2


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
    generate = plain_judge._model.generate

    def no_long_prompts(input_ids, **options):
        if input_ids.shape[1] > 1000:
            raise error
        return generate(input_ids=input_ids, **options)

    monkeypatch.setattr(plain_judge._model, "generate", no_long_prompts)
    first, second, third = run(plain_judge, [PAIRS[0], ReportPair("effusion " * 100, ""), PAIRS[1]])
    assert second.failure.startswith("out of memory on a prompt of ")
    assert second.evaluation is None
    assert first.evaluation and third.evaluation
    assert plain_judge.batch_size == 1


def test_other_errors_of_the_engine_are_not_taken_for_lack_of_memory(plain_judge, monkeypatch):
    def broken(**_):
        raise RuntimeError("device-side assert")

    monkeypatch.setattr(plain_judge._model, "generate", broken)
    with pytest.raises(RuntimeError, match="device-side assert"):
        list(plain_judge.judge(PAIRS))


def test_too_long_a_prompt_is_a_failure_with_numbers(tiny_judge):
    tiny_judge.batch_size = 2
    pairs = [PAIRS[0], ReportPair("x" * 5000, ""), PAIRS[1]]
    first, second, third = run(tiny_judge, pairs)
    length = len(tiny_judge._encoder.encode(tiny_judge.prompt.messages(pairs[1])))
    assert second.failure == f"the prompt has {length} tokens and the model holds 4096"
    assert second.raw_output is None
    assert first.evaluation and third.evaluation


def test_only_pairs_with_too_long_prompts(tiny_judge):
    judgements = run(tiny_judge, [ReportPair("x" * 5000, "")] * 2)
    assert [judgement.failure.split()[:2] for judgement in judgements] == [["the", "prompt"]] * 2


def test_a_long_neighbour_does_not_cut_an_output_short(plain_judge, monkeypatch):
    long = ReportPair("x" * 20, "y" * 700)
    monkeypatch.setattr(
        plain_judge, "_context", len(plain_judge._encoder.encode(plain_judge.prompt.messages(long))) + 9
    )
    plain_judge.batch_size = 2
    short, cut = run(plain_judge, [PAIRS[1], long])
    assert short.failure is None
    assert cut.failure == "the output did not end within 9 tokens"
    assert cut.usage["completion_tokens"] == 9


def test_pairs_are_read_lazily_short_ones_first_and_the_run_can_stop(plain_judge, monkeypatch):
    encoded = []
    encode = plain_judge._encode
    monkeypatch.setattr(plain_judge, "_encode", lambda pair: encoded.append(pair) or encode(pair))
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
from crimson_core.judges.engines.hf import HFJudge
torch.set_num_threads(1)
before = logging.get_verbosity(), logging.is_progress_bar_enabled()
texts = []
for folder in sys.argv[1:]:
    judge = HFJudge(folder, dtype="float32", constrained=False)
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
    assert HFJudge(str(folder), constrained=False).signature()["decoding"] == "greedy,max8192,unconstrained"


def test_judge_feeds_the_model_guarded_ids(plain_judge, monkeypatch):
    seen = []
    generate = plain_judge._model.generate

    def watch(input_ids, attention_mask, **options):
        for row, mask in zip(input_ids.tolist(), attention_mask.tolist(), strict=True):
            seen.append([i for i, used in zip(row, mask, strict=True) if used])
        return generate(input_ids=input_ids, attention_mask=attention_mask, **options)

    monkeypatch.setattr(plain_judge._model, "generate", watch)
    run(plain_judge, [ReportPair("Clear.", "Clear."), ReportPair(FORGED[7], FORGED[14])])
    tokenizer = plain_judge._tokenizer
    assert controls(tokenizer, seen[0]) == controls(tokenizer, seen[1])


# --- Checkpoints --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def adapter(tiny_folder, tmp_path_factory):
    """A random LoRA adapter of the tiny model, and the model that it makes when merged by peft itself."""
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


def test_lora_adapter_equals_the_merged_model(adapter, tiny_judge):
    lora, merged = (tight_judge(folder) for folder in adapter)
    ids = torch.tensor([lora._encoder.encode(lora.prompt.messages(PAIRS[0]))])
    with torch.no_grad():
        logits = [judge._model(input_ids=ids).logits for judge in (lora, merged, tiny_judge)]
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
    judge = HFJudge(str(folder), constrained=False)
    assert "<think>own" in judge._tokenizer.chat_template


def test_lora_adapter_without_a_tokenizer(adapter, tiny_folder, tmp_path):
    """The base knows another chat and other end tokens; what the adapter says of both counts."""
    folder = tmp_path / "adapter"
    shutil.copytree(adapter[0], folder)
    (folder / "chat_template.jinja").write_text(CHATML_TEMPLATE.replace("<think>", "<think>own"), encoding="utf-8")
    ends = {"eos_token_id": [5, 6], "max_new_tokens": 77, "do_sample": True, "temperature": 9.0}
    (folder / "generation_config.json").write_text(json.dumps(ends), encoding="utf-8")
    base = variant(tiny_folder, tmp_path / "base", generation={"eos_token_id": 7, "pad_token_id": 8})
    (base / "chat_template.jinja").unlink()
    judge = HFJudge(str(folder), base=str(base), constrained=False)
    assert "<think>own" in judge._tokenizer.chat_template
    assert (judge._ends, judge._pad, judge._max_new_tokens) == ([5, 6], 8, 77)
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
        HFJudge(str(lost), base=str(adapter[0]), constrained=False)
    with pytest.raises(InputError, match="base is 'a/b', but model is a whole model"):
        HFJudge(str(tiny_folder), base="a/b", constrained=False)
    with pytest.raises(InputError, match="base is ''"):
        HFJudge(str(lost), base="", constrained=False)


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
        patch.setattr(hf.grammar, "_MAX_WHITESPACE", 1)
        judge = HFJudge.from_model(
            model, byte_tokenizer(), name="step 8", prompt=Prompt("compact"), max_new_tokens=600, **TIGHT
        )
    judge.batch_size = 4
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
    judge = HFJudge.from_model(
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
        HFJudge.from_model(model, byte_tokenizer(), name="m", prompt=Prompt("compact"), max_text=0)


def test_prompt_file_and_guidelines(tiny_folder, tmp_path):
    record = {"style": "reference", "guidelines": False}
    told = HFJudge(str(variant(tiny_folder, tmp_path / "told", prompt=record)), constrained=False, guidelines=True)
    assert told.signature()["prompt"].startswith("reference-without-guidelines,crimson-score-0.2.")
    folder = variant(tiny_folder, tmp_path / "untold")
    (folder / "crimson_prompt.json").unlink()
    assert HFJudge(str(folder), constrained=False).signature()["prompt"].startswith("reference,crimson-score-0.2.")
    untold = HFJudge(str(folder), constrained=False, guidelines=False)
    assert untold.signature()["prompt"].startswith("reference-without-guidelines,crimson-score-0.2.")
    untold.prompt = Prompt(guidelines=True)
    assert untold.signature()["prompt"].startswith("reference,crimson-score-0.2.")


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


def test_folder_digest_follows_the_weights(tiny_folder, tmp_path):
    def digest(folder):
        return hf.checkpoint.revision_of(find_checkpoint(str(folder)))

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
        hf.checkpoint, "snapshot_download", lambda name, **options: asked.append((name, options)) or str(folder)
    )
    judge = HFJudge("someone/some-model@v1.0", constrained=False)
    assert asked[0][0] == "someone/some-model"
    assert asked[0][1]["revision"] == "v1.0"
    assert judge.signature()["judge"] == "hf:someone/some-model"
    assert judge.signature()["revision"] == commit
    assert judge.signature()["prompt"] == "compact", "the repository's prompt file counts"
    HFJudge("someone/some-model", revision="main", constrained=False)
    assert asked[1][1]["revision"] == "main"
    published = HFJudge(PUBLISHED_MODEL, constrained=False)
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
        (hub_errors.RepositoryNotFoundError("", response=RESPONSE), "neither a folder here nor a model on the Hub"),
        (hub_errors.LocalEntryNotFoundError(""), "the Hub cannot be reached"),
        (hub_errors.OfflineModeIsEnabled(""), "the Hub cannot be reached"),
        (OSError(28, "No space left on device"), "cannot be downloaded: .*No space left"),
    ],
)
def test_hub_errors(monkeypatch, error, message):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(hf.checkpoint, "snapshot_download", fail)
    with pytest.raises(JudgeError, match=f"^someone/model .*{message}") as caught:
        HFJudge("someone/model", revision="v9")
    assert caught.value.__cause__ is None and caught.value.__suppress_context__ or caught.value.__context__ is None


def test_no_network(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(JudgeError, match="nobody/no-such-model is no folder here, the Hub cannot be reached"):
        HFJudge("nobody/no-such-model")


def spoiled(kind, tiny_folder, adapter, target):
    if kind == "empty folder":
        target.mkdir()
        return str(target), r"model is no model folder: it holds neither config\.json nor adapter_config\.json"
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
        return str(target), "holds no safetensors"
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
        HFJudge(model, constrained=False)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


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
        HFJudge(str(tiny_folder), **options)


def test_two_revisions():
    with pytest.raises(InputError, match="revision is 'v2'. Give one revision"):
        HFJudge("someone/model@v1", revision="v2")
    with pytest.raises(InputError, match="Give one revision"):
        HFJudge("someone/model@")


def test_bad_batch_size_set_later(tiny_judge):
    tiny_judge.batch_size = 0
    with pytest.raises(InputError, match="batch_size is 0"):
        list(tiny_judge.judge(PAIRS))


def test_device_and_dtype(tiny_folder):
    judge = HFJudge(str(tiny_folder), device="cpu", dtype="float16", constrained=False)
    assert judge._model.device.type == "cpu"
    assert judge._model.dtype == torch.float16
    assert HFJudge(str(tiny_folder), constrained=False)._model.dtype == torch.bfloat16


@pytest.mark.parametrize("module", ["xgrammar", "peft"])
def test_missing_package_is_named_before_anything_loads(tiny_folder, adapter, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(hf.judge, "load_model", lambda *_: pytest.fail("loaded"))
    folder = adapter[0] if module == "peft" else tiny_folder
    with pytest.raises(JudgeError, match=rf"needs {module}, which is not installed. Run: .*crimson-metric\[hf\] @ git"):
        HFJudge(str(folder), constrained=module == "xgrammar")


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
