"""Packed passes are tried against the model's own before the first pair, and faults of a device are found."""

import pytest
import torch
from hf_models import PAIRS, texts, tight_judge
from test_drafts import model_of

from crimson_core.errors import JudgeError
from crimson_core.judges.engines import hf
from crimson_core.judges.engines.hf import cache, packed
from crimson_core.judges.engines.hf.proof import LEAST, Proof

pytestmark = pytest.mark.usefixtures("one_thread")


def agreement(model):
    passes = packed.PackedModel(model)
    return Proof(model, passes).agreement(passes)


@pytest.mark.parametrize("kind", ["gemma", "llama", "mistral", "qwen3"])
def test_packed_passes_agree_with_the_models_own(kind):
    model = model_of(kind)
    assert agreement(model) == 1
    assert agreement(model.to(torch.bfloat16)) > LEAST + 0.2


def other_slots(monkeypatch):
    attend = packed._attend_in_turns
    monkeypatch.setattr(
        packed,
        "_attend_in_turns",
        lambda now, place, query, keys, values, scale: attend(now, place, query, keys.roll(1, 0), values, scale),
    )


def no_window(monkeypatch):
    mask = packed._Pass.mask
    monkeypatch.setattr(packed._Pass, "mask", lambda self, row, low, window, like: mask(self, row, low, None, like))


def guesses_seen(monkeypatch):
    mask = packed._Pass.mask

    def all_seen(self, *asked):
        hidden = mask(self, *asked)
        few = hidden is not None and hidden.shape[0] < 30
        return hidden.zero_() if few else hidden

    monkeypatch.setattr(packed._Pass, "mask", all_seen)


def nothing_copied(monkeypatch):
    """What lay there before stays."""

    def copy_start(self, row, other, length):
        row.length = length
        for arena, stretch in zip(self.arenas, row.stretches, strict=True):
            arena.store[:, :, stretch.start : stretch.start + length] = 9

    monkeypatch.setattr(cache.Cache, "copy_start", copy_start)


@pytest.fixture(params=[other_slots, no_window, guesses_seen, nothing_copied], ids=lambda fault: fault.__name__)
def fault(request, monkeypatch):
    request.param(monkeypatch)


def test_faults_are_found(fault):
    assert agreement(model_of("gemma")) < LEAST - 0.2


@pytest.fixture
def elsewhere(monkeypatch):
    """As on a device on which the tests were not run."""
    monkeypatch.setattr(hf.judge, "needs_proof", lambda _: True)


def test_a_device_with_a_fault_decodes_plainly_and_says_so(tiny_folder, elsewhere, monkeypatch):
    assert "plain" not in tight_judge(tiny_folder).signature()["decoding"]
    pairs = PAIRS[:2]
    expected = texts(tight_judge(tiny_folder, decoding="plain"), pairs)
    monkeypatch.setattr(Proof, "agreement", lambda *_: 0.25)  # the tiny model hardly looks back
    with pytest.warns(UserWarning, match=r"do not agree with the model's own passes \(25% of .* decoded plainly"):
        judge = tight_judge(tiny_folder)
    assert judge.signature()["decoding"].endswith(",plain") and texts(judge, pairs) == expected
    with pytest.raises(JudgeError, match="Leave decoding out"):
        tight_judge(tiny_folder, decoding="drafts")


def test_a_kernel_that_breaks_is_a_fault(tiny_folder, elsewhere, monkeypatch):
    def broken(*_):
        raise RuntimeError("no kernel image is available\nfor this device")

    monkeypatch.setattr(packed, "_attend_in_turns", broken)
    with pytest.warns(UserWarning, match=r"\(no kernel image is available\)"):
        assert tight_judge(tiny_folder).signature()["decoding"].endswith(",plain")
