"""Judges by name. A judge spec is one string: `default`, or a prefix of `JUDGES`, a colon and a model name.

The offline judges take no model name. Options whose values are text may follow the model name:
`hf:<adapter>,base=<folder or Hub id>`.
"""

import os
import re
from importlib import import_module
from inspect import Parameter, signature
from typing import Any, NamedTuple, get_args

from crimson_core.errors import InputError, missing
from crimson_core.judges.base import Judge, Judgement
from crimson_core.protocol.prompt import PUBLISHED_MODEL

__all__ = ["JUDGES", "Judge", "JudgeSpec", "Judgement", "load_judge", "parse_spec"]

# Spec prefix -> module, and the name in it that builds the judge. A module is imported when its judge is first built,
# so that an unused engine costs nothing. A new judge, or an engine for `ModelJudge`, is one file and one line here.
JUDGES = {
    "offline": "crimson_core.judges.rules:OfflineJudge",
    "offline+minilm": "crimson_core.judges.rules.minilm:MiniLMJudge",
    "hf": "crimson_core.judges.engines.hf:hf_judge",
    "vllm": "crimson_core.judges.engines.vllm:vllm_judge",
    "openai": "crimson_core.judges.engines.openai:openai_judge",
    "azure": "crimson_core.judges.engines.openai:azure_judge",
}

_HOW = (
    "Use default (the published model), offline, offline+minilm, hf:<Hub id or folder>, vllm:<Hub id or folder>, "
    "openai:<model> or azure:<deployment>; a bare Hub id or folder means hf. Options may follow the model: "
    "hf:<adapter>,base=<folder or Hub id>."
)


class JudgeSpec(NamedTuple):
    """A parsed judge spec.

    Attributes:
        prefix: A key of `JUDGES`.
        model: Model name; None for a judge without one.
        options: Names and values of the options in the spec, in their order.
    """

    prefix: str
    model: str | None
    options: tuple[tuple[str, str], ...] = ()


def parse_spec(spec: str) -> JudgeSpec:
    """Split a judge spec into its prefix, model and options.

    Raises:
        InputError: The spec names no judge, or gives an option twice or without a value.
    """
    if not isinstance(spec, str) or not spec.strip():
        raise InputError(f"judge is {spec!r}, which is not a judge spec. {_HOW}")
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
        model, options = _split_options(model.strip())
        if not model:
            raise InputError(f"judge {spec!r} names no model. {_HOW}")
        return JudgeSpec(prefix, model, options)
    model, options = _split_options(spec)
    if os.path.isdir(model) or (":" not in model and model.count("/") == 1):
        return JudgeSpec("hf", model, options)
    raise InputError(f"judge {spec!r} is unknown. {_HOW}")


def _split_options(text: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """A model name and the options after it. The name of an existing folder may contain commas and equal signs."""
    parts = re.split(r",(?=\s*[A-Za-z]\w*\s*=)", text)
    names = range(len(parts), 0, -1)
    first = next((n for n in names if os.path.isdir(os.path.expanduser(",".join(parts[:n])))), 1)
    options: dict[str, str] = {}
    for part in parts[first:]:
        option, _, value = (word.strip() for word in part.partition("="))
        if option in options or not value:
            raise InputError(f"judge: option {option} {'is given twice' if value else 'has no value'}. {_HOW}")
        options[option] = value
    return ",".join(parts[:first]).strip(), tuple(options.items())


def load_judge(spec: str, **options: Any) -> Judge:
    """Build the judge that a spec names.

    Args:
        spec: A judge spec.
        **options: The judge's options, for example `batch_size` for `hf` or `concurrency` for `openai`, in addition to
            those in the spec.

    Raises:
        InputError: The spec names no judge, an option is unknown, or an option is given twice.
        JudgeError: The judge cannot be loaded. No other judge is ever used instead.
    """
    prefix, model, inside = parse_spec(spec)
    module, _, name = JUDGES[prefix].partition(":")
    try:
        judge = getattr(import_module(module), name)
    except ImportError as error:
        if ".engines." not in module or (error.name or "").startswith("crimson_core"):
            raise
        raise missing(error, prefix) from None  # an engine's packages come with the extra of the same name
    known = _options(judge)
    shown = prefix if model is None else f"{prefix}:{model}"  # not the whole spec, which might contain a key
    for option in (*dict(inside), *options):
        if option not in known:
            listed = ", ".join(sorted(known)) or "none"
            raise InputError(f"judge {shown!r} knows no option {option!r}. Its options: {listed}.")
    for option, _ in inside:
        if option in options:
            raise InputError(f"{option} is in the judge spec already. Give it once.")
        if known[option] not in (str, str | None) or option == "api_key":
            raise InputError(f"{option} cannot be part of a judge spec. Give it as a keyword.")
    options |= inside
    return judge(**options) if model is None else judge(model, **options)


def _options(judge: Any) -> dict[str, Any]:
    """Names and types of a judge's options; `**options: Unpack[T]` stands for the keys of the `TypedDict` T."""
    options: dict[str, Any] = {}
    for name, parameter in signature(judge).parameters.items():
        if parameter.kind is Parameter.VAR_KEYWORD:
            options |= get_args(parameter.annotation)[0].__annotations__
        elif name != "model":
            options[name] = parameter.annotation
    return options
