"""Plans, grants and transactions for tests of signing: three legs over V3, V2 and a hub chain, with the published test key."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.chain.tokens import encode_approve
from agent.errors import Refused
from agent.layers.liquidity.composer import encode_liquidity
from agent.model import (
    Collect,
    Goal,
    IntentKind,
    Leg,
    LegPlace,
    LpAction,
    Plan,
    PlanCost,
    PoolMaker,
    Provide,
    Rebalance,
    SwapStyle,
    UnsignedTx,
    Withdraw,
)
from agent.model.futures import (
    DelegateChange,
    FuturesAction,
    FuturesGrant,
    MarginAccount,
    MarginDeposit,
    MarginTier,
    MarginWithdrawal,
    PerpMarket,
    PerpOrder,
    PerpOrderKind,
    Position,
)
from agent.ports import Grant
from agent.signing.keys import TestAccountKey, load_key
from agent.signing.pool_makers import pool_address
from agent.signing.rules import HighestTipByNonce, LocalSigner, SigningRules, require_signable
from agent.signing.terms import FuturesRules
from agent.units import NATIVE, Token, floor_int
from agent.venues.calldata import RebalancerTerms, encode_multicall, encode_rebalance, min_balance_changes, wrapped_native_wei
from agent.venues.kinds.uniswap_v2 import UniswapV2
from agent.venues.kinds.uniswap_v3 import UniswapV3
from agent.venues.perpetual_protocol import PerpetualProtocolAddresses, encode_delegate, encode_deposit, encode_order, encode_withdrawal
from tests.support.builders import address
from tests.support.constants import GWEI

CHAIN_ID = 31337
NOW_S = 1_800_000_000
DEADLINE_S = NOW_S + 60
MAX_FEE_WEI = 15 * GWEI
"""limits.gas_price of the rules."""
KEY = load_key(TestAccountKey(0), CHAIN_ID, ask=None)
WALLET = KEY.address
ROUTER = address("router")
STRANGER = address("stranger")
WETH, USDC, WBTC, USDT = (address(name) for name in ("weth", "usdc", "wbtc", "usdt"))
RULES = SigningRules(CHAIN_ID, WALLET, routers=(ROUTER,), tokens=(WETH, USDC, WBTC, USDT), max_deadline_s=90, max_fee_wei=MAX_FEE_WEI)
MAKERS = {
    "uniswap_v2": UniswapV2("uniswap_v2", address("v2 factory")).maker,
    "uniswap_v3": UniswapV3("uniswap_v3", address("v3 factory")).maker,
    "wrapped_native": PoolMaker(SwapStyle.NATIVE, WETH),
}
"""Who makes the pools of the legs."""
MAX_GAS_WEI = 10**16
NONCE = 7
NONCES: HighestTipByNonce = {NONCE: None}
"""The journal's next nonce, with nothing signed yet."""


def leg(token_in: str, token_out: str, amount_in: int, amount_out: int, **changes: object) -> Leg:
    """Return a V3 leg of the 0.3 % pool from and to the wallet, with a minimum 1 % below its output. Without a pool in the changes it is
    in that of its venue, tokens and fee.
    """
    base = Leg(
        pool="",
        venue="uniswap_v3",
        token_in=token_in,
        token_out=token_out,
        fee_pips=3000,
        amount_in_raw=amount_in,
        amount_out_raw=amount_out,
        min_out_raw=amount_out * 99 // 100,
        fee_raw=amount_in * 3 // 1000,
        impact_bps=10,
        source=LegPlace.WALLET,
        sink=LegPlace.WALLET,
    )
    changed = replace(base, **changes)  # type: ignore[arg-type]
    maker = MAKERS.get(changed.venue)
    if changed.pool or maker is None:
        return changed
    return replace(changed, pool=pool_address(maker, token_in, token_out, changed.fee_pips))


def plan_of(*legs: Leg) -> Plan:
    """Return a plan of these legs. Its other fields do not affect signing."""
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
        gap=None,
        verdicts=(),
        skipped=(),
        expires_block=10,
    )


PLAN = plan_of(
    leg(WETH, USDC, 10**18, 3_000_000_000),
    leg(WETH, USDC, 2 * 10**17, 590_000_000, venue="uniswap_v2"),
    leg(USDT, USDC, 500_000_000, 499_000_000, fee_pips=100, sink=LegPlace.ROUTER),
    leg(USDC, WBTC, 499_000_000, 800_000, venue="uniswap_v2", source=LegPlace.ROUTER),
)
FLOORS = tuple(leg.min_out_raw - 1 for leg in PLAN.legs)
SWAP_GRANT = Grant(IntentKind.SWAP, NOW_S, NOW_S + 90, MAX_GAS_WEI, PLAN, FLOORS)
APPROVE_GRANT = Grant(IntentKind.APPROVE, NOW_S, NOW_S + 90, MAX_GAS_WEI, approval_terms=(USDT, ROUTER, 500_000_000))
RESET_GRANT = Grant(IntentKind.APPROVE, NOW_S, NOW_S + 90, MAX_GAS_WEI, approval_terms=(USDT, ROUTER, 0))
CANCEL_GRANT = Grant(IntentKind.CANCEL, NOW_S, NOW_S + 90, MAX_GAS_WEI)


def tx(to: str, data: str, **changes: object) -> UnsignedTx:
    """Return a transaction with EIP-1559 fees well within the granted gas money."""
    base = UnsignedTx(CHAIN_ID, NONCE, to, 0, data, 600_000, 10 * GWEI, GWEI, None)
    return replace(base, **changes)  # type: ignore[arg-type]


SWAP = tx(ROUTER, encode_multicall(PLAN, WALLET, DEADLINE_S))
APPROVE = tx(USDT, encode_approve(ROUTER, 500_000_000))
RESET = tx(USDT, encode_approve(ROUTER, 0))
CANCEL = tx(WALLET, "0x", gas=21_000)
ALLOWED = {"swap": (SWAP, SWAP_GRANT), "approve": (APPROVE, APPROVE_GRANT), "reset": (RESET, RESET_GRANT), "cancel": (CANCEL, CANCEL_GRANT)}


def signer(rules: SigningRules = RULES) -> LocalSigner:
    """Return the signer under test."""
    return LocalSigner(KEY, rules, lambda: NONCES)


def refusing_rule(transaction: UnsignedTx, grant: Grant, rules: SigningRules = RULES, nonces: HighestTipByNonce = NONCES) -> str | None:
    """Return the name of the rule that refuses the transaction; None if it may be signed."""
    try:
        require_signable(transaction, grant, rules, nonces)
    except Refused as refusal:
        return refusal.verdicts[0].guard.removeprefix("signer.")
    return None


def assert_refused_by(rule: str, transaction: UnsignedTx, grant: Grant, rules: SigningRules = RULES) -> Refused:
    """Require that the signer refuses by `rule`; return the refusal."""
    with pytest.raises(Refused) as refusal:
        signer(rules).sign(transaction, grant)
    assert refusal.value.verdicts[0].guard == f"signer.{rule}", refusal.value.message
    assert not refusal.value.verdicts[0].passed
    return refusal.value


# --- Actions on liquidity, grants and transactions for tests of signing them.


MANAGER, V2_ROUTER, PAIR, POOL = (address(name) for name in ("position manager", "v2 router", "pair", "v3 pool"))
TOKENS = tuple(sorted((WETH, USDC), key=lambda at: int(at, 16)))
LP_RULES = replace(RULES, v3_managers=(MANAGER,), v2_routers=(V2_ROUTER,), v2_pairs=(PAIR,))
PROVIDING_FLOORS = (9 * 10**17, 2_700 * 10**6)

WITHDRAW_V3 = Withdraw(
    "uniswap_v3", MANAGER, 42, POOL, *TOKENS, 10**20, (10**18, 3_000 * 10**6), (99 * 10**16, 2_970 * 10**6), (5, 6), 300_000, "test"
)
WITHDRAW_V2 = replace(WITHDRAW_V3, venue="uniswap_v2", contract=PAIR, token_id=None, pool=PAIR, fees_raw=(0, 0))
COLLECT = Collect("uniswap_v3", MANAGER, 42, POOL, *TOKENS, (5, 6), 200_000, "test")
MINT = Provide(
    "uniswap_v3", MANAGER, None, POOL, *TOKENS, 3_000, (-6_000, 6_000), 10**20,
    (10**18, 3_000 * 10**6), (10**18 - 1, 3_000 * 10**6), (99 * 10**16, 2_970 * 10**6), 400_000, "test",
)  # fmt: skip
INCREASE = replace(MINT, token_id=42)
ADD = replace(MINT, venue="uniswap_v2", contract=PAIR, pool=PAIR, ticks=None)
ACTIONS: dict[str, LpAction] = {
    "withdraw v3": WITHDRAW_V3, "withdraw v2": WITHDRAW_V2, "collect": COLLECT, "mint": MINT, "increase": INCREASE, "add": ADD,
}  # fmt: skip


def grant_of(action: LpAction, **changes: object) -> Grant:
    """Return the grant of the action, with floors below the minimums."""
    plain = Grant(IntentKind.LIQUIDITY, NOW_S, NOW_S + 90, MAX_GAS_WEI, floors_raw=PROVIDING_FLOORS, layer_action=action)
    return replace(plain, **changes)  # type: ignore[arg-type]  # keywords are field names, checked by replace


def action_tx(action: LpAction, wallet: str = WALLET, deadline_s: int = DEADLINE_S, **changes: object) -> UnsignedTx:
    """Return the action as one transaction."""
    return tx(V2_ROUTER if action.venue == "uniswap_v2" else MANAGER, encode_liquidity(action, wallet, deadline_s), **changes)


def approval(token: str, spender: str, raw: int, action: LpAction) -> tuple[UnsignedTx, Grant]:
    """Return an approval that an action needs, with its grant."""
    grant = Grant(IntentKind.APPROVE, NOW_S, NOW_S + 90, MAX_GAS_WEI, approval_terms=(token, spender, raw), layer_action=action)
    return tx(token, encode_approve(spender, raw)), grant


APPROVALS = {
    "approve manager": approval(TOKENS[0], MANAGER, MINT.desired_raw[0], MINT),
    "approve manager again": approval(TOKENS[1], MANAGER, INCREASE.desired_raw[1], INCREASE),
    "approve v2 router": approval(TOKENS[1], V2_ROUTER, ADD.desired_raw[1], ADD),
    "approve LP tokens": approval(PAIR, V2_ROUTER, WITHDRAW_V2.liquidity, WITHDRAW_V2),
    "reset manager": approval(TOKENS[0], MANAGER, 0, MINT),
}
CHANGES = {name: (action_tx(action), grant_of(action)) for name, action in ACTIONS.items()}
PROVIDING_ALLOWED = CHANGES | APPROVALS


# --- Plans, grants and transactions for tests of the Rebalancer's signing: direct transfers to pairs, hubs in the contract, native coin.


REBALANCER = address("rebalancer")
REBALANCER_RULES = replace(RULES, routers=(), rebalancers=(REBALANCER,), wrapped_native=WETH, venue_makers=tuple(MAKERS.items()))
PRICES = {
    WETH: Fraction(3_000 * 10**6, 10**18),
    NATIVE: Fraction(3_000 * 10**6, 10**18),
    USDC: Fraction(1),
    USDT: Fraction(1),
    WBTC: Fraction(60_000 * 10**6, 10**8),
}
R = LegPlace.ROUTER


def native_leg(token_in: str, token_out: str, raw: int, **changes: object) -> Leg:
    """Return a leg that wraps or unwraps; its output equals its input."""
    return leg(token_in, token_out, raw, raw, pool=WETH, venue="wrapped_native", fee_pips=0, min_out_raw=raw, fee_raw=0, **changes)


HUB = plan_of(
    leg(WETH, USDC, 10**18, 3_000_000_000, fee_pips=500),
    leg(USDT, USDC, 500_000_000, 499_000_000, fee_pips=100, sink=R),
    leg(WBTC, USDC, 800_000, 479_000_000, venue="uniswap_v2", sink=R),
    leg(USDC, WETH, 978_000_000, 325 * 10**15, fee_pips=500, source=R),
)
COIN = plan_of(
    native_leg(NATIVE, WETH, 10**18, sink=R),
    leg(WETH, USDC, 10**18, 3_000_000_000, venue="uniswap_v2", source=R),
    leg(USDT, WETH, 600_000_000, 2 * 10**17, venue="uniswap_v2", sink=R),
    native_leg(WETH, NATIVE, 2 * 10**17, source=R),
)
PLANS = {"pairs": PLAN, "hub": HUB, "coin": COIN}


def conditions(plan: Plan) -> RebalancerTerms:
    """Return prices of the tokens that the wallet gives and gets, and the value of the minimums."""
    least = min_balance_changes(plan.legs)
    value = sum((raw * PRICES[token] for token, raw in least.items()), Fraction(0))
    return RebalancerTerms({token: PRICES[token] for token in least}, floor_int(value) - 1)


def encode_program(plan: Plan, deadline_s: int, terms: RebalancerTerms) -> str:
    """Return the calldata of the plan for the Rebalancer; each pool's tier is its fee."""
    return encode_rebalance(plan, deadline_s, terms, MAKERS, {})


def rebalancing_grant_of(plan: Plan, **changes: object) -> Grant:
    """Return the grant of the plan, with floors slightly below its minimums."""
    floors = tuple(max(1, leg.min_out_raw - 1) for leg in plan.legs)
    terms = conditions(plan)
    plain = Grant(
        IntentKind.SWAP, NOW_S, NOW_S + 90, MAX_GAS_WEI, plan, floors, None, tuple(terms.prices.items()), terms.min_value_change_raw
    )
    return replace(plain, **changes)  # type: ignore[arg-type]  # keywords are field names, checked by replace


def rebalance_tx(plan: Plan, deadline_s: int = DEADLINE_S, terms: RebalancerTerms | None = None, **changes: object) -> UnsignedTx:
    """Return the plan as one call of the Rebalancer."""
    return tx(REBALANCER, encode_program(plan, deadline_s, terms or conditions(plan)), **{"value_wei": wrapped_native_wei(plan)} | changes)


REBALANCES = {name: (rebalance_tx(plan), rebalancing_grant_of(plan)) for name, plan in PLANS.items()}


# --- Futures: an account of 10,000 with a long of 2 at 3,000, and every action of the layer.


WAD = 10**18
HOUSE, VAULT, DELEGATES, VETH, VBTC, DELEGATE, TRADER = (
    address(name) for name in ("clearing house", "vault", "delegate approval", "vETH", "vBTC", "delegate key", "margin account")
)
FUTURES = FuturesRules(
    HOUSE, VAULT, DELEGATES, USDC, WALLET, DELEGATE, (VETH, VBTC),
    max_leverage_bps=30_000, slippage_bps=100, emergency_slippage_bps=300, max_index_age_s=3_600,
    emergency_fee_wei=30 * 10**9,
)  # fmt: skip
FUTURES_RULES = replace(RULES, futures=FUTURES)
DELEGATE_RULES = replace(RULES, futures=replace(FUTURES, trader=TRADER))
CONTRACTS = PerpetualProtocolAddresses(HOUSE, VAULT, DELEGATES, WALLET)


def perp_market(market: str, symbol: str, price: int, **changes: object) -> PerpMarket:
    """Return a market whose mark equals its index, with a fee of 0.1 %."""
    base = PerpMarket(
        market=market,
        symbol=symbol,
        asset="",
        size_decimals=18,
        lot_raw=1,
        tiers=(MarginTier(0, 100_000, 62_500),),
        fee_ppm=1_000,
        mark=Fraction(price),
        index=Fraction(price),
        index_s=NOW_S - 60,
        funding_daily=Fraction(0),
    )
    return replace(base, **changes)  # type: ignore[arg-type]  # keywords are field names, checked by replace


ACCOUNT = MarginAccount(
    Token(HOUSE, "USD", 18), 10**12, 10_000 * WAD, 0, (Position(VETH, 2 * WAD, -6_000 * WAD),),
    (perp_market(VETH, "WETH", 3_000), perp_market(VBTC, "WBTC", 60_000)),
)  # fmt: skip
BUY = PerpOrder(VETH, 3 * WAD, PerpOrderKind.MARKET, 9_090 * WAD, False)
SHORT = PerpOrder(VBTC, -WAD // 10, PerpOrderKind.MARKET, 5_940 * WAD, False)
REDUCE = PerpOrder(VETH, -WAD, PerpOrderKind.MARKET, 2_970 * WAD, True)
ESCAPE = PerpOrder(VETH, -2 * WAD, PerpOrderKind.MARKET, 5_820 * WAD, True)


def futures_grant(action: FuturesAction, account: MarginAccount = ACCOUNT, **changes: object) -> Grant:
    """Return the grant of an action of the futures layer."""
    granted = FuturesGrant(action, account, **changes)  # type: ignore[arg-type]  # keywords are field names
    return Grant(IntentKind.FUTURES, NOW_S, NOW_S + 90, MAX_GAS_WEI, layer_grant=granted)


def order_tx(order: PerpOrder, contracts: PerpetualProtocolAddresses = CONTRACTS, deadline_s: int = DEADLINE_S) -> UnsignedTx:
    """Return the order as one transaction of the wallet."""
    return tx(contracts.clearing_house, encode_order(order, contracts, WALLET, deadline_s))


DEPOSIT = MarginDeposit(500 * 10**6)
TAKE_OUT = MarginWithdrawal(200 * 10**6)
ALLOW = DelegateChange(DELEGATE, True)
END = DelegateChange(DELEGATE, False)
FUTURES_ALLOWED: dict[str, tuple[UnsignedTx, Grant]] = {
    "futures: buy": (order_tx(BUY), futures_grant(BUY)),
    "futures: short": (order_tx(SHORT), futures_grant(SHORT)),
    "futures: reduce": (order_tx(REDUCE), futures_grant(REDUCE)),
    "futures: escape": (order_tx(ESCAPE), futures_grant(ESCAPE, is_emergency=True)),
    "futures: deposit": (tx(VAULT, encode_deposit(USDC, DEPOSIT.raw)), futures_grant(DEPOSIT)),
    "futures: withdraw": (tx(VAULT, encode_withdrawal(USDC, TAKE_OUT.raw)), futures_grant(TAKE_OUT)),
    "futures: allow": (tx(DELEGATES, encode_delegate(DELEGATE, is_allowed=True)), futures_grant(ALLOW)),
    "futures: end": (tx(DELEGATES, encode_delegate(DELEGATE, is_allowed=False)), futures_grant(END)),
    "futures: approve vault": (
        tx(USDC, encode_approve(VAULT, DEPOSIT.raw)),
        replace(futures_grant(DEPOSIT), kind=IntentKind.APPROVE, approval_terms=(USDC, VAULT, DEPOSIT.raw)),
    ),
}  # fmt: skip
DELEGATE_BUY = order_tx(BUY, replace(CONTRACTS, trader=TRADER))
