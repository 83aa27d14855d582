"""The writer that asks a language model: one request per task, and a check of the changes that the model states."""

import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, get_args

import yaml
from pydantic import BaseModel, ValidationError

from crimson_core.errors import check_whole
from crimson_core.judges.engines.client import Form, load_chat
from crimson_core.judges.model import Answer, Question
from crimson_core.judges.rules.extraction import extract_findings
from crimson_core.judges.rules.lexicon import lexicon
from training.writers import ERROR_KINDS, Aim, Attribute, Change, Draft, ErrorKind, Task
from training.writers.checking import problem, significant

_PROMPTS = Path(__file__).with_name("prompts.yaml")


class _StatedChange(BaseModel):
    kind: ErrorKind
    attribute: Attribute | None = None
    before: str | None = None
    after: str | None = None

    def change(self) -> Change:
        return Change(
            kind=self.kind,
            attribute=self.attribute if self.kind == "attribute_error" else None,
            before=(self.before or "").strip(),
            after=(self.after or "").strip(),
        )


class _Written(BaseModel):
    """A model's answer."""

    candidate: str
    changes: list[_StatedChange]


class _Spent(NamedTuple):
    """The attempts and tokens of a task so far."""

    attempts: int = 0
    usage: dict[str, int] = {}  # never written to


class LLMWriter:
    """Asks a model of OpenAI, on Azure or on an OpenAI-compatible server to write the candidates.

    If an answer cannot be read, or its stated changes are wrong (see `training.writers.checking`), the model is asked again
    and told why. Failures of the server are those of `crimson_core.judges.engines.client.Chat`.

    Args:
        spec: `openai:<model>` or `azure:<deployment>`.
        temperature: Sampling temperature; left out if the server refuses it, as with GPT-5.
        max_attempts: Maximum number of requests per task.
        **options: `base_url` or `endpoint` and `api_version`, `api_key`, `concurrency`, `max_retries`, `timeout`,
            `max_output_tokens`, as for the judges of the same spec.

    Raises:
        InputError: The spec names no model, or an option is unknown or out of range.
        JudgeError: The `openai` package, the key or the endpoint is missing.
    """

    def __init__(self, spec: str, *, temperature: float = 0.7, max_attempts: int = 2, **options: Any) -> None:
        self.max_attempts = check_whole("max_attempts", max_attempts)
        self._chat = load_chat(spec, temperature=temperature, **options)

    def possible(self, report: str, kinds: Sequence[ErrorKind], aim: Aim | None = None) -> bool:
        """Whether these errors can be made on a report, as far as the offline judge can read it."""
        findings = extract_findings(report)
        possible: dict[ErrorKind, bool] = {
            "false_finding": True,
            "attribute_error": bool(findings),
            "omission": bool(significant(findings)),
        }
        return all(possible[kind] for kind in kinds)

    def aims(self, report: str) -> frozenset[Aim]:
        """None: the model chooses the attribute."""
        return frozenset()

    def write(self, tasks: Sequence[Task]) -> Generator[tuple[int, Draft], None, None]:
        """Yield (position in `tasks`, draft) as answers come in; see `training.writers.Writer`."""
        spent: dict[int, _Spent] = {}
        drafts: dict[int, Draft] = {}

        def follow_up(index: int, answer: Answer) -> Question | None:
            attempts, earlier = spent.pop(index, _Spent())
            attempts, usage = attempts + 1, dict(Counter(earlier) + Counter(answer.usage))
            task = tasks[index]
            if answer.failure:
                drafts[index] = Draft(failure=answer.failure, usage=usage)
                return None
            written, wrong = _read(task, answer.text or "")
            if wrong is None:
                drafts[index] = Draft(written.candidate.strip(), _contracted(written, task.kinds), usage=usage)
            elif attempts < self.max_attempts:
                spent[index] = _Spent(attempts, usage)
                return _question(task, wrong)
            else:
                times = "once" if attempts == 1 else f"{attempts} times"
                drafts[index] = Draft(
                    failure=f"no draft was right, asked {times}; of the last one: {wrong}", usage=usage
                )
            return None

        with closing(self._chat.ask(map(_question, tasks), _form(), follow_up)) as answers:
            for index, _ in answers:
                yield index, drafts.pop(index)

    def signature(self) -> dict[str, str]:
        """Model, host and decoding, the version of the prompts, and that of the lexicon that checks the drafts."""
        chat = self._chat.signature()
        own = {
            "writer": self._chat.server.name,
            "prompts": _prompts_version(),
            "max_attempts": str(self.max_attempts),
            "lexicon": str(lexicon().version),
        }
        return own | chat | {"seed": "of the task" if chat["seed"] == "sent" else chat["seed"]}


# --- questions


def _question(task: Task, reason: str | None = None) -> Question:
    """The question of a task, always the same; `reason` says what was wrong with an earlier answer."""
    prompts = _prompts()
    parts = [prompts["errors" if task.kinds else "rewrite"]]
    parts += [f"{number}. {_instruction(task, kind)}" for number, kind in enumerate(task.kinds, 1)]
    if reason:
        parts.append(prompts["again"].format(reason=reason))
    messages = [
        {"role": "system", "content": prompts["system"]},
        {"role": "user", "content": "\n\n".join([*parts, _as_data(task.report)])},
    ]
    digest = hashlib.sha256(task.seed.encode()).digest()
    return Question(messages, int.from_bytes(digest[:4]) >> 1)  # servers take a seed as a signed number


def _instruction(task: Task, kind: ErrorKind) -> str:
    """The instruction for one error; the task's seed draws its category, its style or the order of attributes."""
    prompt = _prompts()[kind]
    rng = random.Random(f"{task.seed} {kind}")
    if kind == "false_finding":
        return prompt["text"].format(category=rng.choice(list(prompt["categories"].values())))
    if kind == "omission":
        return prompt["text"].format(style=rng.choice(list(prompt["styles"].values())))
    attributes = list(prompt["attributes"].values())
    return prompt["text"].format(order="; ".join(rng.sample(attributes, len(attributes))))


def _as_data(report: str) -> str:
    """A report as a JSON object in one line, without characters of control tokens."""
    data = json.dumps({"report": report}, ensure_ascii=False)
    return re.sub(r"[<>|\[\]\u2028\u2029]", lambda match: f"\\u{ord(match[0]):04x}", data)


@cache
def _prompts() -> dict[str, Any]:
    return yaml.safe_load(_PROMPTS.read_text(encoding="utf-8"))


@cache
def _prompts_version() -> str:
    return hashlib.sha256(_PROMPTS.read_bytes().replace(b"\r\n", b"\n")).hexdigest()[:12]


@cache
def _form() -> Form:
    text = {"type": "string"}
    attribute = {"anyOf": [{"type": "string", "enum": list(get_args(Attribute))}, {"type": "null"}]}
    kind = {"type": "string", "enum": list(ERROR_KINDS)}
    change = _record(kind=kind, attribute=attribute, before=text, after=text)
    return Form("draft", _record(candidate=text, changes={"type": "array", "items": change}))


def _record(**properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


# --- answers


def _read(task: Task, text: str) -> tuple[_Written | None, str | None]:
    """The draft in an answer, and its problem."""
    found = re.search(r"\{.*\}", text, re.DOTALL)  # a server without structured output may put it in prose or a fence
    try:
        written = _Written.model_validate_json(found[0] if found else "")
    except ValidationError:
        return None, "The answer is no JSON object of the form that was asked for."
    changes = [stated.change() for stated in written.changes]
    return written, problem(task.report, task.kinds, written.candidate, changes)


def _contracted(written: _Written, kinds: Sequence[ErrorKind]) -> tuple[Change, ...]:
    """The stated changes in the order of the kinds, without `before` for a false finding and `after` for an omission."""
    empty = {"false_finding": {"before": ""}, "omission": {"after": ""}, "attribute_error": {}}
    changes = sorted((stated.change() for stated in written.changes), key=lambda change: kinds.index(change.kind))
    return tuple(change.model_copy(update=empty[change.kind]) for change in changes)
