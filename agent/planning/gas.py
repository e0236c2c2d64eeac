"""Gas of a plan's transaction, from measured constants, and of the approvals before it. Storage,
which is most of the cost, follows EIP-2929, EIP-2200 and EIP-3529: the first access of a token or a
balance in a transaction, the first write to a zero slot, and refunds for slots reset to zero.
Execution cost was measured on the embedded chain with plain ERC-20 tokens; the constants are at the
upper end of the measurements.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

from agent.amm import swap_style
from agent.model import (
    NATIVE_VENUE,
    Leg,
    LegPlace,
    Pool,
    StepInput,
    SwapStyle,
    wallet_changes,
)
from agent.policy import native_coin
from agent.units import NATIVE, Value


@dataclass(frozen=True, slots=True)
class WrappedNative:
    """The wrapped native coin as an asset, in wei of either form. `wrapped_raw` is its balance, of
    which legs may take `approved_raw` if this step has an approval; `wrappable_wei` is native coin
    that may be wrapped, `refill_raw` is unwrapped for gas, and `native_counts` is true if native
    coin is part of the asset.
    """

    token: str
    wrapped_raw: int
    approved_raw: int | None
    wrappable_wei: int
    refill_raw: int
    native_counts: bool

    @property
    def cap_raw(self) -> int | None:
        """Maximum that legs may sell: what is approved less the refill, or with native coin that
        too; None if neither binds.
        """
        if not self.native_counts:
            if self.approved_raw is None:
                return None
            return max(0, self.approved_raw - self.refill_raw)
        sellable_raw = self.wrapped_raw - self.refill_raw + self.wrappable_wei
        if self.approved_raw is None:
            return max(0, sellable_raw)
        return max(
            0, min(sellable_raw, max(self.approved_raw - self.refill_raw, self.wrappable_wei))
        )


def wrapped_native_of(step: StepInput) -> WrappedNative | None:
    """Return the wrapped native coin of this step; None if it is not an asset."""
    asset = native_coin.wrapped_asset(step.portfolio)
    if asset is None:
        return None
    token = asset.token.address
    balance_raw = next(
        (holding.raw for holding in step.snapshot.holdings if holding.token == token), 0
    )
    refill_raw = min(
        native_coin.refill_raw(step.snapshot, step.limits, step.progress.spent_gas_wei),
        native_coin.unwrappable_raw(step.snapshot, step.portfolio),
    )
    return WrappedNative(
        token,
        balance_raw,
        dict(step.progress.spend_caps).get(token),
        native_coin.wrappable_wei(step.snapshot, step.portfolio, step.limits),
        refill_raw,
        asset.includes_native,
    )


def with_payment_legs(wrapped_native: WrappedNative | None, legs: Sequence[Leg]) -> tuple[Leg, ...]:
    """Return the legs with wraps and unwraps for their payment; the trades stay the same, to the
    wei. If wrapped coin is sufficient, it pays. If native coin alone is sufficient, each selling
    leg begins with its own wrap, and no approval is needed. Otherwise the missing amount is first
    wrapped to the wallet. The gas refill comes last: the whole output of a leg that buys the coin
    if that is enough, because it needs no approval, else the exact amount from the wallet.
    """
    if wrapped_native is None or not legs:
        return tuple(legs)
    sold_raw = sum(
        leg.amount_in_raw
        for leg in legs
        if leg.token_in == wrapped_native.token and leg.source is LegPlace.WALLET
    )
    if wrapped_native.approved_raw is None:
        payable_raw = wrapped_native.wrapped_raw
    else:
        payable_raw = min(wrapped_native.wrapped_raw, wrapped_native.approved_raw)
    if (
        wrapped_native.refill_raw
        and wrapped_native.native_counts
        and (leg_index := _refill_leg(wrapped_native, legs)) is not None
    ):
        return _with_refill_from(legs, leg_index)
    refill_legs = (
        (build_unwrap_leg(wrapped_native.token, wrapped_native.refill_raw),)
        if wrapped_native.refill_raw
        else ()
    )
    if sold_raw + wrapped_native.refill_raw <= payable_raw:
        return (*legs, *refill_legs)
    if sold_raw <= wrapped_native.wrappable_wei and not refill_legs:
        return tuple(
            payment_leg for leg in legs for payment_leg in _wrap_for_leg(wrapped_native, leg)
        )
    shortfall_raw = max(0, sold_raw + wrapped_native.refill_raw - wrapped_native.wrapped_raw)
    first_wrap_legs = (
        (build_wrap_leg(wrapped_native.token, shortfall_raw, LegPlace.WALLET),)
        if shortfall_raw
        else ()
    )
    return (*first_wrap_legs, *legs, *refill_legs)


def build_wrap_leg(token: str, raw: int, sink: LegPlace) -> Leg:
    """Return a leg that wraps native coin of the wallet, one for one."""
    return Leg(token, NATIVE_VENUE, NATIVE, token, 0, raw, raw, raw, 0, 0, LegPlace.WALLET, sink)


def build_unwrap_leg(
    token: str, raw: int, source: LegPlace = LegPlace.WALLET, min_raw: int | None = None
) -> Leg:
    """Return a leg that unwraps wrapped coin of the wallet, one for one."""
    return Leg(
        token,
        NATIVE_VENUE,
        token,
        NATIVE,
        0,
        raw,
        raw,
        raw if min_raw is None else min_raw,
        0,
        0,
        source,
        LegPlace.WALLET,
    )


def sweeps(legs: Sequence[Leg]) -> list[tuple[int, str, int]]:
    """Return the sweeps of SwapRouter02 to the wallet: the leg before which each takes place (the
    number of legs: after all), the token, and the sum of its legs' minimums. Outputs of V3 legs
    wait in the router until another leg leaves, spends, wraps or unwraps the same token there.
    """
    sweeps_due: list[tuple[int, str, int]] = []
    waiting_min_raw: dict[str, int] = {}
    for leg_index, leg in enumerate(legs):
        router_tokens = {leg.token_in} if leg.source is LegPlace.ROUTER else set[str]()
        router_tokens |= {leg.token_out} if leg.sink is LegPlace.ROUTER else set()
        router_tokens |= {leg.token_in, leg.token_out} if leg.venue == NATIVE_VENUE else set()
        sweeps_due += [
            (leg_index, token, waiting_min_raw.pop(token))
            for token in [*waiting_min_raw]
            if token in router_tokens
        ]
        if swap_style(leg.venue) is SwapStyle.V3 and leg.sink is LegPlace.WALLET:
            waiting_min_raw[leg.token_out] = waiting_min_raw.get(leg.token_out, 0) + leg.min_out_raw
    return sweeps_due + [(len(legs), token, min_raw) for token, min_raw in waiting_min_raw.items()]


def _wrap_for_leg(wrapped_native: WrappedNative, leg: Leg) -> tuple[Leg, ...]:
    if leg.token_in != wrapped_native.token or leg.source is not LegPlace.WALLET:
        return (leg,)
    return build_wrap_leg(wrapped_native.token, leg.amount_in_raw, LegPlace.ROUTER), replace(
        leg, source=LegPlace.ROUTER
    )


def _refill_leg(wrapped_native: WrappedNative, legs: Sequence[Leg]) -> int | None:
    """Return the index of the leg with the smallest output that covers the refill; None if none
    does, or if the coin is sold too.
    """
    if any(leg.token_in == wrapped_native.token and leg.source is LegPlace.WALLET for leg in legs):
        return None
    covering_legs = [
        (leg.amount_out_raw, index)
        for index, leg in enumerate(legs)
        if leg.token_out == wrapped_native.token
        and leg.sink is LegPlace.WALLET
        and leg.min_out_raw >= wrapped_native.refill_raw
    ]
    return min(covering_legs)[1] if covering_legs else None


def _with_refill_from(legs: Sequence[Leg], leg_index: int) -> tuple[Leg, ...]:
    buying_leg = legs[leg_index]
    unwrap_leg = build_unwrap_leg(
        buying_leg.token_out, buying_leg.amount_out_raw, LegPlace.ROUTER, buying_leg.min_out_raw
    )
    return (
        *legs[:leg_index],
        replace(buying_leg, sink=LegPlace.ROUTER),
        unwrap_leg,
        *legs[leg_index + 1 :],
    )


TOKEN_ACCESS_GAS = 2_500
"""First call of a token contract in a transaction: cold less warm account access."""
SLOT_WRITE_GAS = 4_900
"""First write of a non-zero slot: cold read and write, less the cost of a later write."""
FIRST_WRITE_UNITS = 17_100
"""Extra gas of the first write to a zero slot: 20,000 instead of 2,900."""
CLEARED_SLOT_REFUND = 4_800
"""Refund of a slot reset to zero: a used-up allowance, or a balance sold to the last unit."""
TRANSIENT_BALANCE_UNITS = 22_100
TRANSIENT_BALANCE_REFUND = 19_900
"""A router balance that rises from zero and returns to zero within the transaction: its cost and
its refund.
"""
REFUND_DIVISOR = 5
"""Divisor of gas that bounds refunds (EIP-3529)."""


@dataclass(frozen=True, slots=True)
class RouterGas:
    """Gas of one router: the base transaction, and each wallet balance that it checks. The gas of
    swaps comes from the pools.

    `sweep_units` is the gas of a sweep to the wallet besides the router's balance; None if outputs
    are paid to the wallet directly.

    `can_pay_pools` is true if a leg may pay the next pair directly. `value_swap_units` is the gas
    of a swap paid with the value sent, `wrap_units` of wrapping to the wallet, `unwrap_units` and
    `router_unwrap_units` of unwrapping from wallet and router, each less the refund for the
    router's balance.
    """

    name: str
    base_units: int
    units_per_checked_balance: int
    can_pay_pools: bool
    value_swap_units: int
    wrap_units: int
    unwrap_units: int
    router_unwrap_units: int
    sweep_units: int | None = None


ROUTER_GAS = {
    "swap_router_02": RouterGas(
        "swap_router_02", 24_000, 0, False, 7_700, 18_300, 27_200, 18_300, sweep_units=9_000
    ),
    "rebalancer": RouterGas("rebalancer", 25_200, 2_500, True, 11_500, 12_900, 21_200, 18_300),
}
"""Router gas by name of execution.router."""


@dataclass(frozen=True, slots=True)
class GasInputs:
    """Snapshot inputs of the storage cost: wallet balances and router allowances, base units, and
    pools.
    """

    router_gas: RouterGas = ROUTER_GAS["swap_router_02"]
    balances: Mapping[str, int] = field(default_factory=dict)
    allowances: Mapping[str, int] = field(default_factory=dict)
    pools: Mapping[str, Pool] = field(default_factory=dict)


def leg_gas_units(
    pool: Pool,
    ticks_crossed: int,
    swap_steps: int = 1,
    router_gas: RouterGas = ROUTER_GAS["swap_router_02"],
    writes_observation: bool = True,
) -> int:
    """Return the gas units of one swap in `pool`, excluding token transfers; `writes_observation`
    is true if it writes an observation.
    """
    pool_gas = pool.gas
    step_gas_units = pool_gas.tick_gas * ticks_crossed + pool_gas.stop_gas * max(
        0, swap_steps - 1 - ticks_crossed
    )
    return (
        pool_gas.swap_units_by_router[router_gas.name]
        + pool.fee_gas
        + step_gas_units
        + (pool_gas.observation_gas if writes_observation or ticks_crossed else 0)
    )


def repeat_leg_gas_units(pool: Pool, router_gas: RouterGas) -> int:
    """Return the gas units of another swap through the same pool in the same direction; the
    observation is written once.
    """
    return pool.gas.swap_units_by_router[router_gas.name] - pool.gas.repeat_saving + pool.fee_gas


def least_leg_gas_units(pool: Pool, router_gas: RouterGas) -> int:
    """Return the least gas units that the first swap through a pool adds to a plan."""
    return leg_gas_units(pool, 0, router_gas=router_gas, writes_observation=False)


def least_base_gas_units(router_gas: RouterGas) -> int:
    """Return the least gas units of a plan beside its swaps: it sells a token and buys another."""
    token_units = 2 * (TOKEN_ACCESS_GAS + router_gas.units_per_checked_balance) + 3 * SLOT_WRITE_GAS
    return router_gas.base_units + token_units - 2 * CLEARED_SLOT_REFUND


def plan_gas_units(gas_inputs: GasInputs, legs: Sequence[Leg], swap_units: int) -> int:
    """Return the gas of a transaction of these legs, given the gas of their swaps; 0 without
    legs.
    """
    if not legs:
        return 0
    router_gas = gas_inputs.router_gas
    sold_tokens = {leg.token_in for leg in legs if leg.source is LegPlace.WALLET} - {NATIVE}
    bought_tokens = {leg.token_out for leg in legs if leg.sink is LegPlace.WALLET} - {NATIVE}
    traded_tokens = {token for leg in legs for token in (leg.token_in, leg.token_out)} - {NATIVE}
    balance_changes_raw = wallet_changes(legs)
    gas_units = router_gas.base_units + swap_units + TOKEN_ACCESS_GAS * len(traded_tokens)
    gas_units += (
        2 * SLOT_WRITE_GAS * len(sold_tokens)
        + SLOT_WRITE_GAS * len(bought_tokens - sold_tokens)
        + router_gas.units_per_checked_balance * len(balance_changes_raw)
    )
    gas_units += FIRST_WRITE_UNITS * sum(
        gas_inputs.balances.get(token, 1) == 0 for token in bought_tokens
    ) + _first_write_gas_units(gas_inputs, legs)
    gas_units -= _repeat_savings_gas_units(gas_inputs, legs)
    refund_units = CLEARED_SLOT_REFUND * sum(
        gas_inputs.allowances.get(token, 0) <= _spent_raw(legs, token) for token in sold_tokens
    )
    refund_units += CLEARED_SLOT_REFUND * sum(
        gas_inputs.balances.get(token, 0) == -balance_changes_raw[token] for token in sold_tokens
    )
    for leg_index, leg in enumerate(legs):
        if leg.venue == NATIVE_VENUE:
            gas_units += _wrap_gas_units(router_gas, leg)
            if leg.source is LegPlace.WALLET:
                gas_units += TRANSIENT_BALANCE_REFUND
                refund_units += TRANSIENT_BALANCE_REFUND
        if leg.sink is LegPlace.WALLET or (leg.venue == NATIVE_VENUE and leg.token_in == NATIVE):
            continue
        spending_leg = next(
            later_leg
            for later_leg in legs[leg_index + 1 :]
            if later_leg.source is LegPlace.ROUTER and later_leg.token_in == leg.token_out
        )
        if not (
            router_gas.can_pay_pools
            and spending_leg.pool in gas_inputs.pools
            and gas_inputs.pools[spending_leg.pool].style is SwapStyle.V2
            and swap_style(leg.venue) is not SwapStyle.V4
        ):
            gas_units += TRANSIENT_BALANCE_UNITS
            refund_units += TRANSIENT_BALANCE_REFUND
    if router_gas.sweep_units is not None:
        sweep_count = len(sweeps(legs))
        gas_units += (TRANSIENT_BALANCE_UNITS + router_gas.sweep_units) * sweep_count
        refund_units += TRANSIENT_BALANCE_REFUND * sweep_count
    return gas_units - min(refund_units, gas_units // REFUND_DIVISOR)


def gas_value(gas_units: int, wei_per_unit: int, native_price: Fraction) -> Value:
    """Return the value of this much gas in numeraire base units; `native_price` is numeraire base
    units per wei.
    """
    return gas_units * wei_per_unit * native_price


def _first_write_gas_units(gas_inputs: GasInputs, legs: Sequence[Leg]) -> int:
    """Return the gas of the storage slots written by the first trades of a pool."""
    write_gas_units = 0
    for address, token_in in dict.fromkeys((leg.pool, leg.token_in) for leg in legs):
        pool = gas_inputs.pools.get(address)
        if pool is not None and pool.unwritten_slots[token_in != pool.token0]:
            write_gas_units += FIRST_WRITE_UNITS * pool.gas.first_write_slots
    return write_gas_units


def _repeat_savings_gas_units(gas_inputs: GasInputs, legs: Sequence[Leg]) -> int:
    used_pools: set[str] = set()
    saved_units = 0
    for leg in legs:
        if leg.pool in used_pools and leg.pool in gas_inputs.pools:
            saved_units += gas_inputs.pools[leg.pool].gas.repeat_saving
        used_pools.add(leg.pool)
    return saved_units


def _spent_raw(legs: Sequence[Leg], token: str) -> int:
    return sum(
        leg.amount_in_raw for leg in legs if leg.token_in == token and leg.source is LegPlace.WALLET
    )


def _wrap_gas_units(router_gas: RouterGas, leg: Leg) -> int:
    if leg.token_in == NATIVE:
        if leg.sink is LegPlace.WALLET:
            return router_gas.wrap_units
        return router_gas.value_swap_units
    if leg.source is LegPlace.WALLET:
        return router_gas.unwrap_units
    return router_gas.router_unwrap_units
