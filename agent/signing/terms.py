"""Fixed terms of the signing rules, and their refusals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from agent.errors import Refused
from agent.model import PerpOrderKind, PoolMaker, Verdict
from agent.ports import Grant

BUMP_NUMERATOR = 9
BUMP_DENOMINATOR = 8
"""A replacement pays at least 12.5 % more in every fee field; nodes require 10 %."""
TIP_CAP_WEI = 5 * 10**9
"""Cap on the tip that an endpoint suggests, and on the tip of a transaction that is not a
replacement.
"""
TIP_RANGES_WEI = {137: (25 * 10**9, 300 * 10**9), 80002: (25 * 10**9, 300 * 10**9)}
"""Least tip and its cap by chain id, where they differ. Nodes of Polygon refuse less than 25 gwei
(bor, txpool.pricelimit).
"""


def tip_range_wei(chain_id: int) -> tuple[int, int]:
    """Return the least tip that nodes of a chain accept, and its cap, wei per unit of gas."""
    return TIP_RANGES_WEI.get(chain_id, (0, TIP_CAP_WEI))


@dataclass(frozen=True, slots=True)
class FuturesRules:
    """The signer's fixed terms of the futures layer. Addresses are checksummed; the contracts of
    Perpetual Protocol v2 are pinned, and empty for another venue.

    `trader` is the margin account: the wallet, or another account whose delegate the wallet is.
    `delegate` is the key that the trader may allow to trade (None: none). `markets` are base
    tokens, or the venue's market names. Bounds are at most `slippage_bps` from the index;
    reductions in an emergency at most `emergency_slippage_bps`, at a gas price of at most
    `emergency_fee_wei` (None: off). An index older than `max_index_age_s` cannot set a bound.
    Orders of an off-chain venue expire within `max_validity_s`; `market_numbers` are the pinned
    (name, number) of its markets, without which none of its orders is signed. `order_kind` is the
    kind of openings that may be signed beside market orders.
    """

    clearing_house: str
    vault: str
    delegate_approval: str
    collateral: str
    trader: str
    delegate: str | None
    markets: tuple[str, ...]
    max_leverage_bps: int
    slippage_bps: int
    emergency_slippage_bps: int
    max_index_age_s: int
    emergency_fee_wei: int | None = None
    max_validity_s: int = 0
    market_numbers: tuple[tuple[str, int], ...] = ()
    order_kind: PerpOrderKind = PerpOrderKind.MARKET


@dataclass(frozen=True, slots=True)
class SigningRules:
    """The signer's fixed terms. Addresses are checksummed.

    `routers` (SwapRouter02), `rebalancers` and `tokens` are contracts whose address and code hash
    are pinned in the store and were compared with the chain in this step. `v3_managers` (V3
    position managers), `v2_routers` and `v2_pairs` (V2) are pinned in the same way, and only for
    liquidity. `oracle_pools` are V3 pools whose number of price observations may be increased,
    `init_code_hash` is that of the only creation code that may be deployed (None: none is). Payouts
    go only to `payout_addresses`, addresses in the config that the owner confirmed.
    `max_deadline_s` is the longest validity of a swap, in seconds from the grant's chain time.
    `max_fee_wei` is limits.gas_price, the largest price of one unit of gas (None: off).
    `wrapped_native` is the token that the native coin may be exchanged for, `venue_makers` who
    makes the pools of each venue through which a Rebalancer may trade. `futures` are the terms of
    the futures layer (None: none is signed). `batch_contract` is MultiSendCallOnly, whose code was
    compared in this step, for a Safe that can simulate its delegate call (None: no batch is signed).
    """

    chain_id: int
    wallet: str
    routers: tuple[str, ...]
    tokens: tuple[str, ...]
    max_deadline_s: int
    max_fee_wei: int | None
    rebalancers: tuple[str, ...] = ()
    wrapped_native: str | None = None
    venue_makers: tuple[tuple[str, PoolMaker], ...] = ()
    v3_managers: tuple[str, ...] = ()
    v2_routers: tuple[str, ...] = ()
    v2_pairs: tuple[str, ...] = ()
    oracle_pools: tuple[str, ...] = ()
    payout_addresses: tuple[str, ...] = ()
    futures: FuturesRules | None = None
    init_code_hash: str | None = None
    batch_contract: str | None = None

    @property
    def called_contracts(self) -> tuple[str | None, ...]:
        """Contracts that the wallet calls; a payout to one of them would be lost."""
        futures_contracts: tuple[str, ...] = ()
        if (futures := self.futures) is not None:
            futures_contracts = (
                futures.clearing_house,
                futures.vault,
                futures.delegate_approval,
                futures.collateral,
            )
        return (
            *self.tokens,
            *self.routers,
            *self.rebalancers,
            *self.v3_managers,
            *self.v2_routers,
            *self.v2_pairs,
            *self.oracle_pools,
            *futures_contracts,
            self.wrapped_native,
            self.batch_contract,
        )


HighestTipByNonce = Mapping[int, int | None]
"""Nonces that may be signed now, each with the highest tip signed there so far, wei per gas; None
if nothing was signed."""


def replacement_fee_wei(fee_wei: int) -> int:
    """Return the fee that replaces a fee of `fee_wei`: 12.5 % more, rounded up."""
    return max(fee_wei + 1, -(-fee_wei * BUMP_NUMERATOR // BUMP_DENOMINATOR))


def refuse(rule: str, measured: object, limit: object) -> NoReturn:
    """Raise Refused for `rule`, with the verdict."""
    verdict = Verdict(f"signer.{rule}", str(measured), str(limit), False)
    raise Refused(
        f"the signer refuses by rule {rule!r}: got {measured}, allows {limit}", (verdict,)
    )


def require_deadline(deadline_s: int, grant: Grant, rules: SigningRules) -> None:
    """Require a deadline after the grant's chain time and within the longest validity."""
    latest_deadline_s = min(grant.deadline_s, grant.now_s + rules.max_deadline_s)
    if not grant.now_s < deadline_s <= latest_deadline_s:
        refuse("deadline", deadline_s, f"after {grant.now_s} and at most {latest_deadline_s}")


GAS_PRICE_KEY = "limits.gas_price"
EMERGENCY_KEYS = ("futures.limits.emergency_gas_price", "futures.limits.emergency_gas_per_day")


def gas_keys(is_emergency: bool) -> tuple[str, str]:
    """Return the keys of the limits of gas price and of gas in 24 h."""
    return EMERGENCY_KEYS if is_emergency else (GAS_PRICE_KEY, "limits.gas_per_day")
