"""Chat messages as token ids. Report text is data: no part of it can become a control token."""

import re
import secrets
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import jinja2
from tokenizers import AddedToken
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from crimson_core.errors import JudgeError, first_line
from crimson_core.protocol.prompt import Message


class ChatEncoder:
    """Encodes chat messages so that no message content can become a control token.

    For contents without control tokens, the ids equal those of `tokenizer.apply_chat_template`. A control token is any
    added token with visible characters, whether or not the tokenizer calls it special (`<think>` often is not).

    The chat template is rendered once, with placeholders for the contents. Each control token in the template gets a
    random name that nobody outside this process can know, and a copy of the tokenizer knows the control tokens by these
    names only. That copy tokenises the template with the contents filled in, in one go, so that tokens across the
    border of template and content come out as usual.

    Args:
        tokenizer: A fast tokenizer with a chat template.
        name: The model's name, for errors.

    Raises:
        JudgeError: The tokenizer is not fast or has no chat template.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
        if not tokenizer.is_fast:
            raise JudgeError(f"{name} has no fast tokenizer (tokenizer.json). Convert it with transformers first.")
        if not tokenizer.chat_template:
            raise JudgeError(
                f"{name} has no chat template. Use a model that is trained for chat, or put the template that it was "
                "trained with into its folder as chat_template.jinja."
            )
        self.tokenizer, self.name = tokenizer, name
        added = tokenizer.backend_tokenizer.get_added_tokens_decoder()
        self._control = {i: token for i, token in added.items() if token.content.replace("▁", " ").strip()}
        self._blind = deepcopy(tokenizer.backend_tokenizer)
        self._blind.no_truncation()
        self._blind.no_padding()
        self._blind.add_special_tokens([_added_token(token.content, token, True) for token in self._control.values()])
        self._blind.encode_special_tokens = True  # special tokens are read as plain text
        self._aliases: dict[int, int] = {}  # id of a random name -> id of its control token
        self._templates: dict[tuple[str, ...], list[str | tuple[int, bool, bool]]] = {}

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of the messages and the generation prompt.

        Raises:
            ValueError: A content still became a control token, as a vocabulary of whole words may do.
            JudgeError: The chat template does not accept these roles.
        """
        text = ""
        for part in self.prepare([message["role"] for message in messages]):
            if isinstance(part, tuple):
                place, keep_left, keep_right = part
                content = messages[place]["content"]
                content = content if keep_left else content.lstrip()
                part = content if keep_right else content.rstrip()
            text += part
        ids = self._blind.encode(text, add_special_tokens=False).ids
        if not self._control.keys().isdisjoint(ids):
            raise ValueError("the text of the pair forms control tokens of the model")
        return [self._aliases.get(i, i) for i in ids]

    def encode_text(self, text: str) -> list[int]:
        """Token ids of a text by itself, none of them a control token.

        Raises:
            ValueError: The text still became a control token, as a vocabulary of whole words may do.
        """
        ids: list[int] = self._blind.encode(text, add_special_tokens=False).ids
        if not self._control.keys().isdisjoint(ids):
            raise ValueError("the text forms control tokens of the model")
        return ids

    def prepare(self, roles: Sequence[str]) -> list[str | tuple[int, bool, bool]]:
        """The chat template for messages of these roles, rendered once: its texts and the places of the contents.

        A place is (number of the message, whether white space is kept left of its content, and right of it).

        Raises:
            JudgeError: The chat template does not accept these roles, or cannot be split.
        """
        key = tuple(roles)
        if key not in self._templates:
            self._templates[key] = self._take_apart(key)
            probe = [{"role": role, "content": f"\n No {role} \n\n  finding.\t"} for role in roles]
            expected: Any = self.tokenizer.apply_chat_template(probe, add_generation_prompt=True, return_dict=True)
            if self.encode(probe) != list(expected["input_ids"]):
                raise JudgeError(f"The tokenizer of {self.name} cannot be guarded against forged control tokens.")
        return self._templates[key]

    def _take_apart(self, roles: tuple[str, ...]) -> list[str | tuple[int, bool, bool]]:
        marks = [secrets.token_hex(16) for _ in roles]
        space = "\x0b"  # white space that no template contains
        text = self._render(roles, marks)
        spaced = self._render(roles, [f"{space}{mark}{space}" for mark in marks])
        for mark, role in zip(marks, roles, strict=True):
            if text.count(mark) != 1 or spaced.count(mark) != 1:
                raise JudgeError(f"The chat template of {self.name} does not print the {role} message. {self._advice}")
        text = self._rename(text)
        parts: list[str | tuple[int, bool, bool]] = []
        for part in re.split(f"({'|'.join(marks)})", text):
            if part in marks:
                parts.append((marks.index(part), f"{space}{part}" in spaced, f"{part}{space}" in spaced))
            else:
                parts.append(part)
        return parts

    def _render(self, roles: tuple[str, ...], contents: list[str]) -> str:
        messages = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]
        try:
            return str(self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))
        except jinja2.TemplateError as error:
            raise JudgeError(
                f"The chat template of {self.name} refuses messages of the roles {', '.join(roles)}: "
                f"{first_line(error)}. {self._advice}"
            ) from None

    @property
    def _advice(self) -> str:
        return "Use a model whose template takes a system and a user message."

    def _rename(self, text: str) -> str:
        """The rendered template with every control token under its random name."""
        encoding = self.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
        for i, (start, end) in reversed(list(zip(encoding.ids, encoding.offsets, strict=True))):
            if i in self._control:  # the span may include white space around the token
                renamed = text[start:end].replace(self._control[i].content, self._alias(i), 1)
                text = text[:start] + renamed + text[end:]
        return text

    def _alias(self, control: int) -> str:
        name = f"<|{secrets.token_hex(16)}|>"
        self._blind.add_tokens([_added_token(name, self._control[control], False)])
        self._aliases[self._blind.token_to_id(name)] = control
        return name


def _added_token(content: str, like: AddedToken, special: bool) -> AddedToken:
    normalized = like.normalized and special  # a random name is matched literally
    return AddedToken(content, lstrip=like.lstrip, rstrip=like.rstrip, normalized=normalized, special=special)
