"""Corpus -> candidates -> labels -> training records: `python -m training.generate CONFIG`.

Everything that costs time or money is written at once to the folder `work` of the output, so a run can be killed at any
point, and the same command continues it. Random choices depend on the seed only. The records are written at the end, as
`train.jsonl`, `validation.jsonl` and `test.jsonl` with a data card.
"""

import hashlib
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from tqdm.auto import tqdm

from crimson_core.errors import CrimsonError, InputError
from crimson_core.judges import parse_spec
from crimson_core.judges.engines.batch import Batching
from crimson_core.protocol.evaluation import Evaluation
from crimson_core.protocol.pair import ReportPair, parse_context
from crimson_core.protocol.scoring import score_evaluation
from training.buying import FREE_REGIMES, Budget
from training.command import run
from training.config import load_config
from training.corpus import SPLITS, Corpus, Study, read_corpus, same_text
from training.datacard import write_data_card
from training.journal import Journal, check_same_run, locked, write_json, write_whole
from training.labels import Label, Labels
from training.plan import Slot, plan
from training.readable import with_whole_texts
from training.records import DATASET_FILE, Record, context_of, line_of, without_marks
from training.settings import Engine, GenerateConfig
from training.similar import nearest
from training.writers import Task, Writer, load_writer
from training.writers.forging import forged

_SIMILAR = 1  # the regime
_TRIES = 100  # to find another study whose report has another text
# Settings that may change between two starts of a run, because they do not change a record.
_FREE = {"candidates", "budget", "prices", "output"}
_READ_AT_ONCE = 500  # labels


def main(
    config: Annotated[Path, typer.Argument(help="YAML; training/configs has examples.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Another value, such as candidates.train=100."),
    ] = None,
    retry_failed: Annotated[bool, typer.Option(help="Try again what has failed; it may be paid again.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Buy what costs more than 10 US dollars.")] = False,
    batch: Annotated[
        bool, typer.Option("--batch", help="Ask OpenAI or Azure in batches, at half the price, and wait for them.")
    ] = False,
    leave: Annotated[
        bool, typer.Option("--leave", help="With --batch: stop when all is sent. The same command collects it.")
    ] = False,
    progress: Annotated[bool, typer.Option(help="Show progress bars.")] = True,
) -> None:
    """Make candidate reports from a corpus, and label them. The same command goes on after a stop."""
    settings = load_config(config, GenerateConfig, overrides)
    generate(settings, retry_failed=retry_failed, progress=progress, yes=yes, batch=batch, wait=not leave)


def generate(
    config: GenerateConfig,
    *,
    retry_failed: bool = False,
    progress: bool = False,
    yes: bool = False,
    batch: bool = False,
    wait: bool = True,
    every: float = 30.0,
) -> None:
    """Make the data set of a configuration, or the rest of it.

    Args:
        config: The configuration.
        retry_failed: Try again what has failed.
        progress: Show progress bars.
        yes: Buy even if the price is above 10 US dollars or unknown.
        batch: Ask an API in batches.
        wait: Wait for batches.
        every: Seconds between two polls of the batches.

    Raises:
        InputError: The configuration, the corpus or the output folder cannot be used.
        JudgeError: The writer or the judge cannot be loaded, or cannot continue.
        CrimsonError: The disk is full, the budget is spent, or the price needs `yes`.
    """
    work = config.output / "work"
    if batch and not (config.writer.is_bought or config.judge.is_bought):
        raise InputError(
            "--batch is for a writer or a judge of OpenAI or Azure; this configuration has none. Leave it out."
        )

    def options(engine: Engine, name: str) -> dict[str, Any]:
        batching = {"batch": Batching(work / f"batches-{name}", wait, every)} if batch and engine.is_bought else {}
        return engine.options | batching

    for_writer, for_judge = options(config.writer, "writer"), options(config.judge, "judge")
    writer = load_writer(config.writer.spec, **for_writer)
    parse_spec(config.judge.spec)
    with locked(work):
        _check_version(work)
        corpus = read_corpus(config.corpus)
        if corpus.unread_ages:
            print(f"{corpus.unread_ages:,} ages of the corpus cannot be read and count as unknown.", file=sys.stderr)
        _check_same_run(work / "run.json", config, corpus)
        drawn = {"seed": config.seed, "second_error": config.second_error, "context": config.context}
        slots = plan(corpus.studies, config.candidates.model_dump(), writer, **drawn)
        labels = Labels(config.judge.spec, for_judge, work / "labels.sqlite", retry_failed)
        with Journal(work / "candidates.sqlite") as candidates:
            budget = Budget(config, candidates, labels, batch)
            made = _Run(config, corpus, writer, slots, candidates, labels, budget, retry_failed, progress)
            waiting = made.unfinished()
            if progress or config.writer.is_bought or config.judge.is_bought:
                print(budget.estimate(waiting, batch), file=sys.stderr)
            budget.check(waiting, yes)
            finished = made.make(waiting)
            failures = made.finish()
    _report(config, slots, failures, budget, finished)


@dataclass
class _Run:
    """A run: what it is to make, and what it has made so far."""

    config: GenerateConfig
    corpus: Corpus
    writer: Writer
    slots: Sequence[Slot]
    candidates: Journal
    labels: Labels
    budget: Budget
    retry_failed: bool
    progress: bool

    def unfinished(self) -> list[Slot]:
        """The slots that lack a candidate or a label."""
        lacking = {slot.id for slot in self._waiting(self.slots)}
        pairs = self._pairs(self.slots)
        lacking.update(pairs[place].id for place in self.labels.lacking(pairs))
        return [slot for slot in self.slots if slot.id in lacking]

    def make(self, waiting: Sequence[Slot]) -> bool:
        """Write and label the waiting slots, some at a time, so that money is spent on whole records.

        Returns:
            Whether all were made; False if the budget ended first.
        """
        others = [slot for slot in waiting if slot.study is None or slot.regime in FREE_REGIMES]
        for entry in self._other_reports(self._waiting(others)):
            self.candidates.add(entry)
        with tqdm(total=len(waiting), desc="making", unit="record", disable=not self.progress) as bar:
            left = list(waiting)
            while left:
                some = self.budget.next(left)
                if not some:
                    return False
                self._write_candidates(self._waiting(some))
                pairs = self._pairs(some)
                if pairs:
                    self.labels.make(pairs)
                self.budget.bought(some)
                del left[: len(some)]
                bar.update(len(some))
                if self.budget.spent:
                    bar.set_postfix_str(f"${self.budget.spent:.2f}", refresh=False)
        return True

    def finish(self) -> dict[str, str]:
        """Write the records, the failures and the data card; return the failures by id."""
        config, failures = self.config, dict[str, str]()
        for split in SPLITS:
            path = config.output / f"{split}.jsonl"
            if any(slot.split == split for slot in self.slots):
                write_whole(path, map(line_of, self._records(failures, split)), private=True)
            else:
                path.unlink(missing_ok=True)
        # For model cards.
        about = {
            "corpus": self.corpus.name,
            "writer": _signature(self.writer),
            "judge": config.judge.spec,
            "context": config.context,
            "second_error": config.second_error,
            "forged": config.forged,
            "seed": config.seed,
        }
        write_json(config.output / DATASET_FILE, about)
        lines = (json.dumps({"id": i, "failure": why}) + "\n" for i, why in sorted(failures.items()))
        write_whole(config.output / "failures.jsonl", lines)
        write_data_card(
            (record.model_dump() for record in self._records({})),
            config.output,
            config=config.model_dump(mode="json", exclude={"output"}) | {"writer_signature": _signature(self.writer)},
            corpus=self.corpus,
            failures=Counter(failures.values()),
            cost=self.budget.spent,
        )
        return failures

    def _waiting(self, slots: Sequence[Slot]) -> list[Slot]:
        """Those that have no candidate, or a failed one that is to be tried again."""
        failed = self.candidates.failures if self.retry_failed else ()
        return [slot for slot in slots if slot.id not in self.candidates or slot.id in failed]

    def _pairs(self, slots: Sequence[Slot]) -> list[ReportPair]:
        """The pairs of slots that have a candidate and need the judge's label; a pair has its slot's id."""
        pairs = []
        for slot in slots:
            if slot.id in self.candidates and slot.id not in self.candidates.failures:
                entry = self.candidates.get(slot.id)
                if not (self.config.construction and entry.get("evaluation")):
                    pairs.append(ReportPair(slot.study.report, entry["candidate"], _context(slot), slot.id))
        return pairs

    def _write_candidates(self, slots: Sequence[Slot]) -> None:
        """Let the writer write candidates, and add them to the journal."""
        slots = [slot for slot in slots if slot.study and slot.regime not in FREE_REGIMES]
        tasks = [
            Task(slot.study.report, slot.kinds, f"{self.config.seed} {slot.id}", _context(slot), slot.aim)
            for slot in slots
        ]
        if tasks:
            with closing(self.writer.write(tasks)) as drafts:
                for index, draft in drafts:
                    entry = {
                        "id": slots[index].id,
                        "candidate": draft.candidate,
                        "changes": [change.model_dump() for change in draft.changes],
                        "evaluation": draft.evaluation.model_dump() if draft.evaluation else None,
                        "failure": draft.failure,
                        "usage": draft.usage,
                        "writer": _signature(self.writer),
                    }
                    self.candidates.add(entry)

    def _other_reports(self, slots: Sequence[Slot]) -> Iterator[dict[str, Any]]:
        """Journal entries of the candidates that are reports of other studies."""
        config = self.config
        by_split = {split: [s for s in self.corpus.studies if s.split == split] for split in SPLITS}
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
                    kept = config.output / "work" / "embeddings.sqlite"
                    similar[slot.split] = nearest(
                        own, kept=kept, encoder=config.encoder, count=config.neighbours, progress=self.progress
                    )
                near = similar[slot.split][places[study.id]]
                other = own[rng.choice(near)] if near else None
            else:
                drawn = (rng.choice(own) for _ in range(_TRIES))
                other = next((o for o in drawn if _is_other(study, o)), None)
            if other is None:
                yield {"id": slot.id, "failure": "no other study of the split has another report"}
            else:
                yield {"id": slot.id, "candidate": other.report, "candidate_study": other.id}

    def _records(self, failures: dict[str, str], split: str | None = None) -> Iterator[Record]:
        """The records of a split, or all; why others cannot be made is added to `failures` by id."""
        own = (slot for slot in self.slots if split in (None, slot.split))
        while some := list(islice(own, _READ_AT_ONCE)):
            pairs = self._pairs(some)
            labels = {pairs[place].id: label for place, label in self.labels.read(pairs).items()}
            failures.update({i: label.failure for i, label in labels.items() if label.failure})
            for slot in some:
                if slot.id in self.candidates.failures:
                    failures[slot.id] = self.candidates.failures[slot.id]
                elif slot.id in self.candidates and (record := self._record(slot, labels.get(slot.id))):
                    yield record

    def _record(self, slot: Slot, label: Label | None) -> Record | None:
        """The record of a slot that has a candidate; None if it has no label."""
        config, entry = self.config, self.candidates.get(slot.id)
        evaluation, source = entry.get("evaluation"), f"construction|{entry.get('writer')}"
        if not (config.construction and evaluation):
            if label is None or label.evaluation is None:
                return None
            marked = Evaluation.model_validate(label.evaluation)
            whole = with_whole_texts(marked, slot.study.report, entry["candidate"])
            evaluation, source = whole.model_dump(), label.source
        evaluation = without_marks(evaluation)
        candidate, forgery = entry["candidate"], None
        rng = random.Random(f"{config.seed} {slot.id} forged")
        if rng.random() < config.forged:
            candidate, forgery = forged(candidate, evaluation, rng)
        return Record(
            id=slot.id,
            split=slot.split,
            study=slot.study.id,
            candidate_study=entry.get("candidate_study"),
            ground_truth=slot.study.report,
            candidate=candidate,
            patient_context=context_of(slot.study.context, slot.included),
            context_included=slot.included,
            regime=slot.regime,
            error_types=list(slot.kinds),
            changes=entry.get("changes", []),
            forgery=forgery,
            raw_evaluation=evaluation,
            crimson_score=score_evaluation(evaluation)["crimson_score"],
            label_source=source,
            writer=entry.get("writer"),
            seed=config.seed,
        )


def _no_study(slot: Slot) -> str:
    if not slot.kinds:
        return f"the split {slot.split} has no study"
    what = " and ".join(kind.replace("_", " ") for kind in slot.kinds)
    return f"no study of the split {slot.split} lets the writer make {what}"


def _is_other(study: Study, other: Study) -> bool:
    apart = study.patient is None or study.patient != other.patient
    return study.id != other.id and apart and same_text(study.report) != same_text(other.report)


def _context(slot: Slot) -> Any:
    return parse_context(context_of(slot.study.context, slot.included).model_dump(), f"study {slot.study.id}")


def _signature(writer: Writer) -> str:
    return "|".join(f"{key}:{value}" for key, value in writer.signature().items())


def _check_version(work: Path) -> None:
    """Refuse to continue the run of a version that kept candidates or labels in another file."""
    for old in ("labels.jsonl", "candidates.jsonl"):
        if (work / old).exists():
            raise InputError(
                f"{work} was begun by an earlier version, which wrote {old}. Go on with that version, or give another output "
                "folder; the records that are in the folder can be used as they are."
            )


def _check_same_run(path: Path, config: GenerateConfig, corpus: Corpus) -> None:
    """Refuse to continue a run that was begun with other settings or another corpus."""
    digest = hashlib.sha256()
    for study in corpus.studies:
        digest.update(f"{study.id}\0{study.split}\0{study.report}\0".encode())
    now = config.model_dump(mode="json", exclude=_FREE)
    for engine in ("writer", "judge"):
        now[engine] = config_spec = {"spec": now[engine]["spec"], "options": dict(now[engine]["options"])}
        for speed in ("concurrency", "timeout", "max_retries", "batch_size", "api_key"):
            config_spec["options"].pop(speed, None)
    now["studies of the corpus"] = digest.hexdigest()
    check_same_run(path, now, config.output)
    write_json(path, now)


def _report(
    config: GenerateConfig, slots: Sequence[Slot], failures: dict[str, str], budget: Budget, finished: bool
) -> None:
    if finished:
        print(f"{len(slots) - len(failures)} of {len(slots)} records in {config.output}, ${budget.spent:.2f} spent.")
    for reason, count in Counter(failures.values()).most_common():
        print(f"  {count} failed: {reason}", file=sys.stderr)
    if not finished:
        raise CrimsonError(
            f"The budget of ${config.budget:.2f} pays for no more records (${budget.spent:.2f} are spent). What was paid for is in "
            f"{config.output}; raise budget and run the same command to go on."
        )


if __name__ == "__main__":
    run(main)
