"""The hf judge: a causal language model in the Transformers format, run on this machine."""

from crimson_core.judges.engines.hf.engine import HFEngine
from crimson_core.judges.engines.hf.judge import hf_judge, judge_in_memory

__all__ = ["HFEngine", "hf_judge", "judge_in_memory"]
