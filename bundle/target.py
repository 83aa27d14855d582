"""The machine that a bundle is for: its Python and its platform, in pip's terms."""

import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from packaging.markers import Marker

from crimson_core.errors import InputError

_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}  # names on other systems
_NAMES = {"manylinux1": 5, "manylinux2010": 12, "manylinux2014": 17}  # older tags -> minor version of glibc 2
_OLDEST = {"x86_64": 5, "i686": 5}  # the oldest glibc 2 that wheels are built for; 17 on all others


def default_platform() -> str:
    """The platform of a server with this machine's architecture and a Linux of 2019 or later (glibc 2.28)."""
    machine = platform.machine().lower()
    return f"manylinux_2_28_{_MACHINES.get(machine, machine)}"


@dataclass(frozen=True)
class Target:
    """The machine that a bundle is for."""

    python: str  # major and minor version, `3.12`
    machine: str  # architecture, `x86_64`
    glibc: int  # minor version of glibc 2; the target has this one or a later one

    @classmethod
    def of(cls, python: str, platforms: Sequence[str]) -> "Target":
        """Parse the user's options.

        Args:
            python: Version, such as `3.12`.
            platforms: Wheel tags of one architecture, such as `manylinux_2_28_x86_64`. The newest glibc counts.

        Raises:
            InputError: A value is invalid, or the tags are of several architectures.
        """
        if not re.fullmatch(r"3\.\d{1,2}", python):
            raise InputError(f"python is {python!r}. Give the target's major and minor version, such as 3.12.")
        read = [_read_platform(tag) for tag in platforms]
        if not read:
            raise InputError("platform is missing. Give one, such as manylinux_2_28_x86_64.")
        if len({machine for machine, _ in read}) > 1:
            raise InputError(
                f"platform names several architectures: {', '.join(platforms)}. Make a bundle for each of them."
            )
        return cls(python, read[0][0], max(glibc for _, glibc in read))

    @property
    def platforms(self) -> list[str]:
        """The tags of all compatible wheels, newest first; pip does not add the older ones itself."""
        tags = []
        for glibc in range(self.glibc, _OLDEST.get(self.machine, 17) - 1, -1):
            tags.append(f"manylinux_2_{glibc}_{self.machine}")
            tags += [f"{name}_{self.machine}" for name, number in _NAMES.items() if number == glibc]
        return tags

    @property
    def pip_options(self) -> list[str]:
        """The options that make pip choose wheels for the target."""
        abi = f"cp{self.python.replace('.', '')}"
        options = ["--only-binary", ":all:", "--python-version", self.python, "--implementation", "cp", "--abi", abi]
        return options + [word for tag in self.platforms for word in ("--platform", tag)]

    def needs(self, marker: Marker | None, extra: str) -> bool:
        """Whether a requirement with this marker applies on the target if its package is installed with this extra.

        pip evaluates markers for the Python that it runs in, so they must be evaluated again for another one.
        """
        return marker is None or any(marker.evaluate(names | {"extra": extra}) for names in self._environments)

    @cached_property
    def _environments(self) -> list[dict[str, str]]:
        # the patch version is unknown, so what the lowest or the highest needs is needed
        return [
            {
                "implementation_name": "cpython",
                "implementation_version": f"{self.python}.{patch}",
                "os_name": "posix",
                "platform_machine": self.machine,
                "platform_python_implementation": "CPython",
                "platform_release": "",
                "platform_system": "Linux",
                "platform_version": "",
                "python_full_version": f"{self.python}.{patch}",
                "python_version": self.python,
                "sys_platform": "linux",
            }
            for patch in (0, 99)
        ]


def _read_platform(tag: str) -> tuple[str, int]:
    if found := re.fullmatch(r"manylinux_2_(\d{1,2})_(\w+)", tag):
        return found[2], int(found[1])
    if (found := re.fullmatch(r"(manylinux[0-9]+)_(\w+)", tag)) and found[1] in _NAMES:
        return found[2], _NAMES[found[1]]
    raise InputError(
        f"platform is {tag!r}. Bundles are for Linux with glibc: give a tag such as manylinux_2_28_x86_64 "
        "(`ldd --version` and `uname -m` on the target say which)."
    )
