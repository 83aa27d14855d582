"""Several workers with Ray, several processes with accelerate and with evaluate: the same as one process."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pyarrow.parquet
import pytest
from models import variant

from crimson_core import CrimsonScorer, InputError, JudgeError, make_pairs
from crimson_core.run import accelerate
from crimson_core.run.accelerate import AccelerateJudge, devices_of

ROOT = Path(__file__).resolve().parents[2]
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
    from crimson_core.run.ray import RayJudge

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
    with pytest.raises(JudgeError, match="not a model folder"):
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
    done = run(write(tmp_path / "p.jsonl", reports(1)), "-j", "offline", "--num-gpus", 2)
    assert done.returncode == 2
    assert "--engine ray" in done.stderr


# accelerate


LAUNCHER = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def launched(*arguments, launcher=LAUNCHER):
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


def test_two_processes_of_accelerate_launch_give_what_one_gives(tmp_path):
    path = write(tmp_path / "p.jsonl", reports(60))
    launcher = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2")
    here = run(path, "-j", "offline", "-o", tmp_path / "here.jsonl")
    there = launched(path, "-j", "offline", "-o", tmp_path / "there.jsonl", launcher=launcher)
    assert there.returncode == here.returncode == 0, there.stderr
    assert (tmp_path / "there.jsonl").read_text() == (tmp_path / "here.jsonl").read_text()


def test_an_error_in_one_process_ends_all(tmp_path, tiny_folder):
    path = write(tmp_path / "p.jsonl", reports(5))
    there = launched(path, "-j", f"hf:{tiny_folder}", "--device", "cuda:0")
    assert there.returncode != 0
    assert "device is 'cuda:0', which the launcher's processes would share" in there.stderr


SCRIPT = """
import json, os, sys, time
from crimson_core import JudgeError, make_pairs
from crimson_core.judges import Judgement
from crimson_core.run import accelerate

RANK = os.environ["RANK"]

class Told:
    def signature(self):
        return {}

    def judge(self, pairs):
        for index, pair in reversed(list(enumerate(pairs))):
            if pair.candidate == "break":
                raise JudgeError("broken in " + RANK)
            time.sleep(float(pair.context.indication) if RANK == "1" else 0)
            yield index, Judgement(failure=f"{RANK}: {len(pair.candidate)} {len(pairs)}")

accelerate.load_judge = lambda spec: Told()
judge = accelerate.AccelerateJudge("offline")
if not judge.is_main:
    judge.serve()
    sys.exit()

def run(predictions, seconds=0):
    contexts = [{"indication": str(seconds)}] * len(predictions)
    return judge.judge(make_pairs(predictions, ["x"] * len(predictions), contexts))

said = {}
def note(name, judgements):
    said[name] = sorted((index, judgement.failure) for index, judgement in judgements)

"""


@pytest.fixture
def script(tmp_path):
    """Runs code in the main one of two processes, whose judges say who they are, and gives what it said."""

    def run(code):
        path = tmp_path / "script.py"
        path.write_text(f"{SCRIPT}{code}\njudge.close()\nopen(sys.argv[1], 'w').write(json.dumps(said))")
        done = subprocess.run(
            [sys.executable, *LAUNCHER, str(path), str(tmp_path / "said.json")],
            capture_output=True, text=True, timeout=120, env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads((tmp_path / "said.json").read_text())

    return run


def test_each_process_judges_its_share(script):
    said = script(
        'note("five", run(["a" * n for n in range(5)]))\nnote("one", run(["a"]))\nnote("none", judge.judge([]))'
    )
    assert said["five"] == [[0, "0: 0 3"], [1, "1: 1 2"], [2, "0: 2 3"], [3, "1: 3 2"], [4, "0: 4 3"]]
    assert (said["one"], said["none"]) == ([[0, "0: 1 1"]], [])


def test_no_process_waits_for_another_but_at_the_end(script):
    said = script(
        """
judgements = run(["a"] * 3000, seconds=0.5)
note("first", [next(judgements) for _ in range(1500)])
note("then", [next(judgements) for _ in range(2)])
judgements.close()
note("again", run(["b"] * 3))
"""
    )
    others = [failure for _, failure in said["first"] if failure.startswith("1")]
    assert len(others) < 20, "the main process did not wait"
    assert len(said["then"]) == 2, "and gets the others' as they are made"
    assert [failure[0] for _, failure in said["again"]] == ["0", "1", "0"], "closing early stopped the other process"


def test_what_a_judge_of_another_process_raises_is_raised_in_the_main_one(script):
    said = script(
        """
for broken in (0, 1):
    try:
        list(run(["break" if n % 2 == broken else "a" for n in range(4)]))
    except JudgeError as error:
        said[broken] = str(error)
note("again", run(["b"] * 2))
"""
    )
    assert (said["0"], said["1"]) == ("broken in 0", "broken in 1")
    assert said["again"] == [[0, "0: 1 1"], [1, "1: 1 1"]]


def test_more_than_the_store_takes_at_once(script):
    said = script('note("long", run(["a", "b" * 9_000_000]))')
    assert said["long"][1] == [1, "1: 9000000 1"]


@pytest.mark.parametrize(
    ("rank", "processes", "visible", "there", "each", "expected"),
    [
        (0, 4, None, 4, 1, "0"),
        (3, 4, None, 8, 1, "3"),
        (1, 2, None, 4, 2, "2,3"),
        (1, 2, "5, 7", 2, 1, "7"),
        (1, 2, "4,5,6,7", 4, 2, "6,7"),
        (1, 2, "GPU-8932f937,GPU-d2e1a0c4", 2, 1, "GPU-d2e1a0c4"),
        (0, 1, "1,2,99,3", 2, 2, "1,2"),
    ],
)
def test_each_process_has_gpus_of_its_own(rank, processes, visible, there, each, expected):
    assert devices_of(rank, processes, visible, there, each) == expected


@pytest.mark.parametrize(
    ("processes", "visible", "there", "each", "said"),
    [
        (2, None, 1, 1, "2 processes with 1 GPU each need 2, and 1 can be seen .* Start 1, or show more"),
        (4, "0,1,2,3", 4, 2, "4 processes with 2 GPUs each need 8, and 4 can be seen .* Start 2, or"),
        (2, "0,1,99,3", 2, 2, "need 4, and 2 can be seen"),
        (2, None, 1, 2, "Let a process take fewer GPUs"),
        (2, "", 0, 1, "0 can be seen"),
    ],
)
def test_gpus_that_do_not_suffice(processes, visible, there, each, said):
    for rank in range(processes):  # so that the main process says it too
        with pytest.raises(InputError, match=said):
            devices_of(rank, processes, visible, there, each)


PLACE = {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4", "MASTER_PORT": "29500"}


@pytest.fixture
def on_gpus(monkeypatch):
    """The second of four processes on one of two machines with eight GPUs each; gives what a judge met when it was built."""
    met = {}

    def load_judge(spec, **options):
        met.update(spec=spec, options=options, environment=dict(os.environ))
        os.environ["MASTER_PORT"] = "left behind"

    for name, value in (PLACE | {"TORCHELASTIC_USE_AGENT_STORE": "True"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(accelerate, "load_judge", load_judge)
    monkeypatch.setattr(accelerate, "_Messages", lambda: None)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 8)
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    monkeypatch.setattr("torch.accelerator.device_count", lambda: 8)
    monkeypatch.setattr("torch.accelerator.current_accelerator", lambda: SimpleNamespace(type="cuda"))
    monkeypatch.setattr("torch.accelerator.set_device_index", lambda index: met.update(current=index))
    return met


def test_vllm_is_built_with_its_own_gpus_and_without_the_launcher(on_gpus, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7,6,5,4,3,2,1,0")
    judge = AccelerateJudge("vllm:model", tensor_parallel_size=2)
    seen = on_gpus["environment"]
    assert seen["CUDA_VISIBLE_DEVICES"] == "5,4"
    assert not seen.keys() & {*PLACE, "TORCHELASTIC_USE_AGENT_STORE"}
    assert on_gpus["options"] == {"tensor_parallel_size": 2}
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "7,6,5,4,3,2,1,0"
    assert PLACE.items() <= os.environ.items()
    assert not judge.is_main
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    AccelerateJudge("vllm:model")
    assert on_gpus["environment"]["CUDA_VISIBLE_DEVICES"] == "1"
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_vllm_without_gpus_is_left_alone(on_gpus, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    AccelerateJudge("vllm:model")
    assert "CUDA_VISIBLE_DEVICES" not in on_gpus["environment"]
    assert "RANK" not in on_gpus["environment"]


@pytest.mark.parametrize(
    ("spec", "options", "said"),
    [
        ("vllm:m", {"tensor_parallel_size": 3}, "4 processes with 3 GPUs each need 12, and 8"),
        ("vllm:m", {"tensor_parallel_size": 0}, "tensor_parallel_size is 0"),
        ("hf:m", {"device": "cuda:1"}, "device is 'cuda:1'"),
        ("hf:m,device=cuda", {}, "device is 'cuda'"),
    ],
)
def test_processes_that_would_share_a_gpu_are_refused(on_gpus, spec, options, said):
    with pytest.raises(InputError, match=said):
        AccelerateJudge(spec, **options)
    assert "spec" not in on_gpus
    assert PLACE.items() <= os.environ.items()


def test_hf_takes_the_gpu_of_its_number(on_gpus, monkeypatch):
    AccelerateJudge("hf:m")
    assert (on_gpus["options"], on_gpus["current"]) == ({"device": "cuda:1"}, 1)
    AccelerateJudge("hf:m", device="cpu")
    assert on_gpus["options"] == {"device": "cpu"}
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    AccelerateJudge("hf:m")
    assert on_gpus["options"] == {"device": "cpu"}
    monkeypatch.setenv("ACCELERATE_USE_CPU", "False")
    monkeypatch.setattr("torch.accelerator.device_count", lambda: 1)
    with pytest.raises(InputError, match="4 processes with 1 GPU each need 4, and 1"):
        AccelerateJudge("hf:m")


def test_one_process_alone_needs_no_launcher():
    judge = AccelerateJudge("offline")
    assert judge.is_main
    pairs = pairs_of(reports(5))
    assert CrimsonScorer(judge).score(pairs) == CrimsonScorer("offline").score(pairs)
    judge.close()


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
