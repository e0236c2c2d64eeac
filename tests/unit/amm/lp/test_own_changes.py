"""Tests of agent/amm/lp/own_changes.py: positions that the agent opened and changed itself, from its receipts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.amm.lp import own_changes
from agent.model import ConfirmedPosition, LiquidityAdded, LpAction, LpPositionChange, LpTarget, Provide, Receipt, Transfer, Withdraw
from tests.support.constants import DAY_S, MONTH_S, WALLET
from tests.support.signing import ADD, INCREASE, MANAGER, MINT, PAIR, POOL, TOKENS, WITHDRAW_V2, WITHDRAW_V3
from tests.support.transactions import OTHER, liquidity_receipt

MINTED = LiquidityAdded(MANAGER, 42, 10**20, MINT.amounts_raw, WALLET)
INCREASED = replace(MINTED, minted_to=None, liquidity=10**19, amounts_raw=(10, 20))
LP_TOKENS = Transfer(PAIR, OTHER, WALLET, 10**20)
CONFIRMED = ConfirmedPosition("uniswap_v3", MANAGER, 42, *TOKENS, (1_000, 2_000), None, 5_000, MONTH_S)


def position_changes(*actions_and_receipts: tuple[LpAction, Receipt]) -> tuple[LpPositionChange, ...]:
    changes = (own_changes.position_change(action, receipt, WALLET) for action, receipt in actions_and_receipts)
    return tuple(change for change in changes if change is not None)


def tracked_positions(
    confirmed: tuple[ConfirmedPosition, ...], changes: tuple[LpPositionChange, ...], *targets: LpTarget
) -> tuple[ConfirmedPosition, ...]:
    return own_changes.tracked_positions(confirmed, targets, changes, 6_000, MONTH_S)


def withdrawal_of(action: Withdraw, liquidity: int, position_liquidity: int) -> tuple[Withdraw, Receipt]:
    return replace(action, liquidity=liquidity, position_liquidity=position_liquidity), liquidity_receipt()


MINT_AND_RECEIPT = (MINT, liquidity_receipt(MINTED))
ADD_AND_RECEIPT = (ADD, liquidity_receipt(transfers=(LP_TOKENS,)))


def test_minted_position_counts_with_all_that_was_provided() -> None:
    (position,) = tracked_positions((), position_changes(MINT_AND_RECEIPT, (INCREASE, liquidity_receipt(INCREASED, block=20))))

    entry_raw = (MINT.amounts_raw[0] + 10, MINT.amounts_raw[1] + 20)
    assert position == ConfirmedPosition("uniswap_v3", MANAGER, 42, *TOKENS, entry_raw, 16, 6_000, MONTH_S)


def test_withdrawn_quarter_leaves_three_quarters_of_the_entry() -> None:
    changes = position_changes(withdrawal_of(WITHDRAW_V3, 10**19, 4 * 10**19), (INCREASE, liquidity_receipt(INCREASED)))

    assert tracked_positions((CONFIRMED,), changes) == (replace(CONFIRMED, entry_raw=(750 + 10, 1_500 + 20)),)


@pytest.mark.parametrize(
    ("entry_block", "entry_raw"),
    [
        pytest.param(None, (1_010 + MINT.amounts_raw[0], 2_020 + MINT.amounts_raw[1]), id="not given"),
        pytest.param(15, (1_010 + MINT.amounts_raw[0], 2_020 + MINT.amounts_raw[1]), id="before the mint"),
        pytest.param(16, (1_010, 2_020), id="that of the mint"),
        pytest.param(19, (1_010, 2_020), id="before the addition"),
        pytest.param(20, (1_000, 2_000), id="that of the addition"),
    ],
)
def test_entry_of_the_config_contains_changes_up_to_its_block(entry_block: int | None, entry_raw: tuple[int, int]) -> None:
    changes = position_changes(MINT_AND_RECEIPT, (INCREASE, liquidity_receipt(INCREASED, block=20)))

    (position,) = tracked_positions((replace(CONFIRMED, entry_block=entry_block),), changes)

    assert position.entry_raw == entry_raw


@pytest.mark.parametrize(
    ("opening", "withdrawal"),
    [pytest.param(MINT_AND_RECEIPT, WITHDRAW_V3, id="range"), pytest.param(ADD_AND_RECEIPT, WITHDRAW_V2, id="pair")],
)
@pytest.mark.parametrize("grown_to", [10**20, 3 * 10**20], ids=["its own liquidity", "a stranger's addition too"])
def test_position_counts_until_all_is_withdrawn(opening: tuple[Provide, Receipt], withdrawal: Withdraw, grown_to: int) -> None:
    """Anybody may add to a position of the manager, and send LP tokens."""
    all_but_one = withdrawal_of(withdrawal, grown_to - 1, grown_to)
    rest = withdrawal_of(withdrawal, 1, 1)

    assert len(tracked_positions((), position_changes(opening))) == 1
    assert len(tracked_positions((), position_changes(opening, all_but_one))) == 1
    assert tracked_positions((), position_changes(opening, all_but_one, rest)) == ()
    assert tracked_positions((), position_changes(opening, withdrawal_of(withdrawal, grown_to, grown_to))) == ()


def test_targeted_pair_counts_from_the_start_unlike_a_pool() -> None:
    pair = LpTarget("uniswap_v2", PAIR, PAIR, *TOKENS, 3_000, None, 1_000, None, None, 4_000, DAY_S)
    pool = LpTarget("uniswap_v3", MANAGER, POOL, *TOKENS, 3_000, 60, 1_000, 2_000, None, 4_000, DAY_S)

    (position,) = tracked_positions((), (), pair, pool)
    configured = replace(position, entry_raw=(5, 6), volatility_bps=1)

    assert position == ConfirmedPosition("uniswap_v2", PAIR, None, *TOKENS, (0, 0), None, 4_000, DAY_S)
    assert tracked_positions((configured,), (), pair) == (configured,)
