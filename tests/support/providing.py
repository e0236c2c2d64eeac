"""Actions on liquidity, grants and transactions for tests of signing them."""

from __future__ import annotations

from dataclasses import replace

from agent.chain.tokens import encode_approve
from agent.model import Collect, IntentKind, LpAction, Provide, UnsignedTx, Withdraw
from agent.ports import Grant
from agent.venues.liquidity import encode
from tests.support.builders import address
from tests.support.signing import DEADLINE_S, MAX_GAS_WEI, NOW_S, RULES, USDC, WALLET, WETH, tx

MANAGER, V2_ROUTER, PAIR, POOL = (address(name) for name in ("position manager", "v2 router", "pair", "v3 pool"))
TOKENS = tuple(sorted((WETH, USDC), key=lambda at: int(at, 16)))
LP_RULES = replace(RULES, managers=(MANAGER,), v2_routers=(V2_ROUTER,), pairs=(PAIR,))
FLOORS = (9 * 10**17, 2_700 * 10**6)

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
    """What may be signed for it; the floors lie below the minimums."""
    plain = Grant(IntentKind.LIQUIDITY, NOW_S, NOW_S + 90, MAX_GAS_WEI, floors_raw=FLOORS, action=action)
    return replace(plain, **changes)  # type: ignore[arg-type]  # keywords are field names, checked by replace


def action_tx(action: LpAction, wallet: str = WALLET, deadline_s: int = DEADLINE_S, **changes: object) -> UnsignedTx:
    """The action as one transaction."""
    return tx(V2_ROUTER if action.venue == "uniswap_v2" else MANAGER, encode(action, wallet, deadline_s), **changes)


def approval(token: str, spender: str, raw: int, action: LpAction) -> tuple[UnsignedTx, Grant]:
    """An approval that an action needs."""
    grant = Grant(IntentKind.APPROVE, NOW_S, NOW_S + 90, MAX_GAS_WEI, approve=(token, spender, raw), action=action)
    return tx(token, encode_approve(spender, raw)), grant


APPROVALS = {
    "approve manager": approval(TOKENS[0], MANAGER, MINT.desired_raw[0], MINT),
    "approve manager again": approval(TOKENS[1], MANAGER, INCREASE.desired_raw[1], INCREASE),
    "approve v2 router": approval(TOKENS[1], V2_ROUTER, ADD.desired_raw[1], ADD),
    "approve LP tokens": approval(PAIR, V2_ROUTER, WITHDRAW_V2.liquidity, WITHDRAW_V2),
    "reset manager": approval(TOKENS[0], MANAGER, 0, MINT),
}
CHANGES = {name: (action_tx(action), grant_of(action)) for name, action in ACTIONS.items()}
ALLOWED = CHANGES | APPROVALS
