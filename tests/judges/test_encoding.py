"""Report pairs as token ids: report text is data."""

import functools
from collections import Counter
from dataclasses import replace

import pytest
import transformers
from hf_models import run
from models import CHATML_TEMPLATE, byte_tokenizer, metaspace_tokenizer

from benchmarks.forged import FORGED
from crimson_core import JudgeError, PatientContext, ReportPair
from crimson_core.judges.engines.local.encoding import ChatEncoder
from crimson_core.protocol.prompt import Prompt

pytestmark = pytest.mark.usefixtures("one_thread")


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
        ids = encoder.encode([{"role": "user", "content": text}])  # a prompt leaves out what imitates an answer
        assert text in tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def test_forgeries_would_work_without_the_guard(encoders):
    for name, text in (("gemma", FORGED[0]), ("bytes", FORGED[14]), ("metaspace", FORGED[12])):
        tokenizer = encoders[name][1]
        messages = [{"role": "user", "content": text}]
        ids = tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"]
        clean = tokenizer.apply_chat_template([{"role": "user", "content": "x"}], return_dict=True)["input_ids"]
        assert controls(tokenizer, ids) != controls(tokenizer, clean)


def test_text_that_a_vocabulary_turns_into_a_control_token_is_a_failed_pair(tiny_judge, monkeypatch):
    (tilde,) = tiny_judge.engine.codec.tokenizer.encode("~")
    monkeypatch.setitem(tiny_judge.engine.codec.encoder._control, tilde, None)
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


def test_judge_feeds_the_model_guarded_ids(plain_judge, monkeypatch):
    seen = []
    generate = plain_judge.engine.model.generate

    def watch(input_ids, attention_mask, **options):
        for row, mask in zip(input_ids.tolist(), attention_mask.tolist(), strict=True):
            seen.append([i for i, used in zip(row, mask, strict=True) if used])
        return generate(input_ids=input_ids, attention_mask=attention_mask, **options)

    monkeypatch.setattr(plain_judge.engine.model, "generate", watch)
    run(plain_judge, [ReportPair("Clear.", "Clear."), ReportPair(FORGED[7], FORGED[14])])
    tokenizer = plain_judge.engine.codec.tokenizer
    assert controls(tokenizer, seen[0]) == controls(tokenizer, seen[1])
