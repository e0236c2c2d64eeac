"""Tests of ineffective_approvals in agent/execution/approvals.py: approvals that the chain does not show, across cycles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.execution.approvals import RESET_LOOKBACK_NONCES, ineffective_approvals
from agent.model import Allowance, IntentKind, TokenRefusal
from agent.ports import Approval
from agent.store.journal.intents import IntentStore
from tests.support.builders import address, step_input, token, with_history, with_snapshot

LINK = token("LINK").address
WETH = token("WETH").address
ROUTER = address("router")
TRADE = "trade"
OTHER_TRADE = "trade of another token"
DEPOSIT = "deposit"
PAYOUT = "payout"
Terms = tuple[str, str, int] | str
"""Terms of an approval, or what else a transaction is."""
GRANT_BY_TERMS = {
    TRADE: SimpleNamespace(kind=IntentKind.SWAP, plan=SimpleNamespace(legs=(SimpleNamespace(token_in=LINK),))),
    OTHER_TRADE: SimpleNamespace(kind=IntentKind.SWAP, plan=SimpleNamespace(legs=(SimpleNamespace(token_in=WETH),))),
    DEPOSIT: SimpleNamespace(kind=IntentKind.LIQUIDITY, plan=None),
    PAYOUT: SimpleNamespace(kind=IntentKind.PAYOUT, plan=None),
}


@dataclass(frozen=True)
class WrittenIntents:
    """A journal of one transaction a nonce and a thousand seconds, from the first to the newest: terms, and whether it succeeded."""

    rows: Sequence[tuple[Terms, bool]]

    def expected_nonce(self) -> int | None:
        return len(self.rows) or None

    def intents_at(self, nonce: int) -> tuple[Any, ...]:
        return (SimpleNamespace(id=str(nonce), succeeded=self.rows[nonce][1], created_s=1_000 * nonce),)

    def grant(self, intent_id: str) -> Any:
        terms = self.rows[int(intent_id)][0]
        if isinstance(terms, str):
            return SimpleNamespace(**vars(GRANT_BY_TERMS[terms]), approval_terms=None)
        return SimpleNamespace(approval_terms=terms)


def approved(raw: int, of: str = LINK, spender: str = ROUTER) -> tuple[Terms, bool]:
    return (of, spender, raw), True


def count(rows: Sequence[tuple[Terms, bool]], shown_raw: int | None = 0, left_out: tuple[TokenRefusal, ...] = ()) -> int:
    """Return the count for LINK and the router, of which the chain shows an allowance (None: no row)."""
    allowances = () if shown_raw is None else (Allowance(LINK, ROUTER, shown_raw),)
    approval = Approval(LINK, ROUTER, 100, "LINK", "router")
    step = with_history(with_snapshot(step_input(), allowances=allowances), ignored_approvals=left_out)
    return ineffective_approvals(cast(IntentStore, WrittenIntents(rows)), step, approval)


@pytest.mark.parametrize(
    ("rows", "shown_raw", "approval_count"),
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
        ([approved(100), (DEPOSIT, True), approved(100)], 0, 1),
        ([approved(100), (OTHER_TRADE, True), approved(100)], 0, 2),
        ([approved(100), (PAYOUT, True), approved(100)], 0, 2),
        ([approved(100), ((LINK, ROUTER, 100), False)], 0, 1),
        ([approved(100), approved(100, of=WETH), approved(100, spender=address("other"))], 0, 1),
        ([approved(100)] * 20, 0, RESET_LOOKBACK_NONCES),
    ],
    ids=[
        "none",
        "two",
        "two without a row",
        "two, half shown",
        "one shown",
        "one less than shown",
        "a reset last",
        "a reset between",
        "a trade between",
        "the first shown",
        "a trade ends the count",
        "a failed trade does not",
        "a deposit ends the count",
        "a trade of another token does not",
        "a payout does not",
        "a failed approval",
        "another token and spender",
        "more than it looks at",
    ],
)
def test_ineffective_approvals_counts_those_since_the_last_trade(
    rows: Sequence[tuple[Terms, bool]], shown_raw: int | None, approval_count: int
) -> None:
    assert count(rows, shown_raw) == approval_count


@pytest.mark.parametrize(
    ("rows", "shown_raw", "token", "approval_count"),
    [
        pytest.param([approved(100)] * 3, 0, LINK, 0, id="those before"),
        pytest.param([approved(100)] * 4, 0, LINK, 1, id="one after"),
        pytest.param([*[approved(100)] * 2, approved(0), approved(100)], 50, LINK, 1, id="a reset before"),
        pytest.param([approved(100)] * 4, 0, WETH, 4, id="of another token"),
    ],
)
def test_ineffective_approvals_counts_anew_after_the_wait(
    rows: Sequence[tuple[Terms, bool]], shown_raw: int, token: str, approval_count: int
) -> None:
    """Those of the seconds 0 to 2,000 were the reason; its wait is over at 2,900."""
    left_out = TokenRefusal(token, 2_300, 1, "its allowance is still too small")

    assert count(rows, shown_raw, (left_out,)) == approval_count


@pytest.mark.parametrize(("refused_at_s", "approval_count"), [(2_400, 2), (2_401, 1)], ids=["at its end", "one second before"])
def test_ineffective_approvals_counts_from_the_end_of_the_wait(refused_at_s: int, approval_count: int) -> None:
    """The last two of four approvals are of the seconds 2,000 and 3,000; the wait is 600 s."""
    left_out = TokenRefusal(LINK, refused_at_s - 1_000, 1, "its allowance is still too small")

    assert count([approved(100)] * 4, left_out=(left_out,)) == approval_count
