"""Everything that the signer signs, by name: each a transaction with the grant and the rules under which it is allowed."""

from __future__ import annotations

from dataclasses import dataclass, replace

from agent.model import IntentKind, Payout, UnsignedTx
from agent.planning.gas import unwrap
from agent.ports import Grant
from agent.signing import base
from agent.signing.rules import SigningRules
from agent.units import NATIVE
from agent.venues.swap_router_02 import encode, native_wei
from tests.support import providing, rebalancing, signing
from tests.support.builders import address
from tests.support.signing import DEADLINE_S, MAX_GAS_WEI, NOW_S, ROUTER, RULES, WALLET, WETH, plan_of, tx
from tests.unit.test_signer_native import ONLY, PLANS

POOL, HOME = address("v3 pool"), address("home")


@dataclass(frozen=True)
class Signable:
    """One allowed transaction."""

    tx: UnsignedTx
    grant: Grant
    rules: SigningRules


NATIVE_RULES = replace(RULES, wrapped_native=WETH)


def _native() -> dict[str, Signable]:
    found = {}
    for name, plan in PLANS.items():
        grant = Grant(IntentKind.SWAP, NOW_S, NOW_S + 90, MAX_GAS_WEI, plan, tuple(one.min_out_raw for one in plan.legs))
        multicall = tx(ROUTER, encode(plan, WALLET, DEADLINE_S), value_wei=native_wei(plan))
        found[name] = Signable(multicall, grant, NATIVE_RULES)
    alone = plan_of(unwrap(WETH, 5 * 10**16))
    assert alone == ONLY
    data = "0x2e1a7d4d" + (5 * 10**16).to_bytes(32, "big").hex()
    found["unwrap"] = Signable(tx(WETH, data), Grant(IntentKind.UNWRAP, NOW_S, NOW_S + 90, MAX_GAS_WEI, alone), NATIVE_RULES)
    return found


def _legacy(one: Signable) -> Signable:
    price = one.tx.max_fee_wei
    return replace(one, tx=replace(one.tx, max_fee_wei=None, max_priority_fee_wei=None, gas_price_wei=price))


SIGNABLES: dict[str, Signable] = {
    **{name: Signable(*pair, RULES) for name, pair in signing.ALLOWED.items()},
    **{f"rebalancer, {name}": Signable(*pair, rebalancing.REBALANCER_RULES) for name, pair in rebalancing.REBALANCES.items()},
    **{name: Signable(*pair, providing.LP_RULES) for name, pair in providing.ALLOWED.items()},
    **_native(),
    "memory of a pool": Signable(
        tx(POOL, base.encode_observations(120)),
        Grant(IntentKind.ORACLE, NOW_S, NOW_S + 90, MAX_GAS_WEI, oracle=(POOL, 120)),
        replace(RULES, oracles=(POOL,)),
    ),
    "payout": Signable(
        tx(WETH, base.encode_payout(HOME, 10**18)),
        Grant(IntentKind.PAYOUT, NOW_S, NOW_S + 90, MAX_GAS_WEI, payout=Payout(WETH, HOME, 10**18, 2 * 10**18, 1)),
        replace(RULES, payouts=(HOME,)),
    ),
    "payout of native coin": Signable(
        tx(HOME, "0x", value_wei=10**17),
        Grant(IntentKind.PAYOUT, NOW_S, NOW_S + 90, MAX_GAS_WEI, payout=Payout(NATIVE, HOME, 10**17, 10**18, 1)),
        replace(RULES, payouts=(HOME,)),
    ),
}
SIGNABLES |= {f"{name}, legacy fees": _legacy(SIGNABLES[name]) for name in ("swap", "approve", "cancel")}
