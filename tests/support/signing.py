"""Plans, grants and transactions for tests of signing: three legs over V3, V2 and a hub chain, with the published test key."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.chain.tokens import encode_approve
from agent.errors import Refused
from agent.model import Goal, IntentKind, Leg, LegFunding, Plan, PlanCost, Rebalance, UnsignedTx
from agent.ports import Grant
from agent.signing.keys import TestAccountKey, load_key
from agent.signing.rules import LocalSigner, SignableNonces, SigningRules
from agent.venues.swap_router_02 import encode
from tests.support.builders import address

CHAIN_ID = 31337
NOW_S = 1_800_000_000
DEADLINE_S = NOW_S + 60
GWEI = 10**9
MAX_FEE_WEI = 15 * GWEI
"""limits.gas_price of the rules."""
KEY = load_key(TestAccountKey(0), CHAIN_ID, ask=None)
WALLET = KEY.address
ROUTER = address("router")
STRANGER = address("stranger")
WETH, USDC, WBTC, USDT = (address(name) for name in ("weth", "usdc", "wbtc", "usdt"))
RULES = SigningRules(CHAIN_ID, WALLET, routers=(ROUTER,), tokens=(WETH, USDC, WBTC, USDT), max_deadline_s=90, max_fee_wei=MAX_FEE_WEI)
MAX_GAS_WEI = 10**16
NONCE = 7
NONCES: SignableNonces = {NONCE: None}
"""The journal's next nonce, at which nothing was signed yet."""


def leg(token_in: str, token_out: str, amount_in: int, amount_out: int, **changes: object) -> Leg:
    """A V3 leg of the 0.3 % pool from and to the wallet, its minimum 1 % below its output."""
    base = Leg(
        pool=address(f"pool {token_in} {token_out}"),
        venue="uniswap_v3",
        token_in=token_in,
        token_out=token_out,
        fee_pips=3000,
        amount_in_raw=amount_in,
        amount_out_raw=amount_out,
        min_out_raw=amount_out * 99 // 100,
        fee_raw=amount_in * 3 // 1000,
        impact_bps=10,
        source=LegFunding.WALLET,
        sink=LegFunding.WALLET,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def plan_of(*legs: Leg) -> Plan:
    """A plan of these legs; what else a plan predicts plays no part in signing."""
    nothing = Fraction(0)
    return Plan(
        block=1,
        decision=Rebalance("test", Goal(())),
        legs=legs,
        holdings_after=(),
        weights_after_bps=(),
        cost=PlanCost(nothing, nothing, nothing, nothing),
        turnover=nothing,
        gross_volume=nothing,
        gas_units=400_000,
        gap_bps=None,
        verdicts=(),
        skipped=(),
        expires_block=10,
    )


PLAN = plan_of(
    leg(WETH, USDC, 10**18, 3_000_000_000),
    leg(WETH, USDC, 2 * 10**17, 590_000_000, venue="uniswap_v2"),
    leg(USDT, USDC, 500_000_000, 499_000_000, fee_pips=100, sink=LegFunding.ROUTER),
    leg(USDC, WBTC, 499_000_000, 800_000, venue="uniswap_v2", source=LegFunding.ROUTER),
)
FLOORS = tuple(one.min_out_raw - 1 for one in PLAN.legs)
SWAP_GRANT = Grant(IntentKind.SWAP, NOW_S, NOW_S + 90, MAX_GAS_WEI, PLAN, FLOORS)
APPROVE_GRANT = Grant(IntentKind.APPROVE, NOW_S, NOW_S + 90, MAX_GAS_WEI, approve=(USDT, ROUTER, 500_000_000))
RESET_GRANT = Grant(IntentKind.APPROVE, NOW_S, NOW_S + 90, MAX_GAS_WEI, approve=(USDT, ROUTER, 0))
CANCEL_GRANT = Grant(IntentKind.CANCEL, NOW_S, NOW_S + 90, MAX_GAS_WEI)


def tx(to: str, data: str, **changes: object) -> UnsignedTx:
    """A transaction with EIP-1559 fees well within the granted gas money."""
    base = UnsignedTx(CHAIN_ID, NONCE, to, 0, data, 600_000, 10 * GWEI, GWEI, None)
    return replace(base, **changes)  # type: ignore[arg-type]


SWAP = tx(ROUTER, encode(PLAN, WALLET, DEADLINE_S))
APPROVE = tx(USDT, encode_approve(ROUTER, 500_000_000))
RESET = tx(USDT, encode_approve(ROUTER, 0))
CANCEL = tx(WALLET, "0x", gas=21_000)
ALLOWED = {"swap": (SWAP, SWAP_GRANT), "approve": (APPROVE, APPROVE_GRANT), "reset": (RESET, RESET_GRANT), "cancel": (CANCEL, CANCEL_GRANT)}


def signer(rules: SigningRules = RULES) -> LocalSigner:
    """The signer under test."""
    return LocalSigner(KEY, rules, lambda: NONCES)


def refused(transaction: UnsignedTx, grant: Grant, rule: str) -> None:
    """Asserts that the signer refuses by `rule`."""
    with pytest.raises(Refused) as caught:
        signer().sign(transaction, grant)
    assert caught.value.verdicts[0].guard == f"signer.{rule}"
    assert not caught.value.verdicts[0].passed
