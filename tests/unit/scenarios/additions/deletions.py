"""Deletion of a layer from a copy of agent/: its folder, and its lines in the registries."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path
from typing import TypeVar

from agent.model import AgentCycle

N = TypeVar("N", bound=ast.AST)


def delete_layer(agent: Path, name: str) -> None:
    """Delete the folder of a layer, and in each registry its imports and the rows that use them."""
    shutil.rmtree(agent / "layers" / name)
    for path in sorted((agent / "layers").glob("*.py")):
        text = path.read_text(encoding="utf-8")
        if f"agent.layers.{name}" in text:
            path.write_text(ast.unparse(ast.fix_missing_locations(_Rows(name).visit(ast.parse(text)))), encoding="utf-8")


class _Rows(ast.NodeTransformer):
    """Drops a layer's imports, and the elements of tuples and mappings, and the base classes, that name what they import. A row that
    is stored by the name of a class goes with the class. A row of another that only gets what a layer offers, as an argument, loses the
    argument.
    """

    def __init__(self, layer: str) -> None:
        self._module = f"agent.layers.{layer}"
        self._names: set[str] = set()

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom | None:  # the base class's name
        if not f"{node.module}.".startswith(f"{self._module}."):
            return node
        self._names |= {alias.asname or alias.name for alias in node.names}
        return None

    def visit_Tuple(self, node: ast.Tuple) -> ast.AST:
        node.elts = self._kept(node.elts)
        return self.generic_visit(node)

    def visit_Dict(self, node: ast.Dict) -> ast.AST:
        rows = zip(node.keys, node.values, strict=True)
        own_rows = [(key, value) for key, value in rows if not self._uses(value) and not (key is not None and self._uses(key))]
        node.keys, node.values = [key for key, _ in own_rows], [value for _, value in own_rows]
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.bases = self._kept(node.bases)
        node.body = self._kept(node.body)
        return self.generic_visit(node)

    def _kept(self, nodes: list[N]) -> list[N]:
        return [node for node in nodes if not self._uses(node)]

    def visit_Call(self, node: ast.Call) -> ast.AST:
        node.args = self._kept(node.args)
        node.keywords = self._kept(node.keywords)
        return self.generic_visit(node)

    def _uses(self, node: ast.AST) -> bool:
        if isinstance(node, ast.keyword):
            return not isinstance(node.value, ast.Tuple) and self._uses(node.value)
        if isinstance(node, ast.Call):  # a row of what is called, or of the first argument: partial(decide, ...)
            return self._names_layer(node.func) or (isinstance(node.func, ast.Name) and bool(node.args) and self._names_layer(node.args[0]))
        return self._names_layer(node)

    def _names_layer(self, node: ast.AST) -> bool:
        used = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
        used |= {part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)}
        return bool(used & self._names)


def check_recorded_steps(folder: str) -> None:
    """Import the whole core, and decide and plan the recorded steps again as they were."""
    import agent.engine
    from agent.execution.evaluation import evaluate_input_once
    from agent.planning.requests import proposer
    from agent.store.files.recorder import load_recorded_step

    assert agent.engine.__file__ is not None
    paths = sorted(Path(folder).glob("step-*.json"))
    assert len(paths) == 3
    for path in paths:
        step = load_recorded_step(path.read_text(encoding="utf-8"))
        outcome = evaluate_input_once(step.input, proposer(AgentCycle()), None)
        assert (type(outcome.decision_result.decision).__name__.lower(), outcome.reason) == (step.decision, step.reason)
