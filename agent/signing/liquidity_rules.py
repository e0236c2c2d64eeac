"""The signer's rule for liquidity: the granted action to the unit, minimums at or above the floors, paid to the wallet."""

from __future__ import annotations

from agent.model import Collect, LpAction, Provide, UnsignedTx, Withdraw
from agent.ports import Grant
from agent.signing import liquidity_calldata
from agent.signing.base import SigningRules, refuse, require_deadline
from agent.signing.calldata import UndecodableCalldata
from agent.signing.liquidity_calldata import AddLiquidity, CollectOwed, DecreaseAndCollect, IncreaseLiquidity, MintPosition, RemoveLiquidity

V2_VENUE = "uniswap_v2"
V3_VENUE = "uniswap_v3"


def judge(tx: UnsignedTx, data: bytes, grant: Grant, rules: SigningRules) -> None:
    """Return if the call may be signed; raise Refused naming the rule that failed."""
    try:
        call = liquidity_calldata.decode(data)
    except UndecodableCalldata as error:
        refuse("call", error.message, "the canonical encoding of a call of the table")
    action = grant.action
    if action is None:
        refuse("action", "liquidity", "none: the grant holds no action")
    _contract(tx.to, action, rules)
    match call, action:
        case [DecreaseAndCollect(), Withdraw(venue="uniswap_v3")]:
            _take_out(call, action, grant, rules)
        case [CollectOwed(), Collect(venue="uniswap_v3")]:
            _collect(call, action.token_id, rules)
        case [IncreaseLiquidity(), Provide(venue="uniswap_v3", token_id=int())]:
            _token_id(call.token_id, action.token_id)
            _provided(call, action, grant, rules)
        case [MintPosition(), Provide(venue="uniswap_v3", token_id=None)]:
            _shape(call, action)
            _recipient(call.recipient, rules)
            _provided(call, action, grant, rules)
        case [AddLiquidity(), Provide(venue="uniswap_v2", token_id=None)]:
            _tokens(call, action)
            _recipient(call.recipient, rules)
            _provided(call, action, grant, rules)
        case [RemoveLiquidity(), Withdraw(venue="uniswap_v2")]:
            _tokens(call, action)
            _recipient(call.recipient, rules)
            _taken(call.liquidity, call.min_raw, action, grant)
            require_deadline(call.deadline_s, grant, rules)
        case _:
            refuse("action", type(call).__name__, f"{type(action).__name__} on {action.venue}, as granted")


def require_approval(token: str, spender: str, raw: int, action: LpAction, rules: SigningRules) -> None:
    """Require an approval to name exactly the action's input: tokens it provides, or LP tokens of the pair it withdraws from."""
    match action:
        case Provide():
            amounts = dict(zip((action.token0, action.token1), action.desired_raw, strict=True))
            if token not in amounts or token not in rules.tokens:
                refuse("contract", token, "a pinned token that the action provides")
        case Withdraw(venue="uniswap_v2"):
            amounts = {action.contract: action.liquidity}
            if token not in amounts or token not in rules.pairs:
                refuse("contract", token, f"the pinned pair {action.contract}, whose liquidity is taken out")
        case _:
            refuse("approval", "an approval", f"none: {type(action).__name__} on {action.venue} needs none")
    allowed = _counterparts(action, rules)
    if spender not in allowed:
        refuse("spender", spender, f"the pinned {_role(action)}")
    if raw not in (0, amounts[token]):
        refuse("approval_amount", raw, f"0, or the {amounts[token]} that the action takes")


def _counterparts(action: LpAction, rules: SigningRules) -> tuple[str, ...]:
    """Return contracts that may be called, or may spend, for this action."""
    if action.venue == V2_VENUE:
        return rules.v2_routers
    return tuple(manager for manager in rules.managers if manager == action.contract)


def _role(action: LpAction) -> str:
    return "V2 router" if action.venue == V2_VENUE else f"position manager {action.contract}"


def _contract(to: str, action: LpAction, rules: SigningRules) -> None:
    if action.venue not in (V2_VENUE, V3_VENUE):
        refuse("venue", action.venue, f"{V2_VENUE} or {V3_VENUE}")
    if to not in _counterparts(action, rules):
        refuse("contract", to, f"the pinned {_role(action)}")
    if action.venue == V2_VENUE and action.contract not in rules.pairs:
        refuse("contract", action.contract, "a pinned pair")
    if not {action.token0, action.token1} <= set(rules.tokens) or action.token0 == action.token1:
        refuse("tokens", f"{action.token0} and {action.token1}", "two different pinned tokens")


def _take_out(call: DecreaseAndCollect, action: Withdraw, grant: Grant, rules: SigningRules) -> None:
    _token_id(call.decrease.token_id, action.token_id)
    _taken(call.decrease.liquidity, call.decrease.min_raw, action, grant)
    require_deadline(call.decrease.deadline_s, grant, rules)
    _collect(call.collect, action.token_id, rules)


def _collect(call: CollectOwed, token_id: int | None, rules: SigningRules) -> None:
    _token_id(call.token_id, token_id)
    _recipient(call.recipient, rules)
    if call.most_raw != (liquidity_calldata.UINT128_MAX, liquidity_calldata.UINT128_MAX):
        refuse("amount", call.most_raw, "all that is owed of both tokens")


def _taken(liquidity: int, min_raw: tuple[int, int], action: Withdraw, grant: Grant) -> None:
    if liquidity != action.liquidity or liquidity <= 0:
        refuse("liquidity", liquidity, f"exactly {action.liquidity}, and more than nothing")
    _minimums(min_raw, action.min_raw, grant)


def _provided(call: IncreaseLiquidity | MintPosition | AddLiquidity, action: Provide, grant: Grant, rules: SigningRules) -> None:
    if call.desired_raw != action.desired_raw or max(call.desired_raw) <= 0:
        refuse("amount_in", call.desired_raw, f"exactly {action.desired_raw}, and more than nothing")
    _minimums(call.min_raw, action.min_raw, grant)
    require_deadline(call.deadline_s, grant, rules)


def _minimums(min_raw: tuple[int, int], planned_raw: tuple[int, int], grant: Grant) -> None:
    """A minimum of nothing on both sides would accept any price: the range may then end inside the floors, never the plan's minimums."""
    if len(grant.floors_raw) != 2:
        refuse("floor", f"{len(grant.floors_raw)} floors", "one for each of the two tokens")
    below = [name for name, planned, floor in zip(("token0", "token1"), planned_raw, grant.floors_raw, strict=True) if planned < floor]
    if below or max(planned_raw) <= 0:
        refuse("floor", f"minimums of the plan {planned_raw}", f"at least the floors {grant.floors_raw}, and above zero")
    if min_raw != planned_raw:
        refuse("min_out", min_raw, f"exactly the plan's {planned_raw}")


def _shape(call: MintPosition, action: Provide) -> None:
    _tokens(call, action)
    if call.fee_pips != action.fee_pips:
        refuse("pool_fee", call.fee_pips, action.fee_pips)
    if call.ticks != action.ticks or call.ticks[0] >= call.ticks[1]:
        refuse("ticks", call.ticks, f"exactly {action.ticks}, in order")


def _tokens(call: MintPosition | AddLiquidity | RemoveLiquidity, action: LpAction) -> None:
    if (call.token0, call.token1) != (action.token0, action.token1):
        refuse("tokens", f"{call.token0} and {call.token1}", f"{action.token0} and {action.token1}")


def _token_id(token_id: int, granted: int | None) -> None:
    if token_id != granted:
        refuse("token_id", token_id, granted)


def _recipient(recipient: str, rules: SigningRules) -> None:
    if recipient != rules.wallet:
        refuse("recipient", recipient, f"the wallet {rules.wallet}")
