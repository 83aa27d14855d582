"""Benchmarks that need a GPU, in parts of some minutes each: `python -m benchmarks.gpu.correct`, `.fast` and `.train`."""
