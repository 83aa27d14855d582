"""The output file of `crimson score`: lines while the run lasts, a format at the end, and never half a file."""

import io
import json
import os
import shutil
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from crimson_core.compare.exports import write_pairs_csv
from crimson_core.errors import CrimsonError, InputError
from crimson_core.run.files import check_writable, json_line, opened_private, written_whole
from crimson_core.run.scorer import PairResult
from crimson_core.run.tables import write_parquet

Records = Iterable[dict[str, Any]]
_START = b'{"index": '  # of a line
_NOTHING = 0  # instead of a hash
_REMEDY = "Move it away or delete it, then run again."


class Output:
    """The output of a run: JSON lines, written as pairs are done, given their format at the end, and kept if the run is interrupted.

    Until the end they are in `<output>.partial` (`.partial.jsonl` for another format), so that a file with the final name is always
    complete. What an earlier run left there is overwritten only if `stored` yields it, that is, if it is in the store. New files are
    readable by their owner only, since findings quote reports; the mode of a replaced file is kept.
    """

    def __init__(
        self, output: Path | None, source: Path, stored: Callable[[], Iterable[PairResult]], n_pairs: int
    ) -> None:
        self.output = output
        if output is None:
            return
        if output.name.endswith(".partial.jsonl"):
            raise InputError(f"output {output} has the name of a run that is not complete. Give another name.")
        check_writable(output)
        self.output = output = output.resolve()  # a link is kept, and its target is written
        if output.exists() and source.exists() and output.samefile(source):
            raise InputError(
                f"output {output} is the file of the reports, which would be overwritten. Give another path."
            )
        self.format = _WRITERS.get(output.suffix.lower())
        self.partial = output.with_name(f"{output.name}.partial{'.jsonl' * (self.format is not None)}")
        try:
            self.file = opened_private(self.partial)
        except OSError as error:
            raise InputError(f"{self.partial} cannot be written: {error.strerror}. Give another path.") from None
        if not _locked(self.file, self.partial):
            self.file.close()
            raise InputError(f"{self.partial} is being written by another run. Wait for it, or give another path.")
        remedy = _is_in_the_way(self.file, stored, n_pairs)
        if remedy:
            self.file.close()
            raise InputError(f"{self.partial} contains the results of an interrupted run. {remedy}")
        self.file.truncate(0)

    def __enter__(self) -> "Output":
        return self

    def write(self, lines: bytes) -> None:
        """Add the lines of some pairs."""
        if self.output:
            with self._writing():
                self.file.write(lines)
                self.file.flush()

    def finish(self, results: list[PairResult] | None, signature: str) -> None:
        """Give the file its final name and format: with these results, or, for None, with those that were written."""
        if not self.output:
            return
        with self._writing():
            if results is None and self.format is None:
                os.fsync(self.file.fileno())
                if self.output.exists():
                    shutil.copymode(self.output, self.partial)
                os.replace(self.partial, self.output)
                return
            self.file.seek(0)
            records = (result.as_dict() for result in results) if results else map(json.loads, self.file)
            with written_whole(self.output, binary=True, private=True) as file:
                (self.format or _write_lines)(records, signature, file)
            self.partial.unlink()

    def __exit__(self, *_: object) -> None:
        if not self.output:
            return
        with self._writing():
            self.file.close()
        if self.partial.exists():
            if self.partial.stat().st_size:
                print(f"The pairs that were judged are kept in {self.partial}.", file=sys.stderr)
            else:
                self.partial.unlink()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CrimsonError(f"output {self.output} cannot be written: {error.strerror}.") from None


def _locked(file: IO[bytes], path: Path) -> bool:
    """Lock a file for this process; False if another one has locked it, or has just renamed it."""
    with suppress(ImportError):  # Windows has no such locks
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return os.path.samestat(os.fstat(file.fileno()), path.stat())
        except OSError:
            return False
    return True


def _is_in_the_way(lines: IO[bytes], stored: Callable[[], Iterable[PairResult]], n_pairs: int) -> str | None:
    """What to do about the lines of an earlier run; None if everything in them is in the store."""
    lines.seek(0)
    found = array("q", [_NOTHING]) * n_pairs  # hashes of the evaluations, which may not fit into the memory
    left = 0
    try:
        for line in lines:
            if not line.endswith(b"\n"):
                if not line.startswith(_START[: len(line)]):
                    return _REMEDY
                break  # a kill has cut the last line, whose pair was stored before
            record = json.loads(line)
            evaluation, index = record["raw_evaluation"], record["index"]
            if index >= n_pairs:
                return (
                    f"They are of more pairs than the {n_pairs:,} of this run. To go on with that run, give the --limit "
                    f"that it had, or leave --limit out. To start afresh: {_REMEDY}"
                )
            if index < 0 or found[index] != _NOTHING:
                return _REMEDY
            if evaluation is not None:
                found[index] = _hash(evaluation)
                left += 1
    except (ValueError, KeyError, TypeError):
        return _REMEDY  # no lines of ours
    if left:
        for result in stored():
            evaluation = result.evaluation
            if evaluation is not None and found[result.index] == _hash(evaluation):
                found[result.index] = _NOTHING
                left -= 1
    return _REMEDY if left else None


def _hash(evaluation: Any) -> int:
    return hash(json.dumps(evaluation, sort_keys=True)) or 1


def _write_parquet(records: Records, _: str, file: IO[bytes]) -> None:
    write_parquet(records, file, {"index": "int64", "crimson_score": "double", "from_store": "bool"})


def _write_lines(records: Records, _: str, file: IO[bytes]) -> None:
    file.writelines(json_line(record).encode() for record in records)


def _write_json(records: Records, _: str, file: IO[bytes]) -> None:
    for number, record in enumerate(records):
        file.write((b",\n" if number else b"[\n") + json.dumps(record, ensure_ascii=False).encode())
    file.write(b"\n]\n")


def _write_csv(records: Records, signature: str, file: IO[bytes], separator: str = ",") -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    write_pairs_csv(records, signature, text, separator)
    text.detach()  # flushed, and not closed


def _write_tsv(records: Records, signature: str, file: IO[bytes]) -> None:
    _write_csv(records, signature, file, "\t")


# Formats of a finished file; other endings stay JSON lines.
_WRITERS: dict[str, Callable[[Records, str, IO[bytes]], None]] = {
    ".parquet": _write_parquet,
    ".json": _write_json,
    ".csv": _write_csv,
    ".tsv": _write_tsv,
}
ENDINGS = ("", ".jsonl", *_WRITERS)
