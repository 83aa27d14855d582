"""What has to be seen on a GPU, in parts of some minutes each: `python -m benchmarks.gpu.correct`, `.fast` and `.train`."""
