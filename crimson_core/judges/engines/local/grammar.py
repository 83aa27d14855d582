"""The evaluation's JSON schema as a grammar for constrained generation."""

import json
from typing import Any

# Enough for JSON indented by four spaces: 20 spaces and a line break at its deepest place.
_MAX_WHITESPACE = 24
_MAX_ESCAPES = 8
_PLAIN = r"[^\0-\x1f\"\\]"  # a character that needs no escape
_GROUP = 20


def evaluation_grammar(schema: dict[str, Any]) -> str:
    """The EBNF grammar for xgrammar of a bounded `evaluation_schema`; every output is finite.

    xgrammar's own translation of a bounded string knows no escaped characters and allows raw control characters, which
    JSON forbids. Here a text may contain a few escapes, and white space is bounded as well.
    """
    rules: dict[str, str] = {}  # body -> name

    def rule(node: dict[str, Any], name: str) -> str:
        if "enum" in node:
            body = " | ".join(_literal(value) for value in node["enum"])
        elif "pattern" in node:  # ^R[1-9][0-9]?$: a letter, then a rest that means the same in EBNF
            letter, rest = node["pattern"][1], node["pattern"][2:-1]
            body = rf'"\"{letter}" {rest} "\""'
        elif node["type"] == "string":
            plain = rules.setdefault(_at_most(node["maxLength"]), f"{name}_plain")
            body = rf'"\"" {plain} ("\\" escape {plain}){{0,{_MAX_ESCAPES}}} "\""'
        elif node["type"] == "array":
            item = rule(node["items"], f"{name}_item")
            body = f'"[" ws ({item} (ws "," ws {item}){{0,{node["maxItems"] - 1}}} ws)? "]"'
        else:
            fields = [
                f'{_literal(key)} ws ":" ws {rule(value, f"{name}_{key}")}' for key, value in node["properties"].items()
            ]
            body = '"{" ws ' + ' ws "," ws '.join(fields) + ' ws "}"'
        # Equal bodies are one rule: xgrammar prepares each rule against the whole vocabulary.
        return rules.setdefault(body, name)

    root = rule(schema, "evaluation")
    lines = [f"{name} ::= {body}" for body, name in rules.items()]
    lines.append(rf"ws ::= [ \n\r\t]{{0,{_MAX_WHITESPACE}}}")
    lines.append(r'escape ::= [\"\\/bfnrt] | "u" [0-9A-Fa-f] [0-9A-Fa-f] [0-9A-Fa-f] [0-9A-Fa-f]')
    return "\n".join([f"root ::= {root}", *lines])


def _at_most(characters: int) -> str:
    """So many plain characters at most, counted in groups: one by one, xgrammar takes eight times as long to follow them."""
    group = max(n for n in range(1, _GROUP + 1) if characters % n == 0)
    return f"({_PLAIN}{{{group}}}){{0,{characters // group - 1}}} {_PLAIN}{{0,{group}}}"


def _literal(value: str) -> str:
    return json.dumps(json.dumps(value))
