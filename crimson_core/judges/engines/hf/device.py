"""The devices of this machine: which exist, how much memory they have, and why one cannot be used."""

import os
import warnings

import psutil
import torch

from crimson_core.errors import InputError, JudgeError, first_line

_NO_GPU = ("no nvidia driver", "no cuda gpus", "no cuda-capable device")  # no GPU, or one that is hidden on purpose
_FOR_WEIGHTS = 0.8  # of a device's free memory; the rest is for caches and passes
_GPU_FILES = ("/proc/driver/nvidia/version", "/dev/nvidia0")


def chosen_device(device: str | None) -> torch.device | None:
    """The device with this name; None stays None, which means the accelerators if there are any, else the CPU.

    Raises:
        InputError: This machine has no such device.
        JudgeError: It has a GPU that torch cannot use, and no other device was asked for.
    """
    if device is None:
        if trouble := _trouble():
            raise JudgeError(f"{trouble} Or give device='cpu'.")
        return None
    known = ["cpu"]
    if torch.accelerator.is_available() and (accelerator := torch.accelerator.current_accelerator()):
        kind = accelerator.type
        known += [kind, *(f"{kind}:{n}" for n in range(torch.accelerator.device_count()))]
    if device not in known:
        why = _trouble() or "Leave it out to take the best."
        raise InputError(f"device is {device!r}. This machine has {', '.join(known)}. {why}")
    return torch.device(device)


def check_fits(name: str, size: int, dtype: torch.dtype, device: torch.device | None) -> None:
    """Check before loading that weights of `size` bytes fit into the free memory.

    If the device is None, that is the memory of all accelerators together, or else of the CPU.

    Raises:
        JudgeError: They do not fit.
    """
    if device is None and torch.cuda.is_available():
        devices = [torch.device("cuda", n) for n in range(torch.cuda.device_count())]
    else:
        devices = [device or torch.device("cpu")]
    free = sum(map(free_memory, devices))
    if size > free:
        kind = str(dtype).removeprefix("torch.")
        smaller = " dtype='bfloat16' takes half of it;" if dtype == torch.float32 else ""
        raise JudgeError(
            f"{name} takes {size / 1e9:.1f} GB in {kind}, and {' and '.join(map(str, devices))} "
            f"{'have' if len(devices) > 1 else 'has'} {free / 1e9:.1f} GB free.{smaller} end what else uses the memory, or give another device or a smaller model."
        )


def roomiest_device(size: int) -> torch.device | None:
    """The CUDA device with the most free memory, if weights of so many bytes leave some of it for caches; else None."""
    if not torch.cuda.is_available():
        return None
    free = {n: free_memory(torch.device("cuda", n)) for n in range(torch.cuda.device_count())}
    best = max(free, key=lambda n: (free[n], -n))
    return torch.device("cuda", best) if size <= free[best] * _FOR_WEIGHTS else None


def free_memory(device: torch.device) -> int:
    """Free memory in bytes; memory that torch has reserved and does not use counts as free."""
    if device.type != "cuda":
        return psutil.virtual_memory().available
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory has run out. The allocators of the CPU and of Apple raise plain RuntimeErrors."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(
        words in str(error) for words in ("DefaultCPUAllocator", "out of memory")
    )


def _trouble() -> str | None:
    """Why torch cannot use an NVIDIA GPU of this machine; None if it can, or if there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of the same
        if torch.accelerator.is_available():
            return None
    if torch.version.cuda is None:
        if any(map(os.path.exists, _GPU_FILES)) and torch.version.hip is None:
            warnings.warn(
                "This machine has an NVIDIA GPU, and the torch that is installed is a build without CUDA: models run on "
                "the CPU. Install a build of torch for CUDA to use the GPU.",
                stacklevel=4,
            )
        return None
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        reason = first_line(error)
        if not any(words in reason.lower() for words in _NO_GPU):
            return (
                f"The GPU cannot be used: {reason}. Update the NVIDIA driver (`nvidia-smi` shows its version), or install a "
                f"torch that is built for it; this one is built for CUDA {torch.version.cuda}."
            )
    return None
