"""What the agent itself did to positions, by the receipts of its transactions; and what it therefore owns and put in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from agent.errors import OperatorNeeded
from agent.model import Collect, ConfirmedPosition, LiquidityAdded, LpAction, LpMove, LpTarget, Provide, Receipt, Withdraw
from agent.units import floor_int


def move(action: LpAction, receipt: Receipt, wallet: str) -> LpMove | None:
    """What a mined `action` did; None where it changed no liquidity: a collect, or a transaction that reverted.

    Raises OperatorNeeded when the receipt of liquidity that was provided does not tell of it: a position that nobody knows of
    would be missing from every total.
    """
    if receipt.status != 1 or isinstance(action, Collect):
        return None
    if isinstance(action, Withdraw):
        return LpMove(
            action.venue, action.contract, action.token_id, action.pool, action.token0, action.token1,
            0, None, -action.liquidity, action.held, (0, 0), receipt.block_number,
        )  # fmt: skip
    return _put_in_v2(action, receipt, wallet) if action.venue == "uniswap_v2" else _put_in_v3(action, receipt, wallet)


def _put_in_v2(action: Provide, receipt: Receipt, wallet: str) -> LpMove:
    net = receipt.net(wallet)
    liquidity = net.get(action.contract, 0)
    if liquidity <= 0:
        raise _silent(action, receipt)
    amounts = (-net.get(action.token0, 0), -net.get(action.token1, 0))
    return _provided(action, None, liquidity, amounts, receipt)


def _put_in_v3(action: Provide, receipt: Receipt, wallet: str) -> LpMove:
    """The manager tells of a mint when all of it is done: of several events of one transaction the last is the outer call's."""
    fits = [added for added in receipt.added if added.manager == action.contract and _fits(added, action, wallet)]
    if not fits:
        raise _silent(action, receipt)
    return _provided(action, fits[-1].token_id, fits[-1].liquidity, fits[-1].amounts_raw, receipt)


def _fits(added: LiquidityAdded, action: Provide, wallet: str) -> bool:
    return added.minted_to == wallet if action.token_id is None else added.token_id == action.token_id


def _provided(action: Provide, token_id: int | None, liquidity: int, amounts: tuple[int, int], receipt: Receipt) -> LpMove:
    fresh = action.token_id is None and token_id is not None
    return LpMove(
        action.venue, action.contract, token_id, action.pool, action.token0, action.token1,
        action.fee_pips if fresh else 0, action.ticks if fresh else None, liquidity, 0, amounts, receipt.block_number,
    )  # fmt: skip


def _silent(action: Provide, receipt: Receipt) -> OperatorNeeded:
    return OperatorNeeded(
        f"the receipt of {receipt.tx_hash} does not tell of the liquidity that it added to {action.name}",
        "ask another endpoint; nothing is planned before it is known what the wallet has",
    )


def taken_over(mint: LpMove, amounts: tuple[int, int]) -> LpMove:
    """The mint of a position that the owner hands over, as if `amounts` had been put in."""
    return replace(mint, amounts_raw=amounts)


def expected(action: LpAction) -> tuple[int, int]:
    """Base units of (token0, token1) that an action brings the wallet by its plan; negative where it gives."""
    match action:
        case Withdraw():
            return action.amounts_raw[0] + action.fees_raw[0], action.amounts_raw[1] + action.fees_raw[1]
        case Collect():
            return action.fees_raw
        case Provide():
            return -action.amounts_raw[0], -action.amounts_raw[1]


def is_open(moves: Sequence[LpMove], name: str) -> bool:
    """Whether the agent has put liquidity into a position and has not taken out all that it held.

    Sums of its own moves would not tell: whoever likes may add to a position, and what is added counts.
    """
    done = [one.held + one.liquidity if one.liquidity < 0 else one.liquidity for one in moves if one.name == name]
    return any(one.liquidity > 0 for one in moves if one.name == name) and done[-1] > 0


def opened(moves: Sequence[LpMove]) -> tuple[LpMove, ...]:
    """The mint of each V3 position that the agent opened and has not taken out wholly."""
    return tuple(one for one in moves if one.ticks is not None and is_open(moves, one.name))


def known(
    confirmed: Sequence[ConfirmedPosition], targets: Sequence[LpTarget], moves: Sequence[LpMove], volatility_bps: int, horizon_s: int
) -> tuple[ConfirmedPosition, ...]:
    """Every position that counts: those of the config, V2 pairs that are targets, and what the agent opened and did not close.

    A config's entry is what its owner put in; what the agent put in is added, and of what it took out its share of all is
    gone. `volatility_bps` and `horizon_s` are for positions that neither the config names nor a target's pool holds.
    """
    found = {one.name: one for one in confirmed}
    risks = {target.pool: (target.volatility_bps, target.horizon_s) for target in targets}

    def add(at: LpTarget | LpMove, token_id: int | None, block: int | None) -> None:
        risk = risks.get(at.pool, (volatility_bps, horizon_s))
        one = ConfirmedPosition(at.venue, at.contract, token_id, at.token0, at.token1, (0, 0), block, *risk)
        found.setdefault(one.name, one)

    for target in targets:
        if target.tick_spacing is None:
            add(target, None, None)
    for mint in opened(moves):
        add(mint, mint.token_id, mint.block_number)
    for done in moves:
        if done.token_id is None and is_open(moves, done.name):
            add(done, None, done.block_number)
        if done.name in found:
            found[done.name] = _after(found[done.name], done)
    return tuple(found.values())


def _after(one: ConfirmedPosition, done: LpMove) -> ConfirmedPosition:
    if done.liquidity >= 0:
        return replace(one, entry_raw=(one.entry_raw[0] + done.amounts_raw[0], one.entry_raw[1] + done.amounts_raw[1]))
    rest = Fraction(max(0, done.held + done.liquidity), done.held) if done.held > 0 else Fraction(1)
    return replace(one, entry_raw=(floor_int(one.entry_raw[0] * rest), floor_int(one.entry_raw[1] * rest)))
