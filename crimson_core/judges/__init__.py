"""Judges by name. A judge spec is one string: `default`, or a prefix of `JUDGES`, a colon and a model name.

The offline judges need no model name; `offline+minilm:<folder>` takes its sentence encoder from a folder.
"""

import os
from importlib import import_module
from inspect import signature
from typing import Any, NamedTuple

from crimson_core.errors import InputError
from crimson_core.judges.base import Judge, Judgement
from crimson_core.prompt import PUBLISHED_MODEL

__all__ = ["JUDGES", "Judge", "JudgeSpec", "Judgement", "load_judge", "parse_spec"]

# Spec prefix -> module and class. Each module is imported when its judge is first built, so that nobody pays for
# an engine that is not used. A new judge is one file and one line here.
JUDGES = {
    "offline": "crimson_core.judges.offline:OfflineJudge",
    "offline+minilm": "crimson_core.judges.offline.minilm:MiniLMJudge",
    "hf": "crimson_core.judges.hf:HFJudge",
    "openai": "crimson_core.judges.openai:OpenAIJudge",
    "azure": "crimson_core.judges.openai:AzureJudge",
}

_HOW = (
    "Use default (the published model), offline, offline+minilm, hf:<Hub id or folder>, openai:<model> or azure:<deployment>; "
    "a bare Hub id or folder means hf."
)


class JudgeSpec(NamedTuple):
    """A parsed judge spec; `model` is None for a judge that has none."""

    prefix: str
    model: str | None


def parse_spec(spec: str) -> JudgeSpec:
    """Split a judge spec into its prefix and model.

    Raises:
        InputError: The spec names no judge.
    """
    if not isinstance(spec, str) or not spec.strip():
        raise InputError(f"judge is {spec!r}, which is no judge spec. {_HOW}")
    spec = spec.strip()
    if spec == "default":
        return JudgeSpec("hf", PUBLISHED_MODEL)
    prefix, colon, model = spec.partition(":")
    if prefix == "offline":
        if colon:
            raise InputError(f"judge {spec!r}: the offline judge takes no model. Use offline.")
        return JudgeSpec("offline", None)
    if spec == "offline+minilm":
        return JudgeSpec("offline+minilm", None)
    if prefix in JUDGES:
        if not model.strip():
            raise InputError(f"judge {spec!r} names no model. {_HOW}")
        return JudgeSpec(prefix, model.strip())
    if os.path.isdir(spec) or (not colon and spec.count("/") == 1):
        return JudgeSpec("hf", spec)
    raise InputError(f"judge {spec!r} is unknown. {_HOW}")


def load_judge(spec: str, **options: Any) -> Judge:
    """Build the judge that a spec names.

    Args:
        spec: A judge spec.
        **options: For the judge's constructor, for example `batch_size` of `HFJudge` or `concurrency` of `OpenAIJudge`.

    Raises:
        InputError: The spec names no judge, or the judge knows no such option.
        JudgeError: The judge cannot be loaded; it never falls back to another one.
    """
    prefix, model = parse_spec(spec)
    module, _, name = JUDGES[prefix].partition(":")
    judge = getattr(import_module(module), name)
    known = set(signature(judge).parameters) - {"model"}
    for option in options:
        if option not in known:
            listed = ", ".join(sorted(known)) or "none"
            raise InputError(f"judge {spec!r} knows no option {option!r}. Its options: {listed}.")
    return judge(**options) if model is None else judge(model, **options)
