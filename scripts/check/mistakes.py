"""Small mistakes in a Python file: plausible slips at each node of its syntax tree."""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SWAPPED_OPERATORS: dict[type[ast.AST], tuple[type[ast.AST], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Mult,),
    ast.Mod: (ast.Add,),
    ast.Pow: (ast.Mult,),
    ast.LShift: (ast.RShift,),
    ast.RShift: (ast.LShift,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
}
SWAPPED_CALLS = {"min": "max", "max": "min", "all": "any", "any": "all"}
FREE_NUMBER_NAMES = re.compile(
    r"timeout|maxsize|max_length|stacklevel|indent"
    r"|_?(?!.*(?:GAS|WEI|BPS|FEE|TICK|FUNDING_WINDOW)|HOUR_S|DAY_S)"
    r"(?:(?:MAX|MIN|MOST|LONGEST|SHOWN|RECENT|NEWEST)(?:_[A-Z_]+)?"
    r"|[A-Z_]+_(?:S|MS|BYTES|AT_ONCE|POLLS|SIZE|NICENESS|ATTEMPTS|CHECKS|REQUESTS|KEPT|SLACK_S))"
)
"""Names of time limits, sizes of memory and amounts of work: changing such a number by one is not
counted as a mistake; changing a comparison with it is.
"""
DECLARATION_OPTIONS = {"frozen", "slots", "kw_only", "repr", "strict"}
"""Options of dataclasses and `zip` that only assert what is true anyway. Without them nothing changes
but what happens after another mistake.
"""


def _changed(node: ast.AST, **fields: object) -> ast.AST:
    changed_node = copy.copy(node)
    for name, value in fields.items():
        setattr(changed_node, name, value)
    return changed_node


def mistaken_variants(node: ast.AST) -> list[ast.AST]:
    """Return the mistaken variants of a node."""
    match node:
        case ast.Compare(ops=ops):
            return [
                _changed(node, ops=[*ops[:i], new_operator(), *ops[i + 1 :]])
                for i, op in enumerate(ops)
                for new_operator in SWAPPED_OPERATORS[type(op)]
            ]
        case (
            ast.BinOp(left=ast.Constant(value=str()) | ast.JoinedStr())
            | ast.BinOp(right=ast.Constant(value=str()) | ast.JoinedStr())
        ):
            return []
        case ast.BinOp(op=ast.FloorDiv()):
            ceiling_division = ast.UnaryOp(
                ast.USub(), _changed(node, left=ast.UnaryOp(ast.USub(), node.left))
            )
            return [_changed(node, op=ast.Mult()), ceiling_division]
        case ast.BinOp(op=op) | ast.BoolOp(op=op) | ast.AugAssign(op=op):
            swapped_nodes = [
                _changed(node, op=new_operator())
                for new_operator in SWAPPED_OPERATORS.get(type(op), ())
            ]
            return (
                [*swapped_nodes, ast.Pass()] if isinstance(node, ast.AugAssign) else swapped_nodes
            )
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            return [operand]
        case ast.Constant(value=bool(value)):
            return [ast.Constant(not value)]
        case ast.Constant(value=int(value) | float(value)):
            return [ast.Constant(value + 1), ast.Constant(value - 1)]
        case ast.IfExp(body=body, orelse=orelse):
            return [_changed(node, body=orelse, orelse=body)]
        case ast.If(test=test):
            return [_changed(node, test=ast.UnaryOp(ast.Not(), test))]
        case ast.Call(func=ast.Name(id=name)) if name in SWAPPED_CALLS:
            return [_changed(node, func=ast.Name(SWAPPED_CALLS[name], ast.Load()))]
        case ast.Return(value=ast.expr() as value) if not (
            isinstance(value, ast.Constant)
            and any(value.value is empty_value for empty_value in (None, False))
        ):
            return [ast.Return(ast.Constant(None))]
        case ast.Expr(value=ast.Call()) | ast.Raise() | ast.Continue() | ast.Break():
            return [ast.Pass()]
    return []


def running_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield every node that runs, in a fixed order, without annotations, code that only type
    checkers read, texts (of f-strings and of raised errors), options of declarations and the numbers
    of FREE_NUMBER_NAMES.
    """
    match node:
        case ast.If(test=test) if "TYPE_CHECKING" in ast.unparse(test):
            return
        case ast.JoinedStr():
            return
        case ast.keyword(arg=str(arg)) if arg in DECLARATION_OPTIONS or FREE_NUMBER_NAMES.fullmatch(
            arg
        ):
            return
        case ast.Assign(targets=[ast.Name() | ast.Tuple() as target]) if all(
            isinstance(target_node, ast.Name) and FREE_NUMBER_NAMES.fullmatch(target_node.id)
            for target_node in getattr(target, "elts", [target])
        ):
            return
        case ast.Raise(exc=ast.Call(func=ast.Name(id="NotImplementedError"))):
            return
        case ast.Call(func=ast.Name(id="String"), args=[ast.Constant()]):  # SQLite knows no length
            return
        case ast.Raise():
            yield node
            return
    yield node
    for name, value in ast.iter_fields(node):
        if name not in ("annotation", "returns", "format_spec"):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from running_nodes(child)


class _ReplaceNode(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self._original = old
        self._replacement = new

    def visit(self, node: ast.AST) -> ast.AST:
        return self._replacement if node is self._original else self.generic_visit(node)


@dataclass(frozen=True)
class Mutant:
    """One mistake: its file and line, and the file's source with it."""

    file: str
    line: int
    change: str
    source: str


def possible_mistakes(root: Path, file: str) -> list[tuple[str, int, int]]:
    """Return file, node index and variant of every possible mistake."""
    tree = ast.parse((root / file).read_text())
    return [
        (file, node_index, variant_index)
        for node_index, node in enumerate(running_nodes(tree))
        for variant_index in range(len(mistaken_variants(node)))
    ]


def make_mutant(root: Path, file: str, index: int, variant: int) -> Mutant:
    """Return one mistake."""
    tree = ast.parse((root / file).read_text())
    node = list(running_nodes(tree))[index]
    variant_node = mistaken_variants(node)[variant]
    change = " -> ".join(
        ast.unparse(ast.fix_missing_locations(copy.deepcopy(changed_or_original))).splitlines()[0]
        for changed_or_original in (node, variant_node)
    )
    line = (node.test if isinstance(node, ast.If) else node).lineno  # type: ignore[attr-defined]  # no code runs on the line of `if (`
    return Mutant(
        file,
        line,
        change,
        ast.unparse(ast.fix_missing_locations(_ReplaceNode(node, variant_node).visit(tree))),
    )
