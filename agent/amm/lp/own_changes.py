"""The agent's own changes of positions, from transaction receipts, and the positions that
result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from agent.amm.lp.venues import LpVenue
from agent.errors import ErrorCode, PassingFault
from agent.model import (
    Collect,
    ConfirmedPosition,
    LiquidityAdded,
    LpAction,
    LpPositionChange,
    LpTarget,
    Provide,
    Receipt,
    Withdraw,
)
from agent.units import floor_int


def position_change(action: LpAction, receipt: Receipt, wallet: str) -> LpPositionChange | None:
    """Return the effect of a mined `action`; None if liquidity did not change (a collect or a
    revert). Raises PassingFault if the receipt of a provision does not show it, so that none is
    stored that lacks it: an unknown position would be missing from every total.
    """
    if receipt.status != 1 or isinstance(action, Collect):
        return None
    if isinstance(action, Withdraw):
        return LpPositionChange(
            venue=action.venue,
            contract=action.contract,
            token_id=action.token_id,
            pool=action.pool,
            token0=action.token0,
            token1=action.token1,
            fee_pips=0,
            ticks=None,
            liquidity_delta=-action.liquidity,
            liquidity_before=action.position_liquidity,
            amounts_raw=(0, 0),
            block_number=receipt.block_number,
        )
    return (
        _v2_provision(action, receipt, wallet)
        if action.venue == LpVenue.V2
        else _v3_provision(action, receipt, wallet)
    )


def _v2_provision(action: Provide, receipt: Receipt, wallet: str) -> LpPositionChange:
    net_raw_by_token = receipt.net_transfers(wallet)
    liquidity = net_raw_by_token.get(action.contract, 0)
    if liquidity <= 0:
        raise _missing_liquidity_error(action, receipt)
    amounts_raw = (-net_raw_by_token.get(action.token0, 0), -net_raw_by_token.get(action.token1, 0))
    return _provision_change(action, None, liquidity, amounts_raw, receipt)


def _v3_provision(action: Provide, receipt: Receipt, wallet: str) -> LpPositionChange:
    """Return the change of a provision. If a transaction emits several mint events, the last is
    that of the outer call.
    """
    own_mints = [
        mint
        for mint in receipt.liquidity_added
        if mint.manager == action.contract and _is_of_action(mint, action, wallet)
    ]
    if not own_mints:
        raise _missing_liquidity_error(action, receipt)
    return _provision_change(
        action, own_mints[-1].token_id, own_mints[-1].liquidity, own_mints[-1].amounts_raw, receipt
    )


def _is_of_action(mint: LiquidityAdded, action: Provide, wallet: str) -> bool:
    return mint.minted_to == wallet if action.token_id is None else mint.token_id == action.token_id


def _provision_change(
    action: Provide,
    token_id: int | None,
    liquidity: int,
    amounts_raw: tuple[int, int],
    receipt: Receipt,
) -> LpPositionChange:
    is_new = action.token_id is None and token_id is not None
    return LpPositionChange(
        venue=action.venue,
        contract=action.contract,
        token_id=token_id,
        pool=action.pool,
        token0=action.token0,
        token1=action.token1,
        fee_pips=action.fee_pips if is_new else 0,
        ticks=action.ticks if is_new else None,
        liquidity_delta=liquidity,
        liquidity_before=0,
        amounts_raw=amounts_raw,
        block_number=receipt.block_number,
    )


def _missing_liquidity_error(action: Provide, receipt: Receipt) -> PassingFault:
    return PassingFault(
        f"the receipt of {receipt.tx_hash} does not show the liquidity that it added to"
        f" {action.name}",
        "try another endpoint; planning is blocked until the position is known",
        code=ErrorCode.RECEIPT,
    )


def imported_mint(mint: LpPositionChange, amounts_raw: tuple[int, int]) -> LpPositionChange:
    """Return the mint of a position imported by the owner, as if `amounts_raw` had been
    provided.
    """
    return replace(mint, amounts_raw=amounts_raw)


def expected_wallet_changes(action: LpAction) -> tuple[int, int]:
    """Return the planned effect of an action on the wallet, base units of (token0, token1);
    negative for payments.
    """
    match action:
        case Withdraw():
            return (
                action.amounts_raw[0] + action.fees_raw[0],
                action.amounts_raw[1] + action.fees_raw[1],
            )
        case Collect():
            return action.fees_raw
        case Provide():
            return -action.amounts_raw[0], -action.amounts_raw[1]


def is_position_open(changes: Sequence[LpPositionChange], name: str) -> bool:
    """Return whether the agent provided liquidity to a position and has not withdrawn all of it.
    The sum of the agent's own changes does not suffice, because anyone may add liquidity to a
    position.
    """
    liquidity_after = [
        change.liquidity_before + change.liquidity_delta
        if change.liquidity_delta < 0
        else change.liquidity_delta
        for change in changes
        if change.name == name
    ]
    return (
        any(change.liquidity_delta > 0 for change in changes if change.name == name)
        and liquidity_after[-1] > 0
    )


def open_mints(changes: Sequence[LpPositionChange]) -> tuple[LpPositionChange, ...]:
    """Return the mint of each V3 position that the agent opened and has not fully withdrawn."""
    return tuple(
        change
        for change in changes
        if change.ticks is not None and is_position_open(changes, change.name)
    )


def tracked_positions(
    confirmed_positions: Sequence[ConfirmedPosition],
    targets: Sequence[LpTarget],
    changes: Sequence[LpPositionChange],
    volatility_bps: int,
    horizon_s: int,
) -> tuple[ConfirmedPosition, ...]:
    """Return all tracked positions: those of the config, V2 pairs that are targets, and open ones
    minted by the agent.

    A config entry counts as provided by the owner, and contains the agent's changes up to
    `entry_block`. Later provisions add to it, and withdrawals reduce it in proportion.
    `volatility_bps` and `horizon_s` apply to positions outside the config and the targets' pools.
    """
    position_by_name = {position.name: position for position in confirmed_positions}
    entry_block_by_name = {
        position.name: position.entry_block
        for position in confirmed_positions
        if position.entry_block is not None
    }
    risk_by_pool = {target.pool: (target.volatility_bps, target.horizon_s) for target in targets}

    def add(
        target_or_change: LpTarget | LpPositionChange, token_id: int | None, block: int | None
    ) -> None:
        risk = risk_by_pool.get(target_or_change.pool, (volatility_bps, horizon_s))
        confirmed_position = ConfirmedPosition(
            target_or_change.venue,
            target_or_change.contract,
            token_id,
            target_or_change.token0,
            target_or_change.token1,
            (0, 0),
            block,
            *risk,
        )
        position_by_name.setdefault(confirmed_position.name, confirmed_position)

    for target in targets:
        if target.tick_spacing is None:
            add(target, None, None)
    for mint in open_mints(changes):
        add(mint, mint.token_id, mint.block_number)
    for change in changes:
        if change.token_id is None and is_position_open(changes, change.name):
            add(change, None, change.block_number)
        is_in_entry = change.block_number <= entry_block_by_name.get(change.name, -1)
        if change.name in position_by_name and not is_in_entry:
            position_by_name[change.name] = _changed_position(position_by_name[change.name], change)
    return tuple(position_by_name.values())


def _changed_position(position: ConfirmedPosition, change: LpPositionChange) -> ConfirmedPosition:
    if change.liquidity_delta >= 0:
        return replace(
            position,
            entry_raw=(
                position.entry_raw[0] + change.amounts_raw[0],
                position.entry_raw[1] + change.amounts_raw[1],
            ),
        )
    remaining_share = (
        Fraction(max(0, change.liquidity_before + change.liquidity_delta), change.liquidity_before)
        if change.liquidity_before > 0
        else Fraction(1)
    )
    return replace(
        position,
        entry_raw=(
            floor_int(position.entry_raw[0] * remaining_share),
            floor_int(position.entry_raw[1] * remaining_share),
        ),
    )
