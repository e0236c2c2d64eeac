"""Approvals that the chain does not show: counted across cycles, because others may sign each in a cycle of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.execution.approvals import RESET_LOOKBACK_NONCES, ineffective_approvals
from agent.model import Allowance, SubmissionRefusal
from agent.ports import Approval
from agent.store.journal import IntentStore
from tests.support.builders import address, step_input, token, with_history, with_snapshot

LINK, WETH, ROUTER = token("LINK").address, token("WETH").address, address("router")
TRADE = None
"""Terms of a transaction that is no approval."""
Terms = tuple[str, str, int] | None


@dataclass(frozen=True)
class WrittenIntents:
    """A journal of one transaction a nonce and a thousand seconds, from the first to the newest: terms, and whether it succeeded."""

    rows: Sequence[tuple[Terms, bool]]

    def expected_nonce(self) -> int | None:
        return len(self.rows) or None

    def intents_at(self, nonce: int) -> tuple[Any, ...]:
        return (SimpleNamespace(id=str(nonce), succeeded=self.rows[nonce][1], created_s=1_000 * nonce),)

    def grant(self, intent_id: str) -> Any:
        return SimpleNamespace(approval_terms=self.rows[int(intent_id)][0])


def approved(raw: int, of: str = LINK, spender: str = ROUTER) -> tuple[Terms, bool]:
    return (of, spender, raw), True


def count(rows: Sequence[tuple[Terms, bool]], shown_raw: int | None = 0, left_out: tuple[SubmissionRefusal, ...] = ()) -> int:
    """Return the count for LINK and the router, of which the chain shows an allowance (None: no row)."""
    allowances = () if shown_raw is None else (Allowance(LINK, ROUTER, shown_raw),)
    approval = Approval(LINK, ROUTER, 100, "LINK", "router")
    step = with_history(with_snapshot(step_input(), allowances=allowances), ignored_approvals=left_out)
    return ineffective_approvals(cast(IntentStore, WrittenIntents(rows)), step, approval)


@pytest.mark.parametrize(
    ("rows", "shown_raw", "expected"),
    [
        ([], 0, 0),
        ([approved(100), approved(100)], 0, 2),
        ([approved(100), approved(100)], None, 2),
        ([approved(100), approved(100)], 50, 2),
        ([approved(100)], 100, 0),
        ([approved(90)], 100, 0),
        ([approved(100), approved(0)], 0, 0),
        ([approved(100), approved(0), approved(100)], 50, 2),
        ([approved(100), (TRADE, True), approved(0), approved(100)], 50, 1),
        ([approved(40), approved(0), approved(100)], 50, 1),
        ([approved(100), (TRADE, True), approved(100)], 0, 1),
        ([approved(100), (TRADE, False), approved(100)], 0, 2),
        ([approved(100), ((LINK, ROUTER, 100), False)], 0, 1),
        ([approved(100), approved(100, of=WETH), approved(100, spender=address("other"))], 0, 1),
        ([approved(100)] * 20, 0, RESET_LOOKBACK_NONCES),
    ],
)
def test_ineffective_approvals_counts_those_since_the_last_trade(
    rows: Sequence[tuple[Terms, bool]], shown_raw: int | None, expected: int
) -> None:
    assert count(rows, shown_raw) == expected


def test_ineffective_approvals_counts_anew_after_the_wait() -> None:
    """Those of the seconds 0 to 2,000 were the reason; its wait is over at 2,900."""
    left_out = SubmissionRefusal(LINK, 2_300, 1, "its allowance is still too small")
    assert count([approved(100)] * 3, left_out=(left_out,)) == 0
    assert count([approved(100)] * 4, left_out=(left_out,)) == 1
    assert count([*[approved(100)] * 2, approved(0), approved(100)], shown_raw=50, left_out=(left_out,)) == 1
    assert count([approved(100)] * 4, left_out=(replace(left_out, token=WETH),)) == 4
