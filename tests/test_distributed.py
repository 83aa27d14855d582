"""Several workers with Ray, several processes with accelerate and with evaluate: the same as one process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pyarrow.parquet
import pytest
from models import variant

from crimson_core import CrimsonScorer, InputError, JudgeError, make_pairs

ROOT = Path(__file__).resolve().parent.parent
FINDINGS = (
    "Small left effusion",
    "Large right pneumothorax",
    "Left lower lobe pneumonia",
    "Cardiomegaly",
    "Clear lungs",
)


def reports(n):
    rows = []
    for i in range(n):
        size = f"{i % 7 + 1} mm nodule in the right upper lobe."
        rows.append(
            {
                "id": f"s{i}",
                "reference": f"{FINDINGS[i % 5]}. {size}",
                "prediction": f"{FINDINGS[i % 3]}. {size}",
                "age": "70",
            }
        )
    return rows


def pairs_of(rows):
    return make_pairs([r["prediction"] for r in rows], [r["reference"] for r in rows], ids=[r["id"] for r in rows])


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def run(*arguments, launcher=(), **environment):
    command = [sys.executable, *launcher, "-m", "crimson_core.cli", "score", *map(str, arguments), "--no-progress"]
    return subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CRIMSON_STORE": "off"} | environment,
    )


# Ray


@pytest.fixture(scope="module")
def ray():
    ray = pytest.importorskip("ray")
    yield ray
    ray.shutdown()


@pytest.fixture
def ray_judge(ray):
    from crimson_core.judges.ray import RayJudge

    return lambda spec="offline", workers=2, **options: RayJudge(spec, workers=workers, **options)


def test_two_workers_give_what_one_process_gives(ray_judge):
    pairs = pairs_of(reports(60))
    here, there = CrimsonScorer("offline"), CrimsonScorer(ray_judge())
    assert there.signature == here.signature, "asked before anything is judged, as a store does"
    assert there.score(pairs) == here.score(pairs)
    assert CrimsonScorer(ray_judge(), repair=False).signature == CrimsonScorer("offline", repair=False).signature


def test_a_worker_that_is_killed_loses_nothing(ray_judge):
    pairs = pairs_of(reports(3000))
    killed, results = None, []
    for result in CrimsonScorer(ray_judge()).stream(pairs):
        if killed is None:
            workers = [p for p in psutil.Process().children(recursive=True) if "MapWorker" in p.cmdline()[0]]
            assert len(workers) == 2
            killed = workers[0]
            killed.kill()
        results.append(result)
    assert sorted(result.index for result in results) == list(range(3000))
    results.sort(key=lambda result: result.index)
    assert results == CrimsonScorer("offline").score(pairs)


def test_failures_are_those_of_the_judge(ray_judge, tiny_folder):
    # a random model's outputs end by chance only, and a prompt may be too long for it
    options = {"dtype": "float32", "max_new_tokens": 40, "device": "cpu"}
    pairs = make_pairs(["a", "b " * 5000], ["c", "d"])
    expected = CrimsonScorer(f"hf:{tiny_folder}", **options).score(pairs)
    assert [result.failure.split()[1] for result in expected] == ["output", "prompt"]
    assert CrimsonScorer(ray_judge(f"hf:{tiny_folder}", **options)).score(pairs) == expected


def test_a_judge_that_a_worker_cannot_load_is_one_clear_error(ray_judge, tmp_path):
    with pytest.raises(JudgeError, match="no model folder"):
        CrimsonScorer(ray_judge(f"hf:{tmp_path}")).score(pairs_of(reports(3)))
    with pytest.raises(InputError, match="no option 'batch_size'"):
        CrimsonScorer(ray_judge(batch_size=3)).score(pairs_of(reports(3)))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"workers": 999}, "999 CPUs"),
        ({"num_gpus": 7}, "14 GPUs"),
        ({"workers": -1}, "workers"),
        ({"spec": "nope"}, "nope"),
    ],
)
def test_impossible_workers(ray_judge, options, said):
    with pytest.raises(InputError, match=said):
        ray_judge(**options)


def test_the_command_line_on_a_cluster(tmp_path, ray, ray_judge):
    ray_judge()  # which starts Ray
    cluster = ("--engine", "ray", "--workers", 2, "--address", ray.get_runtime_context().gcs_address)
    rows = reports(30)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "p.parquet")
    here = run(tmp_path / "p.parquet", "-j", "offline", "-o", tmp_path / "here.parquet")
    there = run(tmp_path / "p.parquet", "-j", "offline", "-o", tmp_path / "there.parquet", *cluster)
    assert there.returncode == here.returncode == 0, there.stderr
    assert there.stdout == here.stdout
    table = pyarrow.parquet.read_table(tmp_path / "there.parquet")
    assert table.equals(pyarrow.parquet.read_table(tmp_path / "here.parquet"))
    assert table["id"].to_pylist() == [row["id"] for row in rows]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["here.parquet", "p.parquet", "there.parquet"]


def test_options_of_ray_want_ray(tmp_path):
    done = run(write(tmp_path / "p.jsonl", reports(1)), "-j", "offline", "--workers", 2)
    assert done.returncode == 2
    assert "--engine ray" in done.stderr


# accelerate


def launched(*arguments, processes=2):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes))
    return run(*arguments, launcher=launcher, ACCELERATE_USE_CPU="true")


def test_two_processes_give_what_one_gives(tmp_path, tiny_folder):
    path = write(tmp_path / "p.jsonl", reports(5))
    model = variant(tiny_folder, tmp_path / "model", generation={"eos_token_id": 257, "max_new_tokens": 30})
    options = (path, "-j", f"hf:{model}", "--dtype", "float32", "--batch-size", 2)
    here = run(*options, "-o", tmp_path / "here.jsonl")
    there = launched(*options, "-o", tmp_path / "there.jsonl")
    assert here.returncode == 3, here.stderr
    assert (tmp_path / "there.jsonl").read_text() == (tmp_path / "here.jsonl").read_text()
    assert there.stdout == here.stdout, "once, although there are two processes"


# evaluate


def test_two_processes_of_evaluate(tmp_path):
    code = f"""
import json, sys
import evaluate
from crimson_core import make_pairs
rank, rows = int(sys.argv[1]), json.loads(sys.argv[2])
metric = evaluate.load({str(ROOT / "crimson_metric.py")!r}, "offline", num_process=2, process_id=rank,
    experiment_id="two", cache_dir={str(tmp_path)!r})
for row in rows[rank * 3 : rank * 3 + 3]:
    metric.add(prediction=row["prediction"], reference={{"report": row["reference"], "age": row["age"]}})
result = metric.compute()
print(json.dumps(result and result["scores"]))
"""
    rows = reports(6)
    rows[1] |= {"reference": "Tortuous aorta.", "prediction": "", "age": "82"}
    rows[4] |= {"reference": "Tortuous aorta.", "prediction": "", "age": "40"}
    command = [sys.executable, "-c", code]
    processes = [
        subprocess.Popen(
            [*command, str(rank), json.dumps(rows)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for rank in (0, 1)
    ]
    (first, error), (second, other) = (process.communicate(timeout=300) for process in processes)
    assert second.strip() == "null", other + error
    pairs = make_pairs(
        [row["prediction"] for row in rows], [{"report": row["reference"], "age": row["age"]} for row in rows]
    )
    expected = [result.crimson_score for result in CrimsonScorer("offline").score(pairs)]
    assert first.strip() == json.dumps(expected), error
    assert (expected[1], expected[4]) == (1.0, 0.0), "the contexts came along"
    assert not list(tmp_path.rglob("*.arrow"))
