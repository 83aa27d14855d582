"""Passes as a GPU gets them: filled up to sizes that repeat, in one kernel, recorded. What only a GPU can show, `benchmarks.gpu` does."""

import pytest
import torch
from test_drafts import judge_of, model_of

from benchmarks.exactness import made_up_pairs, outputs
from crimson_core.judges.engines import hf
from crimson_core.judges.engines.hf import packed, recorded
from crimson_core.judges.engines.hf.decoding import CUDA_PACE

pytestmark = pytest.mark.usefixtures("one_thread")


def kernel(now, place, query, keys, values, scaling):
    """Attention from the tensors that the CUDA kernel is given, and from nothing else; places of no row hold garbage."""
    window, (_, starts, seen) = now.cache.arenas[place].window, now.places[place]
    output = torch.full((query.shape[2], query.shape[1], values.shape[2]), torch.nan)
    groups = query.shape[1] // keys.shape[1]
    for row, n_seen in enumerate(seen.tolist()):
        start, end = now.query_starts[row : row + 2].tolist()
        assert end - start <= now.longest[0] and n_seen <= now.longest[1]
        if start == end:
            continue
        first = int(starts[row])
        own = [states[first : first + n_seen].transpose(0, 1).repeat_interleave(groups, 0) for states in (keys, values)]
        distance = torch.arange(n_seen - (end - start), n_seen)[:, None] - torch.arange(n_seen)
        visible = (distance >= 0) & (distance < (window or n_seen))
        answer = torch.nn.functional.scaled_dot_product_attention(query[0, :, start:end], *own, visible, scale=scaling)
        output[start:end] = answer.transpose(0, 1)
    return output


class Graph:
    """Repeats a pass on the same memory."""

    def __init__(self, run, output):
        self.run, self.output, self.replays = run, output, 0

    def pool(self):
        return 0

    def replay(self):
        self.replays += 1
        self.output.copy_(self.run())


@pytest.fixture
def graphs(monkeypatch):
    """The graphs that are recorded, with a kernel in Python."""
    made, run_pass = [], packed.PackedModel._run

    def on_the_same_memory(model, now, sent):
        """Arenas that have grown meanwhile lie elsewhere, which a graph does not know."""
        now.stores = getattr(now, "stores", None) or [arena.store for arena in now.cache.arenas]
        others = [arena.store for arena in now.cache.arenas]
        try:
            for arena, store in zip(now.cache.arenas, now.stores, strict=True):
                arena.store = store
            return run_pass(model, now, sent)
        finally:
            for arena, store in zip(now.cache.arenas, others, strict=True):
                arena.store = store

    def record(run, _):
        output = run()
        made.append(Graph(run, output))
        output.fill_(torch.nan)  # recording does not compute
        return output, made[-1]

    monkeypatch.setattr(packed.PackedModel, "_run", on_the_same_memory)
    monkeypatch.setattr(recorded, "_record", record)
    monkeypatch.setattr(hf.decoding, "CPU_PACE", CUDA_PACE._replace(tokens=256, chunk=64))
    monkeypatch.setattr(packed, "_attend_at_once", kernel)
    monkeypatch.setattr(packed, "_has_kernel", lambda _: True)
    return made


@pytest.mark.parametrize("kind", ["gemma", "llama"])
def test_recorded_passes_write_what_generate_writes(kind, graphs):
    model, pairs = model_of(kind), made_up_pairs(12, most_words=60)
    expected = outputs(judge_of(model, "plain"), pairs)
    judge = judge_of(model, "drafts", batch_size=6)
    judge.engine.packed.record()
    assert outputs(judge, pairs) == expected
    replays = sum(graph.replays for graph in graphs)
    assert replays > judge.engine.work.passes / 2 and len(graphs) < replays / 2
    assert outputs(judge, pairs[::-1]) == expected[::-1], "with another cache, elsewhere in memory"


def test_recordings_that_fail_are_told_and_passes_go_on(graphs, monkeypatch):
    def refuse(*_):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(recorded, "_record", refuse)
    model, pairs = model_of("gemma"), made_up_pairs(4, most_words=20)
    expected = outputs(judge_of(model, "plain"), pairs)
    judge = judge_of(model, "drafts")
    judge.engine.packed.record()
    with pytest.warns(
        UserWarning, match=r"recorded as CUDA graphs \(operation not permitted when stream is capturing\)"
    ):
        assert outputs(judge, pairs) == expected


def test_memory_that_runs_out_while_recording_halves_the_batch(graphs, monkeypatch):
    record, refused = recorded._record, []

    def small_memory(run, shared):
        if not refused:
            refused.append(True)
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return record(run, shared)

    monkeypatch.setattr(recorded, "_record", small_memory)
    model, pairs = model_of("gemma"), made_up_pairs(8, most_words=20)
    expected = outputs(judge_of(model, "plain"), pairs)
    judge = judge_of(model, "drafts", batch_size=8)
    judge.engine.packed.record()
    assert outputs(judge, pairs) == expected
    assert judge.engine.batch_size < 8 and graphs


def test_only_so_many_recordings_are_kept(monkeypatch):
    monkeypatch.setattr(recorded, "_MOST", 2)
    made = []

    def record(run, shared):
        made.append(shared)
        return run().clone(), Graph(run, torch.empty(1))

    monkeypatch.setattr(recorded, "_record", record)
    recorder = recorded.Recorder(torch.device("cpu"))
    for shape in (1, 2, 3):
        for _ in range(3):
            recorder.run(shape, torch.ones(1), lambda inputs: inputs + 1)
    assert [bool(shared) for shared in made] == [False, True, False]
