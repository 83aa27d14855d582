"""`StoredJudge`: a judge whose judgements are kept, so that it judges only what has not been judged before."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

from crimson_core.errors import InputError
from crimson_core.judges.base import IN_MEMORY, Judge, Judgement, repeated
from crimson_core.protocol.pair import ReportPair
from crimson_core.run.guarded import judged
from crimson_core.run.store import Store, StoredJudgement, judgement_key

_TOGETHER, _LONGEST = 500, 0.5  # judgements of rules in one transaction, and seconds of judging


class _Unwritten(NamedTuple):
    """A judgement that is to be written, where it belongs, and how it came about."""

    key: bytes
    places: list[int]
    judgement: Judgement
    answered: dict[str, str]
    seconds: float


class StoredJudge:
    """Reads what is in a store, has another judge judge the rest, and writes its judgements as they arrive: those of a model each at
    once, those of rules some at a time, of which a kill loses half a second's at most.

    Pairs that are identical but for their ids are judged once. A judgement that was read is told by `from_store`, and its
    failure says so in words.

    Args:
        judge: What judges the rest.
        path: The store. It is open only while pairs are judged.
        retry_failures: Judge again what has failed before.

    Raises:
        InputError: The judge's signature does not tell its model from others.
    """

    def __init__(self, judge: Judge, path: Path, *, retry_failures: bool = False) -> None:
        if IN_MEMORY in judge.signature().values():
            raise InputError(
                "store: the signature of a judge around a model in memory stays the same while the model is trained, so its "
                "judgements cannot be kept. Save the model and judge with its folder, or leave store out."
            )
        self._judge, self._path, self._retry_failures = judge, path, retry_failures
        self._signatures: list[Mapping[str, str]] = []

    def judge(self, pairs: Sequence[ReportPair]) -> Generator[tuple[int, Judgement], None, None]:
        """Yield (position in `pairs`, judgement), those of the store first; see `crimson_core.judges.Judge`.

        Raises:
            StoreError: The store cannot be read or written. What was judged before is kept.
        """
        asked = _asked(self._judge)
        self._signatures = []
        with Store(self._path) as store:
            store.check_writable()
            places = _places(asked, pairs)
            for key, stored in store.read(list(places), failures=not self._retry_failures):
                self._note(stored.signature)
                yield from ((place, _told(stored)) for place in places.pop(key))
            if places:
                yield from self._judge_rest(store, asked, pairs, places)

    def stored(self, pairs: Sequence[ReportPair]) -> Iterator[tuple[int, Judgement]]:
        """Yield (position in `pairs`, judgement) of those that are in the store; nothing is judged."""
        places = _places(_asked(self._judge), pairs)
        self._signatures = []
        with Store(self._path) as store:
            for key, stored in store.read(places):
                self._note(stored.signature)
                yield from ((place, _told(stored)) for place in places[key])

    def signature(self) -> dict[str, str]:
        """The judge's; where a field differs between the judgements of the last run, its values joined by +."""
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
        # A model's judgement took seconds, or was paid for, and the next one may be long in coming: it is written at once. Rules
        # take a millisecond, and a transaction as long.
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
                    unwritten.append(_Unwritten(key, at, judgement, self._judge.signature(), now - started))
                    if len(unwritten) >= most or now - written >= _LONGEST:
                        yield from self._write(store, asked, pairs, unwritten)
                        written = perf_counter()
                    started = perf_counter()
            finally:  # where the run breaks off, too, of which nobody takes the results
                done = self._write(store, asked, pairs, unwritten)
            yield from done

    def _write(
        self, store: Store, asked: Mapping[str, str], pairs: Sequence[ReportPair], unwritten: "list[_Unwritten]"
    ) -> list[tuple[int, Judgement]]:
        """Write what is unwritten, and give (position, judgement) of it as it now stands in the store."""
        new, unwritten[:] = list(unwritten), []
        if not new:
            return []
        with store.together():
            added = [store.add(asked, own.answered, pairs[own.places[0]], own.judgement, own.seconds) for own in new]
        done = []
        for own, is_ours in zip(new, added, strict=True):
            copies = own.places
            if is_ours:
                self._note(own.answered)
                done.append((copies[0], own.judgement))
                copies = copies[1:]
            if copies:  # of another run, where it was faster, so that it gives the same as this one
                ((_, stored),) = store.read([own.key])
                self._note(stored.signature)
                done += [(place, _told(stored)) for place in copies]
        return done

    def _note(self, signature: Mapping[str, str]) -> None:
        if signature not in self._signatures:
            self._signatures.append(signature)


def _asked(judge: Judge) -> dict[str, str]:
    """The signature before the judge has answered, which is the same in every process."""
    return getattr(judge, "asked_signature", judge.signature)()


def _places(asked: Mapping[str, str], pairs: Sequence[ReportPair]) -> dict[bytes, list[int]]:
    """Key -> positions of the pairs that have it."""
    places: dict[bytes, list[int]] = {}
    for place, pair in enumerate(pairs):
        places.setdefault(judgement_key(asked, pair), []).append(place)
    return places


def _told(stored: StoredJudgement) -> Judgement:
    """A judgement from the store, which says so where it is a failure."""
    judgement = stored.judgement
    if judgement.failure is None:
        return judgement
    return replace(judgement, failure=f"{judgement.failure} (on {stored.judged_at[:10]}, read from the store)")
