"""What the hf and vllm engines share: checkpoints, chat encoding and the grammar of outputs."""
