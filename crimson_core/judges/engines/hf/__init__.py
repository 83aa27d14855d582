"""The hf judge: a causal language model in the Transformers format, run on this machine."""

from crimson_core.judges.engines.hf.engine import missing

try:
    from crimson_core.judges.engines.hf.judge import HFJudge
except ImportError as error:
    raise missing(error.name or str(error)) from None

__all__ = ["HFJudge"]
