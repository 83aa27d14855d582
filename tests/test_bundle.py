"""A bundle is made with the real pip, put up without an index, and refused where it is damaged or for another machine."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants
from packaging.markers import Marker

from bundle.make import main
from bundle.target import Target, default_platform
from bundle.weights import find_weights, judge_specs
from bundle.wheels import choose, read_have
from crimson_core.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
PYTHON = "{}.{}".format(*sys.version_info)
COMMIT = "0123456789abcdef0123456789abcdef01234567"
NOWHERE = "http://127.0.0.1:9/"
WEIGHTS = os.urandom(1_500_000)


def _model(folder, config="config.json", content="{}"):
    folder.mkdir(parents=True)
    (folder / config).write_text(content)
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    (folder / "training_run.json").write_text(str(folder))
    return folder


def _make(output, weights):
    main(
        output=output,
        python=PYTHON,
        platform=[default_platform()],
        weights=[str(weights), "someone/adapter"],
        part_size=1,
    )


def _install(bundle, *arguments, path=""):
    environment = os.environ | {"PIP_INDEX_URL": NOWHERE, "PIP_NO_INDEX": "1", "PATH": f"{path}:{os.environ['PATH']}"}
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PYTHONPATH"):
        environment.pop(name, None)
    command = ["sh", bundle / "install.sh", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def _program(folder, name, text):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)
    return folder / name


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return _model(tmp_path_factory.mktemp("here") / "tiny")


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory):
    """A Hub's cache with one adapter in it, and no Hub."""
    folder = tmp_path_factory.mktemp("cache")
    adapter = _model(
        folder / "models--someone--adapter" / "snapshots" / COMMIT,
        "adapter_config.json",
        '{"base_model_name_or_path": "someone/tiny"}',
    )
    (adapter.parent.parent / "refs").mkdir()
    (adapter.parent.parent / "refs" / "main").write_text(COMMIT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_CACHE", str(folder))
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory, weights):
    """A bundle for this Python. No test writes to its files."""
    output = tmp_path_factory.mktemp("made") / "bundle"
    _make(output, weights)
    return output


@pytest.fixture
def copied(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "bundle", copy_function=os.link))


def _replace(path, content):
    path.unlink()  # the copy is the same file as the original
    path.write_bytes(content)


def test_the_manifest_lists_every_file_and_nothing_of_this_machine(made, weights):
    manifest = json.loads((made / "manifest.json").read_text())
    listed = {file["path"]: file for file in manifest["files"]}
    there = {path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file()}
    assert there == {*listed, "manifest.json", "SHA256SUMS"}
    for path, file in listed.items():
        content = (made / path).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file["size"], file["sha256"])
        assert len(content) <= 1 << 20
    assert (manifest["python"], manifest["complete"], manifest["tested_versions"]) == (PYTHON, True, True)
    assert not any("training_run" in path for path in there)
    for name in ("manifest.json", "SHA256SUMS", "bundle.txt", "install.sh"):
        text = (made / name).read_text()
        assert "://" not in text
        assert not any(str(folder) in text for folder in (ROOT, made, weights.parent, Path.home()))


def test_it_scores_where_there_is_no_index(made, tmp_path):
    target = tmp_path / "with space" / "crimson"
    (target / "venv" / "bin").mkdir(parents=True)
    (target / ".installing").touch()  # an earlier run was killed
    done = _install(made, "--python", sys.executable, target)
    assert done.returncode == 0, done.stderr
    assert 'crimson score reports.csv --judge "hf:$CRIMSON_WEIGHTS/tiny"' in done.stdout
    assert 'crimson score reports.csv --judge "hf:someone/adapter,base=$CRIMSON_WEIGHTS/tiny"' in done.stdout

    assert (target / "weights" / "tiny" / "model.safetensors").read_bytes() == WEIGHTS
    hub = target / "hub" / "models--someone--adapter"
    assert (hub / "snapshots" / COMMIT / "model.safetensors").read_bytes() == WEIGHTS
    assert (hub / "refs" / "main").read_text() == COMMIT
    assert {path.name for path in target.iterdir()} == {"env.sh", "hub", "source", "venv", "weights"}

    metric = "import evaluate; print(evaluate.load('crimson_metric.py', 'offline').compute(predictions=['Clear.'], references=['Clear.'])['scores'])"
    script = (
        f'. "{target}/env.sh" && cd "{target}/source" && which crimson && echo $HF_HUB_CACHE && '
        f'crimson score examples/reports.csv --judge offline --no-store && python -c "{metric}"'
    )
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    done = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True)
    assert done.stdout.startswith(f"{target}/venv/bin/crimson\n{target}/hub\n"), done.stderr
    assert "CRIMSON score  0.573  mean of 13 pairs" in done.stdout
    assert done.stdout.endswith("[1.0]\n"), done.stderr

    done = _install(made, "--python", sys.executable, target)
    assert (done.returncode, "holds an installation already" in done.stderr) == (1, True)


def test_what_is_damaged_or_missing_is_named_and_made_anew_alone(copied, tmp_path, weights, capsys):
    sums = (copied / "SHA256SUMS").read_text()
    part = copied / "weights" / "tiny" / "model.safetensors.part-00001"
    _replace(part, bytes(len(part.read_bytes())))
    (wheel,) = (copied / "wheels").glob("typer-*.whl")
    wheel.unlink()
    (copied / "wheels" / "typer-99-py3-none-any.whl").write_bytes(b"")
    done = _install(copied, "--python", sys.executable, tmp_path / "to")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "install.sh: weights/tiny/model.safetensors.part-00001 is damaged: copy it again",
        f"install.sh: wheels/{wheel.name} is missing: copy it again",
        "install.sh: wheels/typer-99-py3-none-any.whl does not belong to this bundle: remove it",
    ]
    assert not (tmp_path / "to").exists()

    _make(copied, weights)
    (fetched,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("fetched")]
    assert fetched == f"fetched 1 of 1: {wheel.name}"
    # but for our own files, which somebody may be writing just now
    assert {line for line in sums.splitlines() if "/" in line and "crimson_metric" not in line} <= set(
        (copied / "SHA256SUMS").read_text().splitlines()
    )
    assert not (copied / "wheels" / "typer-99-py3-none-any.whl").exists()

    (copied / "SHA256SUMS").unlink()  # as while it is being made
    done = _install(copied, "--python", sys.executable, tmp_path / "to")
    assert (
        done.stderr == "install.sh: SHA256SUMS is missing: this bundle is not whole; copy it again, or make it again\n"
    )


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            "3.9 cpython x86_64 2.36 False /",
            f"this bundle is for Python {PYTHON}; found 3.9: make one with --python 3.9",
        ),
        (f"{PYTHON} pypy x86_64 2.36 False /", "this bundle is for CPython"),
        (
            f"{PYTHON} cpython riscv64 2.36 False /",
            "this machine is riscv64: make one with --platform manylinux_2_28_riscv64",
        ),
        (
            f"{PYTHON} cpython MACHINE 2.17 False /",
            "glibc 2.28 or later; found 2.17: make one with --platform manylinux_2_17_",
        ),
        (f"{PYTHON} cpython MACHINE none False /", "this machine has no glibc"),
    ],
)
def test_another_machine_is_refused(made, tmp_path, answer, message):
    machine = json.loads((made / "manifest.json").read_text())["platform"].removeprefix("manylinux_2_28_")
    python = _program(tmp_path / "bin", "python", f"echo {answer.replace('MACHINE', machine)}")
    done = _install(made, "--python", python, tmp_path / "to")
    assert (done.returncode, done.stderr.count("\n"), message in done.stderr) == (1, 1, True), done.stderr
    assert not (tmp_path / "to").exists()


def test_a_folder_that_cannot_take_it_is_refused(made, tmp_path):
    full = _program(tmp_path / "bin", "df", "echo head; echo disk 1000 990 10240 99% /").parent
    done = _install(made, "--python", sys.executable, tmp_path / "to", path=full)
    assert (done.returncode, "no space:" in done.stderr, "and 10 MiB are free" in done.stderr) == (1, True, True)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine").touch()
    done = _install(made, "--python", sys.executable, tmp_path / "taken")
    assert (done.returncode, "is not empty: give another FOLDER" in done.stderr) == (1, True)
    assert not (tmp_path / "to").exists()


def test_nothing_is_left_of_an_installation_that_fails(copied, tmp_path):
    (wheel,) = (copied / "wheels").glob("typer-*.whl")
    wheel.unlink()
    sums = [line for line in (copied / "SHA256SUMS").read_text().splitlines(True) if wheel.name not in line]
    _replace(copied / "SHA256SUMS", "".join(sums).encode())
    done = _install(copied, "--python", sys.executable, tmp_path / "to")
    assert done.returncode == 1
    assert "install.sh: pip: " in done.stderr
    assert "typer" in done.stderr
    assert not (tmp_path / "to").exists()


def test_what_the_target_has_is_left_out_where_it_fits(made, tmp_path):
    names = {path.name.split(".part-")[0] for path in (made / "wheels").iterdir()}
    there = dict(name.split("-")[:2] for name in names)
    for name in ("crimson_metric", "aiohttp", "datasets", "evaluate", "numpy", "pandas", "pyarrow", "scipy", "rich"):
        del there[name]
    file = tmp_path / "have.txt"
    file.write_text(
        "# theirs\nrich==13.1.0\nPyArrow==25.0.0+theirs\nnumpy @ file:///x/numpy-2.4.6-cp312-cp312-linux_x86_64.whl\n"
        + "pandas @ file:///build/pandas\nleftpad==1.0\n"
        + "".join(f"{name}=={version}\n" for name, version in there.items())
    )
    have, unread = read_have(file)
    assert unread == ["pandas"]
    assert (have["rich"], have["pyarrow"], have["numpy"]) == ("13.1.0", "25.0.0+theirs", "2.4.6")
    (own,) = (made / "wheels").glob("crimson_metric-*")
    choice = choose(own, [], Target.of("3.12", ["manylinux_2_28_x86_64"]), ROOT / "requirements.txt", have)
    assert choice.left_out["pyarrow"] == "25.0.0+theirs"
    assert choice.left_out["fsspec"] == there["fsspec"]
    assert choice.unfit == {"rich": "crimson-metric needs >=14.0"}
    # aiohttp is asked for by an extra of fsspec, which is there
    assert [wheel.name for wheel in choice.wheels] == [
        "aiohttp",
        "datasets",
        "evaluate",
        "pandas",
        "pip",
        "rich",
        "scipy",
    ]
    assert any("cp312" in wheel.filename for wheel in choice.wheels)


def test_a_target_takes_wheels_of_older_systems_and_its_own_markers():
    target = Target.of("3.13", ["manylinux2014_aarch64", "manylinux_2_28_aarch64"])
    assert (target.platforms[0], target.platforms[-1]) == ("manylinux_2_28_aarch64", "manylinux2014_aarch64")
    assert target.needs(Marker('python_version >= "3.13" and platform_machine == "aarch64"'), "")
    assert not target.needs(Marker('python_version < "3.13" or extra == "x"'), "")
    assert target.needs(Marker('extra == "x"'), "x")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--python", "3.9"), "python is '3.9', but crimson-metric needs >=3.11"),
        (("--python", "three"), "python is 'three'. Give the target's major and minor version, such as 3.12"),
        (("--platform", "win_amd64"), "platform is 'win_amd64'. Bundles are for Linux with glibc"),
        (("--platform", "manylinux_2_28_aarch64", "--platform", "manylinux_2_28_x86_64"), "several architectures"),
        (("--extra", "gpu"), "extra is 'gpu', but crimson-metric has only"),
        (("--have", "nowhere.txt"), "have nowhere.txt cannot be read"),
        (("--part-size", "0"), "part-size is 0.0"),
        (("--weights", "examples"), "weights examples is no model and no adapter"),
    ],
)
def test_what_cannot_be_bundled_is_one_line(tmp_path, options, message):
    command = [sys.executable, "-m", "bundle.make", "--output", tmp_path / "to", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n"), message in done.stderr) == (2, 1, True), done.stderr


def test_a_folder_that_is_no_bundle_is_left_alone(tmp_path, weights):
    (tmp_path / "mine").touch()
    with pytest.raises(InputError, match="holds something that is no bundle"):
        _make(tmp_path, weights)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_adapters_find_their_base(tmp_path):
    models = [_model(tmp_path / name) for name in ("one", "two")]
    adapter = _model(tmp_path / "a", "adapter_config.json", '{"base_model_name_or_path": "/elsewhere/two"}')
    other = _model(tmp_path / "b", "adapter_config.json", "not JSON")
    assert judge_specs(find_weights(list(map(str, [*models, adapter, other])))) == [
        "hf:$CRIMSON_WEIGHTS/one",
        "hf:$CRIMSON_WEIGHTS/two",
        "hf:$CRIMSON_WEIGHTS/a,base=$CRIMSON_WEIGHTS/two",
        "hf:$CRIMSON_WEIGHTS/b,base=FOLDER_OF_ITS_BASE_MODEL",
    ]
    with pytest.raises(InputError, match="two are called one"):
        find_weights([str(models[0]), str(_model(tmp_path / "sub" / "one"))])
