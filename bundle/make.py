"""Make a bundle for machines without a network: `python -m bundle.make --help`.

A bundle contains wheels for the target's Python and platform, this package as a wheel, the sources that are not installed,
weights, and `install.sh`. No file is larger than a given size: larger ones are cut into parts. After an interruption, the
same command continues and fetches only what is missing or damaged. docs/air-gapped.md explains how to use a bundle.
"""

import gzip
import io
import json
import shutil
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from packaging.specifiers import SpecifierSet

from bundle.parts import File, find, join, listed, put, write
from bundle.target import Target, default_platform
from bundle.weights import Weights, find_weights, judge_specs
from bundle.wheels import Choice, Wheel, build_wheel, choose, fetch, in_brackets, read_have
from crimson_core.errors import InputError
from training.command import run

ROOT = Path(__file__).resolve().parent.parent
# Sources that are not installed. The patterns name the project's own files, since data may lie beside them.
SOURCES = (
    *("README.md", "LICENSE", "pyproject.toml", "requirements.txt", "crimson_metric.py", "docs/*.md"),
    *("examples/*.py", "examples/*.csv", "examples/*.yaml"),
    *("benchmarks/**/*.py", "benchmarks/**/*.yaml", "benchmarks/**/*.sh", "benchmarks/**/*.md"),
    *("training/**/*.py", "training/**/*.yaml", "training/**/*.jinja", "training/**/*.md"),
)
_MIB = 1 << 20
_PLATFORMS = [default_platform()]
_MANIFEST, _SUMS = "manifest.json", "SHA256SUMS"  # the sums are written last: without them a bundle is incomplete
_SCRATCH = ".fetching-"


def main(
    output: Annotated[Path, typer.Option(help="Folder of the bundle; an incomplete bundle is continued.")] = Path(
        "dist/bundle"
    ),
    python: Annotated[str, typer.Option(help="The target's Python.")] = "{}.{}".format(*sys.version_info),
    platform: Annotated[
        list[str],
        typer.Option(help="The target's platform; the wheels of older glibc are taken too. May be repeated."),
    ] = _PLATFORMS,
    extra: Annotated[list[str], typer.Option(help="Extra of crimson-metric, such as hf. May be repeated.")] = [],  # noqa: B006 - typer copies it
    have: Annotated[
        Path | None,
        typer.Option(help="Output of `pip list --format=freeze` on the target: packages of it that fit are left out."),
    ] = None,
    weights: Annotated[
        list[str], typer.Option(help="Folder or Hub id of a model or an adapter. May be repeated.")
    ] = [],  # noqa: B006
    part_size: Annotated[float, typer.Option(help="Most MiB of one file; larger ones are cut.")] = 45,
) -> None:
    """Make a folder with everything that CRIMSON needs on a machine without a network."""
    target = Target.of(python, platform)
    if not part_size >= 0.01:
        raise InputError(f"part-size is {part_size}. Give a number of MiB, at least 0.01.")
    there, unread = read_have(have) if have else ({}, [])
    if unread:
        print(f"Brought along, since {have} names no version that can be read: {', '.join(unread)}")
    found = find_weights(weights)
    try:
        make(output, target, extra, there, found, int(part_size * _MIB))
    except OSError as error:
        raise InputError(
            f"output {output} cannot be written: {error.strerror or error}. Make room or give another folder; what is "
            "there is kept for the next run."
        ) from None


def make(
    output: Path,
    target: Target,
    extras: Sequence[str],
    have: Mapping[str, str],
    weights: Sequence[Weights],
    part_size: int,
) -> None:
    """Make a bundle, or continue an incomplete one, and print its contents.

    Raises:
        InputError: The folder contains something else, an extra does not exist, or this package does not support the
            target's Python.
        BundleError: No wheels fit, or one cannot be fetched.
        OSError: The folder cannot be written.
    """
    _check(extras, target)
    _begin(output)
    with TemporaryDirectory(dir=output, prefix=_SCRATCH) as scratch:
        own = build_wheel(ROOT, Path(scratch))
        print(f"Choosing wheels for Python {target.python} on {target.platforms[0]} ...", flush=True)
        choice = choose(own, extras, target, ROOT / "requirements.txt", have)
        _tell(choice)
        wheels, unpacked = _put_wheels(own, choice, target, output, Path(scratch), part_size)
    carried = [file for one in weights for file in _put_weights(one, output, part_size)]
    other = [
        _add(output, "source.tar.gz", _sources(ROOT)),
        _add(output, "install.sh", Path(__file__).with_name("install.sh").read_bytes()),
    ]
    requirement = f"crimson-metric{in_brackets(extras)}=={own.name.split('-')[1]}"
    cut = sum(file.size for file in [*wheels, *carried] if file.path.startswith("wheels/") and ".part-" in file.path)
    facts = [
        ("python", target.python),
        ("machine", target.machine),
        ("glibc", f"2.{target.glibc}"),
        ("requirement", requirement),
        ("wheel", own.name),
        ("kib_installed", unpacked // 1024 + 1),
        ("kib_joined", (cut + sum(file.size for file in carried)) // 1024 + 1),
        *(("there", f"{name} {version}") for name, version in choice.left_out.items()),
        *(("judge", spec) for spec in judge_specs(weights)),
    ]
    other.append(_add(output, "bundle.txt", "".join(f"{name}={value}\n" for name, value in facts).encode()))
    files = sorted([*wheels, *carried, *other])
    _clear(output, files)
    manifest = {
        "complete": True,
        "python": target.python,
        "platform": target.platforms[0],
        "requirement": requirement,
        "tested_versions": choice.pinned,
        "left_out": choice.left_out,
        "weights": [{"name": one.name, "revision": one.revision, "path": one.path} for one in weights],
        "files": [file._asdict() for file in files],
    }
    files.append(_add(output, _MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode()))
    sums = _add(output, _SUMS, "".join(f"{file.sha256}  {file.path}\n" for file in files).encode())
    print(
        f"{output}: {len(files) + 1} files, {sum(file.size for file in files) / 1e6:.1f} MB, the largest "
        f"{max(file.size for file in files) / 1e6:.1f} MB; for Python {target.python} on {target.machine} with glibc "
        f"2.{target.glibc} or later.\nOn the other side: sh install.sh FOLDER\n"
        f"`sha256sum {_SUMS}` must print there: {sums.sha256}"
    )


def _begin(output: Path) -> None:
    """Create the folder, or mark an existing bundle as incomplete."""
    if output.is_dir() and any(output.iterdir()) and not (output / _MANIFEST).is_file():
        raise InputError(f"output {output} holds something that is no bundle. Give another folder.")
    output.mkdir(parents=True, exist_ok=True)
    write(output / _MANIFEST, b'{"complete": false}\n')
    (output / _SUMS).unlink(missing_ok=True)
    for left in output.glob(f"{_SCRATCH}*"):
        shutil.rmtree(left)


def _check(extras: Sequence[str], target: Target) -> None:
    """Refuse unknown extras and an unsupported Python."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    known, pythons = sorted(project["optional-dependencies"]), project["requires-python"]
    for extra in extras:
        if extra not in known:
            raise InputError(f"extra is {extra!r}, but crimson-metric has only {', '.join(known)}.")
    if not SpecifierSet(pythons).contains(f"{target.python}.99"):
        raise InputError(f"python is {target.python!r}, but crimson-metric needs {pythons}.")


def _tell(choice: Choice) -> None:
    if choice.left_out:
        there = ", ".join(f"{name} {version}" for name, version in choice.left_out.items())
        print(f"Left out, since the target has them: {there}")
    for name, reason in choice.unfit.items():
        print(f"Brought along although the target has {name}: {reason}")
    if not choice.pinned:
        print(
            "The versions in requirements.txt, which were tested together, do not fit to this target: others were chosen."
        )


def _put_wheels(
    own: Path, choice: Choice, target: Target, output: Path, scratch: Path, part_size: int
) -> tuple[list[File], int]:
    """Put all wheels into the bundle; return their files, and their size in bytes when installed."""
    files, unpacked = put(own, output, f"wheels/{own.name}", part_size), _unpacked(own)
    missing: list[Wheel] = []
    for wheel in choice.wheels:
        there = find(output, f"wheels/{wheel.filename}", wheel.sha256, part_size)
        if there:
            files += there
            unpacked += _unpacked(join(output, there, scratch / wheel.filename))
            (scratch / wheel.filename).unlink()
        else:
            missing.append(wheel)
    for number, path in enumerate(fetch(missing, target, scratch), 1):
        files += put(path, output, f"wheels/{path.name}", part_size)
        unpacked += _unpacked(path)
        path.unlink()
        print(f"fetched {number} of {len(missing)}: {path.name}", flush=True)
    return files, unpacked


def _put_weights(weights: Weights, output: Path, part_size: int) -> list[File]:
    files = []
    for path in weights.files:
        files += put(path, output, f"{weights.path}/{path.name}", part_size)
        print(f"copied {weights.name}: {path.name}", flush=True)
    if weights.reference:
        files.append(_add(output, weights.reference, weights.revision.encode()))
    return files


def _add(output: Path, path: str, content: bytes) -> File:
    (output / path).parent.mkdir(parents=True, exist_ok=True)
    write(output / path, content)
    return listed(output, path)


def _clear(output: Path, files: Sequence[File]) -> None:
    """Delete files that an earlier run with other options left in the bundle's folders."""
    keep = {output / file.path for file in files}
    for folder in ("wheels", "weights", "hub"):
        for path in sorted((output / folder).rglob("*"), reverse=True):  # a folder after what it holds
            if path.is_dir():
                if not any(path.iterdir()):
                    path.rmdir()
            elif path not in keep:
                path.unlink()


def _unpacked(wheel: Path) -> int:
    """Size in bytes of an installed wheel; compiled Python files are about as large as their sources."""
    with zipfile.ZipFile(wheel) as file:
        return sum(one.file_size * (2 if one.filename.endswith(".py") else 1) for one in file.infolist())


def _sources(root: Path) -> bytes:
    """The `SOURCES` as an archive without names, dates or users of this machine."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as archive:
        for path in sorted({path for pattern in SOURCES for path in root.glob(pattern) if path.is_file()}):
            content = path.read_bytes()
            entry = tarfile.TarInfo(f"source/{path.relative_to(root).as_posix()}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


if __name__ == "__main__":
    run(main, "bundle")
