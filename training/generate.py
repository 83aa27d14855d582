"""Corpus -> candidates -> labels -> training records: `python -m training.generate CONFIG`.

Everything that costs time or money is written to the output's folder `work` as it comes, so that a run can be killed at
any point and the same command goes on; what is drawn depends on the seed only. The records are written at the end:
`train.jsonl`, `validation.jsonl` and `test.jsonl`, with a data card.
"""

import hashlib
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer
from tqdm.auto import tqdm

from crimson_core.errors import CrimsonError, InputError
from crimson_core.judges import load_judge, parse_spec
from crimson_core.protocol.evaluation import Evaluation
from crimson_core.protocol.pair import ReportPair, parse_context
from crimson_core.protocol.scoring import score_evaluation
from crimson_core.run.scorer import CrimsonScorer
from training.command import run
from training.config import load_config
from training.corpus import SPLITS, Corpus, Study, read_corpus, same_text
from training.datacard import write_data_card
from training.journal import Journal, locked, write_whole
from training.plan import Slot, plan
from training.readable import with_whole_texts
from training.records import DATASET_FILE, Record, context_of
from training.settings import GenerateConfig
from training.similar import nearest
from training.writers import Draft, Task, Writer, load_writer

_RANDOM, _SIMILAR = 0, 1  # regimes whose candidate is the report of another study
_TRIES = 100  # to find another study's report that says something else
# What may change between two starts of one run: it decides how far and how fast a run goes, not what a record holds.
_FREE = {"candidates", "budget", "prices", "output"}


def main(
    config: Annotated[Path, typer.Argument(help="YAML; training/configs has examples.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Another value, such as candidates.train=100."),
    ] = None,
    retry_failed: Annotated[bool, typer.Option(help="Try again what has failed; it may be paid again.")] = False,
    progress: Annotated[bool, typer.Option(help="Show progress bars.")] = True,
) -> None:
    """Make candidate reports from a corpus, and label them. The same command goes on after a stop."""
    settings = load_config(config, GenerateConfig, overrides)
    generate(settings, retry_failed=retry_failed, progress=progress)


def generate(config: GenerateConfig, *, retry_failed: bool = False, progress: bool = False) -> None:
    """Make the data set of a configuration, or what is still lacking of it.

    Raises:
        InputError: The configuration, the corpus or the output folder cannot be used.
        JudgeError: The writer or the judge cannot be had, or cannot go on.
        CrimsonError: The disk is full.
    """
    writer = load_writer(config.writer.spec, **config.writer.options)
    parse_spec(config.judge.spec)
    work = config.output / "work"
    with locked(work):
        corpus = read_corpus(config.corpus)
        _check_same_run(work / "run.json", config, corpus)
        slots = _planned(config, corpus, writer)
        with Journal(work / "candidates.jsonl") as candidates, Journal(work / "labels.jsonl") as labels:
            purse = _Purse(config, candidates, labels)
            finished = _write_candidates(config, corpus, writer, slots, candidates, purse, retry_failed, progress)
            finished = finished and _label(config, slots, candidates, labels, purse, retry_failed, progress)
            failures = _finish(config, corpus, writer, slots, candidates, labels, purse)
    _report(config, slots, failures, purse, finished)


class _Purse:
    """What has been paid, and whether anything is left."""

    def __init__(self, config: GenerateConfig, candidates: Journal, labels: Journal) -> None:
        self._config, self._candidates, self._labels = config, candidates, labels

    @property
    def spent(self) -> float:
        """US dollars, of all starts of this run together."""
        prices = self._config.prices
        paid = ((prices.writer, self._candidates.usage), (prices.judge, self._labels.usage))
        return sum(price.of(usage) for price, usage in paid if price)

    @property
    def empty(self) -> bool:
        return self._config.budget is not None and self.spent >= self._config.budget

    def show(self, bar: tqdm) -> None:
        if any((self._config.prices.writer, self._config.prices.judge)):
            bar.set_postfix_str(f"${self.spent:.2f}", refresh=False)


def _planned(config: GenerateConfig, corpus: Corpus, writer: Writer) -> list[Slot]:
    return plan(
        corpus.studies,
        config.candidates.model_dump(),
        writer,
        seed=config.seed,
        second_error=config.second_error,
        context=config.context,
    )


def _write_candidates(
    config: GenerateConfig,
    corpus: Corpus,
    writer: Writer,
    slots: Sequence[Slot],
    candidates: Journal,
    purse: _Purse,
    retry_failed: bool,
    progress: bool,
) -> bool:
    """Add what is lacking to the journal of candidates; False if the budget ended first."""
    waiting = _waiting(slots, candidates, retry_failed)
    others = [slot for slot in waiting if slot.study is None or slot.regime in (_RANDOM, _SIMILAR)]
    rewrites = [slot for slot in waiting if slot.study and slot.regime not in (_RANDOM, _SIMILAR)]
    for entry in _other_reports(config, corpus, others, progress):
        candidates.add(entry)
    tasks = [
        Task(slot.study.report, slot.kinds, f"{config.seed} {slot.id}", _context(slot), slot.aim) for slot in rewrites
    ]
    if not tasks:
        return True
    bar = tqdm(total=len(slots), initial=len(slots) - len(tasks), desc="writing", unit="report", disable=not progress)
    with bar, closing(writer.write(tasks)) as drafts:
        purse.show(bar)
        if purse.empty:
            return False
        for index, draft in drafts:
            signature = _signature(writer)
            candidates.add(_draft_entry(rewrites[index], draft, signature), paid=bool(draft.usage))
            purse.show(bar)
            bar.update()
            if purse.empty:
                break
    return not _waiting(slots, candidates, False)


def _waiting(slots: Sequence[Slot], journal: Journal, retry_failed: bool) -> list[Slot]:
    return [s for s in slots if s.id not in journal or (retry_failed and s.id in journal.failures)]


def _draft_entry(slot: Slot, draft: Draft, writer: str) -> dict[str, Any]:
    return {
        "id": slot.id,
        "candidate": draft.candidate,
        "changes": [change.model_dump() for change in draft.changes],
        "evaluation": draft.evaluation.model_dump() if draft.evaluation else None,
        "failure": draft.failure,
        "usage": draft.usage,
        "writer": writer,
    }


def _other_reports(
    config: GenerateConfig, corpus: Corpus, slots: Sequence[Slot], progress: bool
) -> Iterator[dict[str, Any]]:
    """The candidates that are reports of other studies."""
    by_split = {split: [s for s in corpus.studies if s.split == split] for split in SPLITS}
    places = {study.id: place for studies in by_split.values() for place, study in enumerate(studies)}
    similar: dict[str, list[list[int]]] = {}
    for slot in slots:
        study = slot.study
        if study is None:
            yield {"id": slot.id, "failure": _no_study(slot)}
            continue
        own = by_split[slot.split]
        rng = random.Random(f"{config.seed} {slot.id}")
        if slot.regime == _SIMILAR:
            if slot.split not in similar:
                folder = config.output / "work" / f"similar-{slot.split}"
                similar[slot.split] = nearest(
                    own, folder=folder, encoder=config.encoder, count=config.neighbours, progress=progress
                )
            near = similar[slot.split][places[study.id]]
            other = own[rng.choice(list(near))] if len(near) else None
        else:
            drawn = (rng.choice(own) for _ in range(_TRIES))
            other = next((o for o in drawn if _is_other(study, o)), None)
        if other is None:
            yield {"id": slot.id, "failure": "no other study of the split has another report"}
        else:
            yield {"id": slot.id, "candidate": other.report, "candidate_study": other.id}


def _no_study(slot: Slot) -> str:
    if not slot.kinds:
        return f"the split {slot.split} has no study"
    what = " and ".join(kind.replace("_", " ") for kind in slot.kinds)
    return f"no study of the split {slot.split} lets the writer make {what}"


def _is_other(study: Study, other: Study) -> bool:
    apart = study.patient is None or study.patient != other.patient
    return study.id != other.id and apart and same_text(study.report) != same_text(other.report)


def _label(
    config: GenerateConfig,
    slots: Sequence[Slot],
    candidates: Journal,
    labels: Journal,
    purse: _Purse,
    retry_failed: bool,
    progress: bool,
) -> bool:
    """Add what is lacking to the journal of labels; False if the budget ended first."""
    waiting = []
    for slot in _waiting(slots, labels, retry_failed):
        if slot.id in candidates and slot.id not in candidates.failures:
            entry = candidates.get(slot.id)
            if not (config.construction and entry.get("evaluation")):
                waiting.append((slot, entry["candidate"]))
    if not waiting:
        return True
    if purse.empty:
        return False
    scorer = CrimsonScorer(load_judge(config.judge.spec, **config.judge.options))
    pairs = [ReportPair(slot.study.report, candidate, _context(slot), slot.id) for slot, candidate in waiting]
    bar = tqdm(total=len(pairs), desc="judging", unit="pair", disable=not progress)
    with bar, closing(scorer.stream(pairs)) as results:
        for done, result in enumerate(results, 1):
            entry = {
                "id": result.id,
                "evaluation": result.score["raw_evaluation"] if result.score else None,
                "failure": result.failure,
                "usage": result.usage,
                "source": scorer.signature,
            }
            labels.add(entry, paid=bool(result.usage))
            purse.show(bar)
            bar.update()
            if purse.empty and done < len(pairs):
                return False
    return True


def _finish(
    config: GenerateConfig,
    corpus: Corpus,
    writer: Writer,
    slots: Sequence[Slot],
    candidates: Journal,
    labels: Journal,
    purse: _Purse,
) -> dict[str, str]:
    """Write the records, the failures and the data card; returns the failures by id."""
    slot_ids = {slot.id for slot in slots}
    failures = {i: why for journal in (candidates, labels) for i, why in journal.failures.items() if i in slot_ids}

    def records(split: str | None = None) -> Iterator[Record]:
        for slot in slots:
            if split in (None, slot.split) and (record := _record(config, slot, candidates, labels)):
                yield record

    for split in SPLITS:
        path = config.output / f"{split}.jsonl"
        if any(slot.split == split for slot in slots):
            write_whole(path, (record.model_dump_json() + "\n" for record in records(split)))
        else:
            path.unlink(missing_ok=True)
    # What a model card tells of its data.
    told = {
        "corpus": corpus.name,
        "writer": _signature(writer),
        "judge": config.judge.spec,
        "context": config.context,
        "second_error": config.second_error,
        "seed": config.seed,
    }
    write_whole(config.output / DATASET_FILE, [json.dumps(told, indent=1) + "\n"])
    lines = (json.dumps({"id": i, "failure": why}) + "\n" for i, why in sorted(failures.items()))
    write_whole(config.output / "failures.jsonl", lines)
    write_data_card(
        (record.model_dump() for record in records()),
        config.output,
        config=config.model_dump(mode="json", exclude={"output"}) | {"writer_signature": _signature(writer)},
        corpus=corpus,
        failures=Counter(failures.values()),
        cost=purse.spent,
    )
    return failures


def _record(config: GenerateConfig, slot: Slot, candidates: Journal, labels: Journal) -> Record | None:
    """The record of a slot; None if it has failed or is not done."""
    if slot.id not in candidates or slot.id in candidates.failures:
        return None
    entry = candidates.get(slot.id)
    evaluation, source = entry.get("evaluation"), f"construction|{entry.get('writer')}"
    if not (config.construction and evaluation):
        if slot.id not in labels or slot.id in labels.failures:
            return None
        label = labels.get(slot.id)
        evaluation, source = label["evaluation"], label["source"]
        marked = Evaluation.model_validate(evaluation)
        evaluation = with_whole_texts(marked, slot.study.report, entry["candidate"]).model_dump()
    return Record(
        id=slot.id,
        split=slot.split,
        study=slot.study.id,
        candidate_study=entry.get("candidate_study"),
        ground_truth=slot.study.report,
        candidate=entry["candidate"],
        patient_context=context_of(slot.study.context, slot.included),
        context_included=slot.included,
        regime=slot.regime,
        error_types=list(slot.kinds),
        changes=entry.get("changes", []),
        raw_evaluation=evaluation,
        crimson_score=score_evaluation(evaluation)["crimson_score"],
        label_source=source,
        writer=entry.get("writer"),
        seed=config.seed,
    )


def _context(slot: Slot) -> Any:
    return parse_context(context_of(slot.study.context, slot.included).model_dump(), f"study {slot.study.id}")


def _signature(writer: Writer) -> str:
    return "|".join(f"{key}:{value}" for key, value in writer.signature().items())


def _check_same_run(path: Path, config: GenerateConfig, corpus: Corpus) -> None:
    """Refuse to go on with a run that was begun with something else; its parts would not fit together."""
    digest = hashlib.sha256()
    for study in corpus.studies:
        digest.update(f"{study.id}\0{study.split}\0{study.report}\0".encode())
    now = config.model_dump(mode="json", exclude=_FREE)
    for engine in ("writer", "judge"):
        now[engine] = config_spec = {"spec": now[engine]["spec"], "options": dict(now[engine]["options"])}
        for speed in ("concurrency", "timeout", "max_retries", "batch_size", "api_key"):
            config_spec["options"].pop(speed, None)
    now["studies"] = digest.hexdigest()
    if not path.is_file():
        write_whole(path, [json.dumps(now, indent=1) + "\n"])
        return
    try:
        begun = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputError(f"{path} cannot be read. Give another output folder.") from None
    for key in now:
        if begun.get(key) != now[key]:
            what = "The studies of the corpus are" if key == "studies" else f"The configuration's {key} is"
            raise InputError(
                f"{what} not what the run in {path.parent.parent} was begun with. Give another output folder, or put it back."
            )


def _report(
    config: GenerateConfig, slots: Sequence[Slot], failures: dict[str, str], purse: _Purse, finished: bool
) -> None:
    if finished:
        print(f"{len(slots) - len(failures)} of {len(slots)} records in {config.output}, ${purse.spent:.2f} spent.")
    for reason, count in Counter(failures.values()).most_common():
        print(f"  {count} failed: {reason}", file=sys.stderr)
    if not finished:
        raise CrimsonError(
            f"The budget of ${config.budget:.2f} is spent (${purse.spent:.2f}). What was paid for is in {config.output}; "
            "raise budget and run the same command to go on."
        )


if __name__ == "__main__":
    run(main)
