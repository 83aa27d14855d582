"""Chooses the wheels for a target with pip's resolver, and fetches them.

Packages that the target already has are represented by stand-ins: empty wheels of exactly that version. pip then chooses
all other packages to fit them, and the index need not have that version.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from email.parser import HeaderParser
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote, urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from bundle.target import Target
from crimson_core.errors import CrimsonError, InputError

_BATCH = 10  # wheels per call of pip; an interruption loses one batch at most


class BundleError(CrimsonError, RuntimeError):
    """A bundle cannot be made; the message says what to do."""


class _Unsolvable(BundleError):
    """No set of versions fits."""


@dataclass(frozen=True)
class Wheel:
    """A chosen wheel."""

    name: str  # canonical
    version: str
    filename: str
    sha256: str | None  # None for a stand-in
    requires: list[Requirement] = field(default_factory=list)


@dataclass(frozen=True)
class Choice:
    """The contents of a bundle, and what the target provides."""

    wheels: list[Wheel]  # wheels to fetch, without the package itself
    left_out: dict[str, str]  # packages that the target has in a version that fits: name -> version
    # packages that the target has in a version that does not fit: name -> the requirement that says so
    unfit: dict[str, str]
    pinned: bool  # whether the versions are those that were tested together


def build_wheel(root: Path, folder: Path) -> Path:
    """Build the package's own wheel from a copy of the checkout, so that no old build gets into it.

    Raises:
        BundleError: pip cannot build it.
    """
    with TemporaryDirectory() as scratch:
        tree = Path(scratch, "tree")
        tree.mkdir()
        for name in ("pyproject.toml", "README.md", "LICENSE", "crimson_metric.py"):
            shutil.copy(root / name, tree)
        shutil.copytree(root / "crimson_core", tree / "crimson_core", ignore=shutil.ignore_patterns("__pycache__"))
        # a fixed date, so that the same sources make the same wheel
        _pip("wheel", "--no-deps", "--wheel-dir", folder, tree, env={"SOURCE_DATE_EPOCH": "315532800"})
    (wheel,) = folder.glob("crimson_metric-*.whl")
    return wheel


def read_wheel(path: Path) -> Wheel:
    """Read the metadata of a wheel file."""
    with zipfile.ZipFile(path) as file:
        (name,) = [name for name in file.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)]
        head = HeaderParser().parsestr(file.read(name).decode())
    requires = [Requirement(line) for line in head.get_all("Requires-Dist", [])]
    return Wheel(canonicalize_name(head["Name"]), head["Version"], path.name, None, requires)


def read_have(path: Path) -> tuple[dict[str, str], list[str]]:
    """Read the output of `pip freeze` or `pip list --format=freeze`.

    Returns:
        Canonical name -> version, and the lines without a readable version.

    Raises:
        InputError: The file cannot be read, or names no package.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise InputError(f"have {path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    there, unread = {}, []
    for line in lines:
        if not line or line.startswith("#"):
            continue
        found = _read_line(line)
        if found:
            there[found[0]] = found[1]
        else:
            unread.append(line.split("@")[0].strip())
    if not there:
        raise InputError(f"have {path} names no package. Make it on the target with: pip list --format=freeze")
    return there, unread


def choose(root: Path, extras: Sequence[str], target: Target, pins: Path, have: Mapping[str, str]) -> Choice:
    """Choose the wheels for the package and pip itself.

    The target's own packages are used wherever possible, even if the other versions then differ from the tested ones.

    Args:
        root: The package's own wheel.
        extras: Extras of the package.
        target: The machine that it will run on.
        pins: Constraints file with the versions that were tested together.
        have: Packages that the target has: canonical name -> version.

    Raises:
        BundleError: No choice fits, a package has no wheel for the target, or the index cannot be reached.
    """
    tested = _read_pins(pins)
    search = _Search(root, tuple(extras), target)
    own = read_wheel(root)
    unfit = dict(_misfits([(own, {"", *extras})], have, target))
    error = None
    for again in (False, True):
        if again:  # what stands in the way can be told only from a choice made without what is there
            if not have:
                break
            free = search.run(tested, {})
            unfit |= dict(_misfits(search.reached(free), have, target))
        fit = {name: version for name, version in have.items() if name not in unfit and name != "pip"}
        for constraints in (tested, {}):
            try:
                found = search.run(constraints, fit)
            except _Unsolvable as caught:
                error = error or caught
                continue
            reached = {wheel.name: wheel for wheel, _ in search.reached(found) if wheel.name != own.name}
            return Choice(
                [reached[name] for name in sorted(reached) if name not in fit],
                {name: fit[name] for name in sorted(reached) if name in fit},
                unfit,
                constraints == tested,
            )
    raise error


def fetch(wheels: Sequence[Wheel], target: Target, folder: Path) -> Iterator[Path]:
    """Download wheels with pip into a folder, in batches; pip checks their checksums. The caller moves them away.

    Raises:
        BundleError: A wheel cannot be downloaded.
    """
    for start in range(0, len(wheels), _BATCH):
        batch = wheels[start : start + _BATCH]
        lines = [f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}\n" for wheel in batch]
        with TemporaryDirectory() as scratch:
            (wanted := Path(scratch, "wanted.txt")).write_text("".join(lines))
            _pip("download", "--no-deps", "--dest", folder, *target.pip_options, "--requirement", wanted)
        yield from (folder / wheel.filename for wheel in batch)


@dataclass(frozen=True)
class _Search:
    """Finds a set of wheels for one package and target."""

    root: Path
    extras: tuple[str, ...]
    target: Target

    def run(self, constraints: Mapping[str, str], there: Mapping[str, str]) -> dict[str, Wheel]:
        """A set that satisfies all requirements on the target: canonical name -> wheel."""
        more: dict[str, str] = {}  # requirements that apply on the target and not here
        optional: dict[str, list[str]] = {}  # requirements of extras of packages that the target has
        while True:
            found = self._ask(constraints, there, optional, list(more.values()))
            needs = [need for wheel, extras in self.reached(found) for need in _needs_of(wheel, extras, self.target)]
            lacking = {
                canonicalize_name(need.name): f"{need.name}{in_brackets(need.extras)}{need.specifier}"
                for need in needs
                if canonicalize_name(need.name) not in found
            }
            bare = {canonicalize_name(need.name) for need in needs if need.extras} & there.keys() - optional.keys()
            if not lacking.keys() - more.keys() and not bare:
                return found
            more |= lacking
            optional |= {name: self._optional(name, there[name]) for name in bare}

    def reached(self, found: Mapping[str, Wheel]) -> list[tuple[Wheel, set[str]]]:
        """The wheels that the target really needs, each with its requested extras ("" for none)."""
        extras: dict[str, set[str]] = {}
        queue = [(read_wheel(self.root).name, {"", *self.extras}), ("pip", {""})]
        while queue:
            name, wanted = queue.pop()
            if name not in found or wanted <= extras.get(name, set()):
                continue
            extras[name] = extras.get(name, set()) | wanted
            for need in _needs_of(found[name], extras[name], self.target):
                queue.append((canonicalize_name(need.name), {"", *need.extras}))
        return [(found[name], wanted) for name, wanted in extras.items()]

    def _ask(
        self,
        constraints: Mapping[str, str],
        there: Mapping[str, str],
        optional: Mapping[str, list[str]],
        more: list[str],
    ) -> dict[str, Wheel]:
        with TemporaryDirectory() as scratch:
            folder = Path(scratch)
            stand_ins = {name: _stand_in(folder, name, there[name], optional.get(name, [])) for name in there}
            pins = constraints | stand_ins
            (limits := folder / "constraints.txt").write_text("".join(f"{a}=={b}\n" for a, b in pins.items()))
            roots = [f"{self.root}{in_brackets(self.extras)}", "pip", *more]
            return _report(self.target, "--constraint", limits, "--find-links", folder, *roots)

    def _optional(self, name: str, version: str) -> list[str]:
        """The requirements of a package's extras, as lines of metadata."""
        try:
            found = _report(self.target, "--no-deps", f"{name}=={version.partition('+')[0]}")
        except _Unsolvable:  # a private build: the newest release's extras are the best guess
            found = _report(self.target, "--no-deps", name)
        needs = [need for need in found[name].requires if not self.target.needs(need.marker, "")]
        return [f"Requires-Dist: {need}" for need in needs]


def _report(target: Target, *arguments: str | Path) -> dict[str, Wheel]:
    """The wheels that pip would install: canonical name -> wheel."""
    with TemporaryDirectory() as scratch:
        report = Path(scratch, "report.json")
        options = ["--dry-run", "--ignore-installed", "--target", Path(scratch, "none"), "--report", report]
        _pip("install", *options, *target.pip_options, *arguments)
        items = json.loads(report.read_text(encoding="utf-8"))["install"]
    return {wheel.name: wheel for wheel in map(_read_item, items)}


def _read_item(item: dict) -> Wheel:
    info = item["download_info"]
    hashes = info.get("archive_info", {}).get("hashes", {})
    return Wheel(
        canonicalize_name(item["metadata"]["name"]),
        item["metadata"]["version"],
        unquote(urlsplit(info["url"]).path).rsplit("/", 1)[-1],
        hashes.get("sha256"),
        [Requirement(line) for line in item["metadata"].get("requires_dist", [])],
    )


def _needs_of(wheel: Wheel, extras: set[str], target: Target) -> list[Requirement]:
    return [need for need in wheel.requires if any(target.needs(need.marker, extra) for extra in extras)]


def _misfits(
    wheels: Sequence[tuple[Wheel, set[str]]], have: Mapping[str, str], target: Target
) -> Iterator[tuple[str, str]]:
    for wheel, extras in wheels:
        for need in _needs_of(wheel, extras, target):
            name = canonicalize_name(need.name)
            if name in have and not need.specifier.contains(Version(have[name]), prereleases=True):
                yield name, f"{wheel.name} needs {need.specifier}"


def _stand_in(folder: Path, name: str, version: str, requires: Sequence[str]) -> str:
    """Write a stand-in for a package of the target, and return its version, which no index has."""
    version += ".there" if "+" in version else "+there"
    stem = f"{name.replace('-', '_')}-{version}"
    extras = {extra for line in requires for extra in re.findall(r"extra == \"([^\"]+)\"", line)}
    head = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *requires]
    head += [f"Provides-Extra: {extra}" for extra in sorted(extras)]
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as file:
        file.writestr(f"{stem}.dist-info/METADATA", "\n".join(head) + "\n")
        file.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{stem}.dist-info/RECORD", "")
    return version


def _read_line(line: str) -> tuple[str, str] | None:
    """Name and version from `name==version` or `name @ file:///.../wheel`."""
    try:
        need = Requirement(line)
        if need.url:
            return canonicalize_name(need.name), str(parse_wheel_filename(unquote(need.url).rsplit("/", 1)[-1])[1])
        (pin,) = need.specifier
        return canonicalize_name(need.name), str(Version(pin.version))
    except (InvalidRequirement, InvalidWheelFilename, InvalidVersion, ValueError):
        return None


def _read_pins(path: Path) -> dict[str, str]:
    lines = [line.split("#")[0] for line in path.read_text(encoding="utf-8").splitlines()]
    return dict(found for line in lines if (found := _read_line(line.strip())))


def in_brackets(extras: Iterable[str]) -> str:
    """Extras as written in a requirement."""
    extras = sorted(extras)
    return f"[{','.join(extras)}]" if extras else ""


def _pip(command: str, *arguments: str | Path, env: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", command, "--quiet", "--disable-pip-version-check", *map(str, arguments)],
        env=os.environ | (env or {}),
        capture_output=True,
        text=True,
    )
    if done.returncode == 0:
        return
    said = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
    reason = re.sub(r"\s*\(from versions: .*?\)", "", said[0] if said else done.stderr.strip()[-300:] or "it failed")
    if "Retrying (" in done.stderr:
        raise BundleError("pip cannot reach its index. Check the network and pip's configuration, then run this again.")
    if "No space left" in done.stderr:
        raise BundleError("pip has no space left. Make room, or set TMPDIR to a folder on another disk.")
    unsolvable = any(word in done.stderr for word in ("ResolutionImpossible", "No matching distribution", "conflict"))
    kind = _Unsolvable if unsolvable and command == "install" else BundleError
    raise kind(
        f"pip finds no wheels that fit: {reason.rstrip('.')}. Change python, platform, extra or have, or put a wheel of "
        "your own into a folder that PIP_FIND_LINKS names."
        if unsolvable
        else f"pip {command} failed: {reason}"
    )
