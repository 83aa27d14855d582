"""`crimson metric`: prints the path of the `evaluate` module."""

from importlib.util import find_spec

from crimson_core.errors import CrimsonError
from crimson_core.install import SOURCE


def metric() -> None:
    """Print the path of the installed module, for evaluate.load."""
    found = find_spec("crimson_metric")
    if found is None or not found.origin:
        raise CrimsonError(f'The module crimson_metric is not installed. Run: pip install "crimson-metric @ {SOURCE}"')
    print(found.origin)
