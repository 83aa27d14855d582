"""`StoredJudge`: a judge with a store, which judges only pairs that have not been judged before."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

from crimson_core.errors import InputError
from crimson_core.judges.base import IN_MEMORY, Judge, Judgement, repeated
from crimson_core.protocol.pair import ReportPair
from crimson_core.run.guarded import judged
from crimson_core.run.store import Made, Store, StoredJudgement, judgement_key, made_now

_TOGETHER, _LONGEST = 500, 0.5  # judgements of rules in one transaction, and seconds of judging


class StoredJudge:
    """Reads judgements from a store, has another judge make the missing ones, and writes these as they arrive.

    A model's judgements are written one by one, the offline judge's in groups, of which a kill loses at most half a
    second. Pairs that differ only in their ids are judged once. A judgement from the store has `from_store` set, and
    its failure says so too.

    Args:
        judge: Makes the missing judgements.
        path: The store.
        retry_failures: Judge pairs again whose stored judgement is a failure.
        in_groups: The caller takes all judgements of a call before it uses one. They come before they are written then,
            since so many evaluations are much work for Python's garbage collector. For judges that answer the same twice.

    Raises:
        InputError: The judge's signature does not identify its model.
    """

    def __init__(self, judge: Judge, path: Path, *, retry_failures: bool = False, in_groups: bool = False) -> None:
        if IN_MEMORY in judge.signature().values():
            raise InputError(
                "store: the signature of a judge around a model in memory stays the same while the model is trained, so its "
                "judgements cannot be kept. Save the model and judge with its folder, or leave store out."
            )
        self._judge, self._path, self._retry_failures, self._in_groups = judge, path, retry_failures, in_groups
        self._signatures: list[Mapping[str, str]] = []
        self._store: Store | None = None

    def judge(self, pairs: Sequence[ReportPair]) -> Generator[tuple[int, Judgement], None, None]:
        """Yield (position in `pairs`, judgement), stored ones first; see `crimson_core.judges.Judge`.

        Raises:
            StoreError: The store cannot be read or written. Earlier judgements are kept.
        """
        asked = _asked(self._judge)
        self._signatures = []
        with self.kept_open() as store:
            places = _places(asked, pairs)
            for key, stored in store.read(list(places), failures=not self._retry_failures):
                self._note(stored.signature)
                yield from ((place, _marked_as_stored(stored)) for place in places.pop(key))
            if places:
                yield from self._judge_rest(store, asked, pairs, places)

    @contextmanager
    def kept_open(self) -> Iterator[Store]:
        """The store, checked to be writable; `judge` does not open it anew meanwhile."""
        if self._store is not None:
            yield self._store
            return
        with Store(self._path) as store:
            store.check_writable()
            self._store = store
            try:
                yield store
            finally:
                self._store = None

    def stored(self, pairs: Sequence[ReportPair]) -> Iterator[tuple[int, Judgement]]:
        """Yield (position in `pairs`, judgement) of the stored pairs; nothing is judged."""
        places = _places(_asked(self._judge), pairs)
        self._signatures = []
        with Store(self._path) as store:
            for key, stored in store.read(places):
                self._note(stored.signature)
                yield from ((place, _marked_as_stored(stored)) for place in places[key])

    def signature(self) -> dict[str, str]:
        """The judge's signature; values that differ between the judgements of the last run are joined by +."""
        signatures = self._signatures or [self._judge.signature()]
        merged: dict[str, str] = {}
        for field in dict.fromkeys(field for signature in signatures for field in signature):
            values = {signature[field] for signature in signatures if field in signature}
            if len(values) > 1:  # a judge may have joined some already
                values = {part for value in values for part in value.split("+")}
            merged[field] = "+".join(sorted(values))
        return merged

    def _judge_rest(
        self, store: Store, asked: Mapping[str, str], pairs: Sequence[ReportPair], places: dict[bytes, list[int]]
    ) -> Iterator[tuple[int, Judgement]]:
        waiting = dict(enumerate(places.items()))
        # A model's judgement took seconds or cost money, so it is written at once. A judgement by rules takes no longer
        # than a transaction.
        most = _TOGETHER if asked.get("judge", "").startswith("offline") else 1
        unwritten: list[_Unwritten] = []
        with closing(judged(self._judge, [pairs[first] for first, *_ in places.values()])) as judgements:
            try:
                started = written = perf_counter()
                for index, judgement in judgements:
                    now = perf_counter()
                    if index not in waiting:
                        raise repeated(index)
                    key, at = waiting.pop(index)
                    made = made_now(key, pairs[at[0]], judgement, self._judge.signature(), now - started)
                    if self._in_groups:
                        unwritten.append(_Unwritten(made))
                        yield at[0], judgement
                        yield from ((place, replace(judgement, from_store=True)) for place in at[1:])
                    else:
                        unwritten.append(_Unwritten(made, at, judgement))
                    if len(unwritten) >= most or now - written >= _LONGEST:
                        yield from self._write(store, asked, unwritten)
                        written = perf_counter()
                    started = perf_counter()
            finally:  # also if the run is interrupted, when nobody takes the results
                done = self._write(store, asked, unwritten)
            yield from done

    def _write(
        self, store: Store, asked: Mapping[str, str], unwritten: list["_Unwritten"]
    ) -> list[tuple[int, Judgement]]:
        """Write the unwritten judgements, and return (position, judgement) as they are in the store now."""
        new, unwritten[:] = list(unwritten), []
        if not new:
            return []
        done = []
        added = store.add(asked, [made for made, *_ in new])
        for (made, copies, judgement), is_ours in zip(new, added, strict=True):
            if is_ours:
                self._note(made.answered)
                if judgement is not None:
                    done.append((copies[0], judgement))
                copies = copies[1:]
            if copies:  # as stored: if another run was faster, both give the same
                ((_, stored),) = store.read([made.key])
                self._note(stored.signature)
                done += [(place, _marked_as_stored(stored)) for place in copies]
        return done

    def _note(self, signature: Mapping[str, str]) -> None:
        if signature not in self._signatures:
            self._signatures.append(signature)


class _Unwritten(NamedTuple):
    made: Made
    places: Sequence[int] = ()  # of the pairs that wait for it
    judgement: Judgement | None = None


def _asked(judge: Judge) -> dict[str, str]:
    """The signature before any answer, which is the same in every process."""
    return getattr(judge, "asked_signature", judge.signature)()


def _places(asked: Mapping[str, str], pairs: Sequence[ReportPair]) -> dict[bytes, list[int]]:
    """Key -> positions of its pairs."""
    places: dict[bytes, list[int]] = {}
    for place, pair in enumerate(pairs):
        places.setdefault(judgement_key(asked, pair), []).append(place)
    return places


def _marked_as_stored(stored: StoredJudgement) -> Judgement:
    """A stored judgement; a failure gets a note that it was read from the store."""
    judgement = stored.judgement
    if judgement.failure is None:
        return judgement
    return replace(judgement, failure=f"{judgement.failure} (on {stored.judged_at[:10]}, read from the store)")
