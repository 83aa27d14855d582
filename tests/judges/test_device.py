"""What is said about GPUs that are not there, cannot be used, or are too small. None is at hand: torch's answers are made up."""

import pytest
import torch

from crimson_core import InputError, JudgeError, load_judge
from crimson_core.judges.engines.hf import device
from crimson_core.judges.engines.hf.device import chosen_device, is_out_of_memory


@pytest.fixture
def cuda_says(monkeypatch):
    """A torch for CUDA that finds no device to work with, for a reason."""

    def say(reason, error=RuntimeError):
        def init():
            raise error(reason)

        monkeypatch.setattr(torch.version, "cuda", "13.0")
        monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
        monkeypatch.setattr(torch.cuda, "init", init)

    return say


@pytest.mark.parametrize(
    "reason",
    [
        "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver.",
        "CUDA unknown error - this may be due to an incorrectly set up environment",
    ],
)
def test_a_gpu_that_cannot_be_used_is_no_silent_change_to_the_cpu(cuda_says, tiny_folder, reason):
    cuda_says(reason)
    with pytest.raises(JudgeError, match="The GPU cannot be used: .*nvidia-smi.*CUDA 13.0. Or give device='cpu'"):
        load_judge(f"hf:{tiny_folder}")
    with pytest.raises(InputError, match=r"device is 'cuda'. This machine has cpu. The GPU cannot be used: "):
        load_judge(f"hf:{tiny_folder}", device="cuda")
    assert load_judge(f"hf:{tiny_folder}", device="cpu", constrained=False)


@pytest.mark.parametrize(
    ("reason", "error"),
    [
        ("Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU.", RuntimeError),
        ("No CUDA GPUs are available", RuntimeError),
        ("Torch not compiled with CUDA; no NVIDIA driver", AssertionError),
    ],
)
def test_without_a_gpu_the_cpu_is_taken(cuda_says, reason, error):
    cuda_says(reason, error)
    assert chosen_device(None) is None
    with pytest.raises(InputError, match=r"device is 'cuda'. This machine has cpu. Leave it out"):
        chosen_device("cuda")


def test_a_gpu_beside_a_torch_without_cuda_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(device, "_GPU_FILES", (str(tmp_path),))
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.warns(UserWarning, match="a build without CUDA: models run on the CPU"):
        assert chosen_device(None) is None


def test_a_model_that_is_too_large_is_refused_before_it_is_loaded(tiny_folder, monkeypatch):
    monkeypatch.setattr(device, "free_memory", lambda _: 1000)
    with pytest.raises(JudgeError, match=r"model takes 0.0 GB in float32, and cpu has 0.0 GB free. dtype='bfloat16'"):
        load_judge(f"hf:{tiny_folder}", dtype="float32")


def test_one_gpu_is_taken_where_the_model_fits_and_all_where_not(monkeypatch):
    free = {0: 10e9, 1: 40e9, 2: 40e9}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(free))
    monkeypatch.setattr(device, "free_memory", lambda one: free[one.index])
    assert device.roomiest_device(8 * 10**9) == torch.device("cuda", 1)
    assert device.roomiest_device(39 * 10**9) is None, "spread over all, which hold 90 GB"
    device.check_fits("m", 80 * 10**9, torch.bfloat16, None)
    with pytest.raises(JudgeError, match="m takes 95.0 GB in bfloat16, and cuda:0 and cuda:1 and cuda:2 have 90.0 GB"):
        device.check_fits("m", 95 * 10**9, torch.bfloat16, None)


def test_which_errors_are_lack_of_memory():
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    assert not is_out_of_memory(RuntimeError("device-side assert"))
