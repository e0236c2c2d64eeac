"""What SwapRouter02 does with a multicall, on exact pools: payments, swaps, minimums, Transfer events; all or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.amm.errors import Reverts
from agent.amm.pools import Swapped, swap_exact_in
from agent.backtest.wanted import ROUTER, WALLET
from agent.chain.calls import Approve, ExactInputSingle, Multicall, SwapExactTokens, decode
from agent.model import Funding, Leg, PoolState, Transfer, V2Pool
from agent.planning.gas import GasFacts, leg_units, plan_units
from agent.venues.swap_router_02 import ROUTER_ITSELF

APPROVE_UNITS = 46_000
"""An approval of a plain ERC-20 token, as measured on the embedded chain."""


class Reverted(Exception):
    """The transaction fails; the message says why."""


@dataclass(slots=True)
class Effects:
    """What a transaction changes: balances and allowances of the wallet, pools; and what it tells. Nothing of it is applied yet."""

    balances: dict[str, int]
    allowances: dict[str, int]
    pools: dict[str, PoolState]
    router: dict[str, int] = field(default_factory=dict)
    transfers: list[Transfer] = field(default_factory=list)
    swaps: list[tuple[str, str, Swapped]] = field(default_factory=list)
    legs: list[Leg] = field(default_factory=list)
    gas: int = 0


def run(
    to: str, data: str, balances: Mapping[str, int], allowances: Mapping[str, int], pools: Mapping[str, PoolState], now_s: int
) -> Effects:
    """Runs a transaction of the wallet at `now_s`. Raises Reverted where the contracts would."""
    done = Effects(dict(balances), dict(allowances), dict(pools))
    match decode(data):
        case Approve(spender=spender, raw=raw) if spender == ROUTER:
            done.allowances[to] = raw
            done.gas = APPROVE_UNITS
        case Multicall(deadline_s=deadline_s, calls=calls) if to == ROUTER:
            if now_s > deadline_s:
                raise Reverted("Transaction too old")
            for call in calls:
                match call:
                    case ExactInputSingle() | SwapExactTokens():
                        _swap(done, call)
                    case _:
                        raise Reverted(f"{type(call).__name__} is not simulated")
            done.gas = _gas(done, balances, allowances, pools)
        case other:
            raise Reverted(f"{type(other).__name__} at {to} is not simulated")
    return done


def _swap(done: Effects, call: ExactInputSingle | SwapExactTokens) -> None:
    pair = (call.token_in, call.token_out) if isinstance(call, ExactInputSingle) else (call.path[0], call.path[-1])
    pool = _pool(done.pools, call, pair)
    token_in, token_out = pair
    amount_raw = call.amount_in_raw or done.router.get(token_in, 0)
    try:
        swapped = swap_exact_in(pool, token_in, amount_raw)
    except Reverts as error:
        raise Reverted(str(error)) from None
    if swapped.amount_out_raw < call.min_out_raw:
        raise Reverted("Too little received")
    source = Funding.WALLET if call.amount_in_raw else Funding.ROUTER
    sink = Funding.ROUTER if call.recipient == ROUTER_ITSELF else Funding.WALLET
    _pay(done, token_in, swapped.amount_in_raw, source)
    into = done.router if sink is Funding.ROUTER else done.balances
    into[token_out] = into.get(token_out, 0) + swapped.amount_out_raw
    done.pools[pool.address] = swapped.after
    payer, receiver = (WALLET if source is Funding.WALLET else ROUTER), (ROUTER if sink is Funding.ROUTER else WALLET)
    done.transfers.append(Transfer(token_out, pool.address, receiver, swapped.amount_out_raw))
    done.transfers.append(Transfer(token_in, payer, pool.address, swapped.amount_in_raw))
    done.swaps.append((token_in, token_out, swapped))
    done.legs.append(
        Leg(
            pool=pool.address,
            venue=pool.venue,
            token_in=token_in,
            token_out=token_out,
            fee_pips=pool.fee_pips,
            amount_in_raw=swapped.amount_in_raw,
            amount_out_raw=swapped.amount_out_raw,
            min_out_raw=call.min_out_raw,
            fee_raw=swapped.fee_raw,
            impact_bps=0,
            source=source,
            sink=sink,
        )
    )


def _pool(pools: Mapping[str, PoolState], call: ExactInputSingle | SwapExactTokens, pair: tuple[str, str]) -> PoolState:
    """The one pool that the factory knows for this call."""
    v2 = isinstance(call, SwapExactTokens)
    for pool in pools.values():
        if {pool.token0, pool.token1} == set(pair) and isinstance(pool, V2Pool) == v2:
            return pool
    raise Reverted("no such pool")


def _pay(done: Effects, token: str, raw: int, source: Funding) -> None:
    if source is Funding.ROUTER:
        done.router[token] = done.router.get(token, 0) - raw
        return
    if done.allowances.get(token, 0) < raw or done.balances.get(token, 0) < raw:
        raise Reverted("STF")
    done.allowances[token] -= raw
    done.balances[token] -= raw


def _gas(done: Effects, balances: Mapping[str, int], allowances: Mapping[str, int], pools: Mapping[str, PoolState]) -> int:
    """By the model that plans are made with."""
    swaps = sum(leg_units(pools[leg.pool], one[2].ticks_crossed, one[2].steps) for leg, one in zip(done.legs, done.swaps, strict=True))
    return plan_units(GasFacts(balances=balances, allowances=allowances, pools=pools), done.legs, swaps)
