"""What can be downloaded of a run, as text."""

import json
from collections.abc import Mapping, Sequence

from crimson_core import PairResult
from crimson_core.compare.leaderboard.exports import pairs_csv

# Handed the text by Gradio, the browser makes the file.
DOWNLOAD_JS = """(text, name) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], {type: "text/plain;charset=utf-8"}));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}"""


def jsonl(systems: Mapping[str, Sequence[PairResult]], signature: str) -> str:
    """One JSON line per pair with its whole evaluation, as `crimson score -o` writes it, and the signature.

    Args:
        systems: Name of a system -> its results; the name "" is not written.
        signature: Of the scores.
    """
    lines = [
        json.dumps(({"system": name} if name else {}) | result.as_dict() | {"signature": signature}, ensure_ascii=False)
        for name, results in systems.items()
        for result in results
    ]
    return "".join(line + "\n" for line in lines)


def as_csv(systems: Mapping[str, Sequence[PairResult]], signature: str) -> str:
    """One row per pair: its score and error counts, and of an unscored pair the reason. Arguments as of `jsonl`."""
    return pairs_csv(systems, signature)
