"""What an addition costs: each example is added to a copy of the package, in two files at most, and works there."""

from __future__ import annotations

import importlib
import os
import pkgutil
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

from agent import layers
from agent.layers.config import TABLE_TEMPLATES, LayerTables
from agent.layers.states import PARTS
from tests.support.samples import slow
from tests.support.stores import recorded_steps
from tests.unit.scenarios.additions import deletions, examples

ROOT = Path(__file__).parents[4]
LAYERS = sorted(path.parent.name for path in (ROOT / "agent" / "layers").glob("*/__init__.py"))


EXAMPLES: dict[str, tuple[examples.Addition, Callable[[], None]]] = {
    "trigger": (examples.TRIGGER, examples.check_trigger),
    "allocator": (examples.ALLOCATOR, examples.check_allocator),
    "section": (examples.SECTION, examples.check_section),
    "command": (examples.COMMAND, examples.check_command),
    "alert kind": (examples.ALERT_KIND, examples.check_alert_kind),
}


def test_an_example_layer_changes_its_folder_and_the_registries() -> None:
    """One that no layer of the package resembles: amounts that no swap may spend, exits included."""
    others = {name for name in examples.LAYER if not name.startswith("layers/lockup/")}
    assert {Path(name).parent.as_posix() for name in others} == {"layers"}


def test_each_value_and_table_of_a_layer_is_registered() -> None:
    """A value that is not cannot be read again from a recorded step, a table not found in the config of `trimtab init`."""
    for module in pkgutil.walk_packages(layers.__path__, f"{layers.__name__}."):
        importlib.import_module(module.name)
    for base, registered in PARTS.items():
        assert {path for path in subclass_paths(base) if path.startswith("agent.")} == {
            f"{part.__module__}.{part.__name__}" for part in registered
        }
    assert all(f"[{name}]" in "".join(TABLE_TEMPLATES) for name in LayerTables.model_fields)


def subclass_paths(base: type[Any]) -> set[str]:
    """Return the paths of subclasses that have none themselves; a dataclass with slots is two classes of one path."""
    return {path for part in base.__subclasses__() for path in subclass_paths(part) or {f"{part.__module__}.{part.__name__}"}}


@pytest.mark.parametrize("layer", ["holding", *slow((layer,) for layer in LAYERS if layer != "holding")])
def test_layer__is_deleted_with_its_folder_and_registry_lines(layer: str, tmp_path: Path) -> None:
    """The core then imports and decides what does not use it as before."""
    steps = recorded_steps(tmp_path)
    shutil.copytree(ROOT / "agent", tmp_path / "agent", ignore=shutil.ignore_patterns("*.pyc", "*.pyc.*"))
    deletions.delete_layer(tmp_path / "agent", layer)
    run_in_copy(f"from tests.unit.scenarios.additions import deletions; deletions.check_recorded_steps({str(steps)!r})", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("names", [("layer", *EXAMPLES), *slow(((name,),) for name in ("layer", *EXAMPLES))], ids=" and ".join)
def test_an_example_addition_of_two_files_works(names: tuple[str, ...], tmp_path: Path) -> None:
    """Each beside the others and the layer, and alone."""
    assert all(len(addition) <= 2 for addition, _ in EXAMPLES.values())
    rows = [(EXAMPLES | {"layer": (examples.LAYER, examples.check_layer)})[name] for name in names]
    check_copy([addition for addition, _ in rows], [check for _, check in rows], tmp_path)


def check_copy(added: Sequence[examples.Addition], checks: Sequence[Callable[[], None]], tmp_path: Path) -> None:
    """Run the checks in a copy of the package with the additions."""
    # With its bytecode, which fits since sources keep their times; other processes may be writing some of it.
    shutil.copytree(ROOT / "agent", tmp_path / "agent", ignore=shutil.ignore_patterns("*.pyc.*"))
    for addition in added:
        for name, texts in addition.items():
            path = tmp_path / "agent" / name
            path.parent.mkdir(exist_ok=True)
            before = path.read_text(encoding="utf-8") if path.exists() else ""
            path.write_text(reduce(examples.add, texts, before), encoding="utf-8")
    calls = "".join(f"examples.{check.__name__}(); " for check in checks)
    run_in_copy(f"from tests.unit.scenarios.additions import examples; {calls}", tmp_path)


def run_in_copy(command: str, tmp_path: Path) -> None:
    """Run Python in an interpreter of its own, in which `agent` is the copy."""
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
