"""The data card of a generated data set: `README.md` with counts, limits and plots; `datasets` loads the folder by it."""

import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from statistics import fmean, median
from typing import Any

import pyarrow as pa
import yaml

from crimson_core.protocol.evaluation import ERROR_TYPES, GRADES, SIGNIFICANCE_LEVELS
from crimson_core.protocol.pair import CONTEXT_FIELDS
from training.corpus import SPLITS, Corpus
from training.journal import write_whole
from training.plots import plot_all
from training.records import REGIMES
from training.writers.forging import FORGERIES

_AT_ONCE = 500  # records whose types are found together
_TEXTS = ("ground truth", "candidate")
# Keys of the configuration that may hold a secret or an address.
_PRIVATE = re.compile(r"api_?key|secret|password|(^|_)token$|endpoint|base_url", re.IGNORECASE)
# All keys that a record can have, since a small data set may not use them all.
_FINDING = {"id": "R1", "finding": "", "clinical_significance": ""}
_FULL_RECORD = {
    **dict.fromkeys(("id", "split", "study", "candidate_study", "ground_truth", "candidate"), ""),
    "patient_context": dict.fromkeys(CONTEXT_FIELDS, ""),
    "context_included": dict.fromkeys(CONTEXT_FIELDS, True),
    "regime": 0,
    "error_types": [""],
    "changes": [dict.fromkeys(("kind", "attribute", "before", "after"), "")],
    "forgery": "",
    "raw_evaluation": {
        "reference_findings": [_FINDING],
        "predicted_findings": [_FINDING],
        "matched_findings": [{"ref_id": "", "pred_id": ""}],
        "errors": {
            "false_findings": [""],
            "missing_findings": [""],
            "attribute_errors": [{"ref_id": "", "pred_id": "", "severity": "", "error_types": [""], "explanation": ""}],
        },
    },
    "crimson_score": 1.0,
    "label_source": "",
    "writer": "",
    "seed": 0,
}
_LABEL_LIMITS = {
    "construction": "Labels by construction state the changes that the writer meant to make. A candidate is kept only if the "
    "offline judge reads it that way, so whatever that judge misreads can be wrong in both. The rest of the label is the "
    "judge's reading of the report: findings outside its lexicon are in neither list, and clinical significance is by rule. "
    "No radiologist has checked these labels.",
    "offline": "Labels of the offline judge are made by rules: they miss wording outside the lexicon, and their clinical "
    "significance comes from a table.",
    "model": "Labels of a model judge contain that model's mistakes; no radiologist has checked them.",
}


class _Figures:
    """The figures of the card as counters and plain numbers, so that no text of a record stays in memory.

    `counts` maps the name of a table to its counter, whose keys are (row, column).
    """

    def __init__(self, records: Iterable[Mapping[str, Any]]) -> None:
        self.counts: defaultdict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
        self.scores = {regime: array("d") for regime in REGIMES}
        self.words, self.findings = ({text: array("l") for text in _TEXTS} for _ in range(2))
        self.schema = pa.Table.from_pylist([_FULL_RECORD]).schema
        records = iter(records)
        while some := list(islice(records, _AT_ONCE)):
            for record in some:
                self._add(record)
            found = pa.Table.from_pylist(some).schema
            self.schema = pa.unify_schemas([self.schema, found], promote_options="permissive")
        self.splits = [split for split in SPLITS if self.counts["records"]["records", split]]
        self.total = self.counts["records"].total()

    def _add(self, record: Mapping[str, Any]) -> None:
        split, regime, label = record["split"], REGIMES[record["regime"]], record["raw_evaluation"]
        counts, errors = self.counts, label["errors"]
        counts["records"]["records", split] += 1
        counts["regimes"][regime, split] += 1
        counts["sources"][record["label_source"], split] += 1
        counts["errors"].update((_error_name(change), split) for change in record["changes"])
        if record["forgery"]:
            counts["forgeries"][record["forgery"], split] += 1
        if len(record["error_types"]) > 1:
            counts["combined"]["records", split] += 1
        for text, report, findings in zip(
            _TEXTS,
            (record["ground_truth"], record["candidate"]),
            (label["reference_findings"], label["predicted_findings"]),
            strict=True,
        ):
            self.words[text].append(len(report.split()))
            self.findings[text].append(len(findings))
            counts["significance"].update((finding["clinical_significance"], text) for finding in findings)
        counts["judged"].update({(kind, "all"): len(listed) for kind, listed in errors.items()})
        for error in errors["attribute_errors"]:
            counts["attributes"].update((kind, error["severity"]) for kind in error["error_types"])
        for name in CONTEXT_FIELDS:
            counts["context"][name, "drawn"] += record["context_included"][name]
            counts["context"][name, "held"] += record["patient_context"][name] is not None
        self.scores[regime].append(record["crimson_score"])

    def rows(self, table: str, usual: Sequence[str] = ()) -> list[str]:
        """The usual rows of a table, then those that a judge or a writer has added."""
        return [*usual, *sorted({row for row, _ in self.counts[table]} - set(usual))]

    def table(self, table: str, rows: Sequence[str], columns: Sequence[str]) -> dict[str, dict[str, int]]:
        """Row -> column -> count."""
        return {row: {column: self.counts[table][row, column] for column in columns} for row in rows}


def write_data_card(
    records: Iterable[Mapping[str, Any]],
    folder: Path,
    *,
    config: Mapping[str, Any],
    corpus: Corpus,
    failures: Mapping[str, int],
    cost: float,
) -> None:
    """Write `README.md` and `plots/` into the folder of a data set, which contains its `<split>.jsonl`.

    The records have the fields of `training.records.Record`; memory grows only by some numbers per record. `failures` counts the
    records that could not be made, by reason; `cost` is in US dollars. Keys and paths in `config` are left out of the card.

    Raises:
        CrimsonError: The folder cannot be written.
    """
    figures = _Figures(records)
    plots = plot_all(
        folder / "plots",
        regimes=figures.table("regimes", REGIMES, figures.splits),
        errors=figures.table("errors", figures.rows("errors", _first_errors(figures)), figures.splits),
        significance=figures.table("significance", figures.rows("significance", SIGNIFICANCE_LEVELS), _TEXTS),
        scores=[score for scores in figures.scores.values() for score in scores],
        words=figures.words,
        findings=figures.findings,
    )
    body = "\n".join(_body(figures, config, corpus, failures, cost, plots)) + "\n"
    write_whole(folder / "README.md", [_front_matter(figures), re.sub(r"\n{3,}", "\n\n", body)])


def _error_name(change: Mapping[str, Any]) -> str:
    return change["kind"].replace("_", " ") + (f": {change['attribute']}" if change["attribute"] else "")


def _first_errors(figures: _Figures) -> list[str]:
    return [name for name in ("false finding", "omission") if name in figures.rows("errors")]


# the text


def _front_matter(figures: _Figures) -> str:
    from datasets import Features

    features = Features.from_arrow_schema(figures.schema)
    data = {
        "pretty_name": "CRIMSON training records",
        "language": ["en"],
        "license": "other",
        "task_categories": ["text-generation"],
        "tags": ["radiology", "chest-x-ray", "report-evaluation", "crimson"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"{split}.jsonl"} for split in figures.splits],
            }
        ],
        # Without it, the types would be those of the first records, which may lack keys of later ones.
        "dataset_info": {"config_name": "default", "features": features._to_yaml_list()},
    }
    return f"---\n{yaml.safe_dump(data, sort_keys=False, allow_unicode=True)}---\n\n"


def _body(
    figures: _Figures,
    config: Mapping[str, Any],
    corpus: Corpus,
    failures: Mapping[str, int],
    cost: float,
    plots: Mapping[str, str],
) -> Iterator[str]:
    splits = figures.splits

    def shown(first: str, table: str, rows: Iterable[str], columns: Sequence[str], code: bool = False) -> str:
        counts = figures.table(table, list(rows), columns)
        # A signature has bars, which would end a cell.
        names = [f"`{row}`".replace("|", "\\|") if code else row.replace("_", " ") for row in counts]
        cells = [[name, *_with_sum(row.values())] for name, row in zip(names, counts.values(), strict=True)]
        return _table([first, *columns, "all"], cells)

    yield "# CRIMSON training records"
    yield (
        f"\n{figures.total:,} pairs of a ground-truth and a candidate chest X-ray report, each with a CRIMSON evaluation as "
        f"its label, made from the corpus {corpus.name}.\n"
        "\n**For research only.** The records contain report text: the terms of the corpus apply to them too, and whoever "
        "shares them must be allowed to share the reports. They are no basis for decisions about patients.\n"
        "\n## Counts"
    )
    yield shown("", "records", ["records"], splits)
    yield "\nRegime: how the candidate came about, drawn with equal probability.\n"
    regimes = figures.table("regimes", REGIMES, splits)
    rows = [
        [f"{number} {name}", *_with_sum(row.values()), _quartiles(figures.scores[name])]
        for number, (name, row) in enumerate(regimes.items())
    ]
    yield _table(["regime", *splits, "all", "score: quartiles"], rows)
    yield _plot(plots, "regimes")
    if figures.counts["errors"]:
        yield (
            "\nErrors that candidates were written with (regimes 3 to 5; at most two in a candidate, "
            f"{figures.counts['combined'].total():,} candidates have two).\n"
        )
        yield shown("error", "errors", figures.rows("errors", _first_errors(figures)), splits)
        yield _plot(plots, "errors")
    if figures.counts["forgeries"]:
        yield "\nThings in candidates that are meant to deceive a judge; the label is that of the report alone.\n"
        yield shown("forgery", "forgeries", FORGERIES, splits)
    yield "\n## Labels"
    yield shown("label source", "sources", figures.rows("sources"), splits, code=True)
    yield "\n" + " ".join(_LABEL_LIMITS[kind] for kind in _label_kinds(figures))
    yield "\nClinical significance of the findings.\n"
    yield shown("significance", "significance", figures.rows("significance", SIGNIFICANCE_LEVELS), _TEXTS)
    yield _plot(plots, "significance")
    listed = {kind: figures.counts["judged"][kind, "all"] for kind in ("false_findings", "missing_findings")}
    judged = ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in listed.items())
    flawed = figures.counts["judged"]["attribute_errors", "all"]
    yield f"\nThe labels contain {judged} and {flawed:,} attribute errors, of these types and grades.\n"
    yield shown("attribute error", "attributes", figures.rows("attributes", ERROR_TYPES), GRADES)
    yield _plot(plots, "scores")
    yield "\n## Patient context\n"
    yield (
        "*Drawn*: the field was to be included. *Held*: it was, and the corpus knows it. *Known*: studies of the corpus "
        "that have it.\n"
    )
    known = Counter(n for s in corpus.studies for n in CONTEXT_FIELDS if s.context and getattr(s.context, n))
    rows = []
    for name in CONTEXT_FIELDS:
        drawn, held = (_share(figures.counts["context"][name, what], figures.total) for what in ("drawn", "held"))
        rows.append([name, drawn, held, _share(known[name], len(corpus.studies))])
    yield _table(["field", "drawn", "held", "known"], rows)
    yield "\n## Lengths\n"
    rows = [
        [f"{what}, {text}", f"{fmean(values):.1f}", f"{median(values):g}", f"{max(values):,}"]
        for what, measured in (("words", figures.words), ("findings", figures.findings))
        for text, values in measured.items()
        if values
    ]
    yield _table(["", "mean", "median", "most"], rows)
    yield _plot(plots, "lengths") + "\n" + _plot(plots, "findings")
    yield "\n## Corpus, failures and cost\n"
    studies = Counter(study.split for study in corpus.studies)
    yield _table(["", *SPLITS, "all"], [["studies", *_with_sum(studies[split] for split in SPLITS)]])
    left_out = ", ".join(f"{reason} {count:,}" for reason, count in corpus.left_out.items())
    ages = f" Ages that cannot be read and count as unknown: {corpus.unread_ages:,}." if corpus.unread_ages else ""
    yield f"\nStudies left out: {left_out or 'none'}.{ages} Records of a split are made of its own studies only.\n"
    if failures:
        rows = [[reason.replace("|", "\\|"), f"{count:,}"] for reason, count in Counter(failures).most_common()]
        yield _table(["records that could not be made", "number"], rows)
    else:
        yield "Every record could be made."
    yield f"\nSpent on APIs: {cost:,.2f} US dollars."
    yield "\n## Configuration\n"
    yield f"```yaml\n{yaml.safe_dump(_public(config), sort_keys=False, allow_unicode=True)}```"
    yield "\n## Loading\n"
    yield '```python\nfrom datasets import load_dataset\n\nrecords = load_dataset("<this folder or its Hub id>")\n```'


def _label_kinds(figures: _Figures) -> list[str]:
    def kind(source: str) -> str:
        if source.startswith("construction"):
            return "construction"
        return "offline" if "judge:offline" in source else "model"

    present = set(map(kind, figures.rows("sources")))
    return [name for name in _LABEL_LIMITS if name in present]


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(headers) - 1)]
    return "\n" + "\n".join(f"| {' | '.join(cells)} |" for cells in (headers, rule, *rows))


def _with_sum(numbers: Iterable[int]) -> list[str]:
    numbers = list(numbers)
    return [f"{number:,}" for number in (*numbers, sum(numbers))]


def _quartiles(scores: Sequence[float]) -> str:
    ranked = sorted(scores)
    if not ranked:
        return "–"
    return " / ".join(f"{ranked[round(share * (len(ranked) - 1))]:.2f}" for share in (0.25, 0.5, 0.75))


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "–"


def _plot(plots: Mapping[str, str], name: str) -> str:
    return f"\n![{plots[name]}](plots/{name}.png)" if name in plots else ""


def _public(value: Any) -> Any:
    """A configuration without secrets and without folders of this machine."""
    if isinstance(value, Mapping):
        return {key: _public(item) for key, item in value.items() if not _PRIVATE.search(str(key))}
    if isinstance(value, (list, tuple)):
        return [_public(item) for item in value]
    if isinstance(value, Path) or (isinstance(value, str) and Path(value).is_absolute()):
        return Path(value).name
    return value
