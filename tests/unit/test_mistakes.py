"""The mistakes that make mutants breaks a file with: each compiles, is another program, and stands where something runs."""

from __future__ import annotations

import ast
from pathlib import Path

from scripts.mistakes import made, places_in

SOURCE = '''
def paid(amount: int | None, fee: int = 3) -> int | None:
    """Text that says nothing."""
    if amount is None or amount <= 0:
        raise ValueError(f"{amount:>8}")
    amount -= fee
    if (
        amount == fee
    ):
        fee = 4
    return max(amount // 2, not fee)
'''


def test_each_mistake_is_another_program_and_annotations_stay(tmp_path: Path) -> None:
    (tmp_path / "paid.py").write_text(SOURCE)
    mistakes = [made(tmp_path, *each) for each in places_in(tmp_path, "paid.py")]
    right = ast.unparse(ast.parse(SOURCE))
    assert all(compile(each.source, "paid.py", "exec") and each.source != right for each in mistakes)
    assert len({each.source for each in mistakes}) == len(mistakes)
    said = {(each.line, each.change) for each in mistakes}
    assert {
        (2, "3 -> 4"),
        (4, "amount <= 0 -> amount < 0"),
        (4, "amount <= 0 -> amount > 0"),
        (4, "amount is None -> amount is not None"),
        (5, "raise ValueError(f'{amount:>8}') -> pass"),
        (6, "amount -= fee -> pass"),
        (8, "if amount == fee: -> if not amount == fee:"),
        (11, "amount // 2 -> -(-amount // 2)"),
        (11, "not fee -> fee"),
        (11, "return max(amount // 2, not fee) -> return None"),
    } <= said
    assert all("int | None" in each.source.splitlines()[0] for each in mistakes)
