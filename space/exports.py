"""What can be downloaded of a run. It is sent to the page as text and never written to a disk here."""

import csv
import io
import json

from crimson_core.scoring import ERROR_COUNT_KEYS
from space.judging import Run

# Handed the text by Gradio, the browser makes the file.
DOWNLOAD_JS = """(text, name) => {
  if (!text) return;
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], {type: "text/plain;charset=utf-8"}));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}"""


def jsonl(run: Run) -> str:
    """One JSON line per pair with its whole evaluation, as `crimson score -o` writes it."""
    return "".join(json.dumps(result.as_dict(), ensure_ascii=False) + "\n" for result in run.results)


def as_csv(run: Run) -> str:
    """One row per pair: its score and error counts; of an unscored pair the reason."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["row", "id", "crimson_score", *ERROR_COUNT_KEYS, "failure", "repairs", "signature"])
    for result in run.results:
        counts = result.score["error_counts"] if result.score else dict.fromkeys(ERROR_COUNT_KEYS, "")
        score = result.crimson_score if result.score else ""
        cells = [result.index + 1, _plain(result.id), score, *(counts[key] for key in ERROR_COUNT_KEYS)]
        writer.writerow([*cells, result.failure, len(result.repairs), run.signature])
    return out.getvalue()


def _plain(text: str | None) -> str:
    """An id as text; a spreadsheet would run one that starts like a formula."""
    return f"'{text}" if text and text[0] in "=+-@\t\r" else text or ""
