"""Shared by the hf and vllm engines: checkpoints, chat encoding and the grammar of outputs."""
