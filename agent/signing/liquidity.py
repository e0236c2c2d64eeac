"""The signer's rule for liquidity: exactly the granted action, with minimums at or above the
floors, paid to the wallet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from agent.amm.lp.venues import LpVenue
from agent.errors import kind_words
from agent.model import Collect, LayerAction, Provide, UnsignedTx, Withdraw
from agent.ports import Grant
from agent.signing.calldata import (
    WORD_BYTES,
    CalldataReader,
    UndecodableCalldata,
    decode_call,
    selector,
)
from agent.signing.terms import SigningRules, refuse, require_deadline

T = TypeVar("T")
UINT128_MAX = 2**128 - 1

MANAGER_MULTICALL = selector("multicall(bytes[])")
DECREASE_LIQUIDITY = selector("decreaseLiquidity((uint256,uint128,uint256,uint256,uint256))")
COLLECT = selector("collect((uint256,address,uint128,uint128))")
INCREASE_LIQUIDITY = selector(
    "increaseLiquidity((uint256,uint256,uint256,uint256,uint256,uint256))"
)
MINT = selector(
    "mint((address,address,uint24,int24,int24,uint256,uint256,uint256,uint256,address,uint256))"
)
ADD_LIQUIDITY = selector(
    "addLiquidity(address,address,uint256,uint256,uint256,uint256,address,uint256)"
)
REMOVE_LIQUIDITY = selector(
    "removeLiquidity(address,address,uint256,uint256,uint256,address,uint256)"
)


@dataclass(frozen=True, slots=True)
class DecreaseLiquidity:
    """NonfungiblePositionManager.decreaseLiquidity: the withdrawn amounts are owed to the token
    until they are collected.
    """

    token_id: int
    liquidity: int
    min_raw: tuple[int, int]
    deadline_s: int


@dataclass(frozen=True, slots=True)
class CollectOwed:
    """NonfungiblePositionManager.collect, at most `max_raw` of each token. A recipient of zero
    would be the manager itself.
    """

    token_id: int
    recipient: str
    max_raw: tuple[int, int]


@dataclass(frozen=True, slots=True)
class DecreaseAndCollect:
    """The manager's multicall of decreaseLiquidity and then collect; its deadline is that of the
    first.
    """

    decrease: DecreaseLiquidity
    collect: CollectOwed


@dataclass(frozen=True, slots=True)
class IncreaseLiquidity:
    """NonfungiblePositionManager.increaseLiquidity of a token that exists."""

    token_id: int
    desired_raw: tuple[int, int]
    min_raw: tuple[int, int]
    deadline_s: int


@dataclass(frozen=True, slots=True)
class MintPosition:
    """NonfungiblePositionManager.mint: a new token for `recipient`."""

    token0: str
    token1: str
    fee_pips: int
    ticks: tuple[int, int]
    desired_raw: tuple[int, int]
    min_raw: tuple[int, int]
    recipient: str
    deadline_s: int


@dataclass(frozen=True, slots=True)
class AddLiquidity:
    """UniswapV2Router02.addLiquidity; LP tokens go to `recipient`."""

    token0: str
    token1: str
    desired_raw: tuple[int, int]
    min_raw: tuple[int, int]
    recipient: str
    deadline_s: int


@dataclass(frozen=True, slots=True)
class RemoveLiquidity:
    """UniswapV2Router02.removeLiquidity of this many LP tokens; their share of the pair goes to
    `recipient`.
    """

    token0: str
    token1: str
    liquidity: int
    min_raw: tuple[int, int]
    recipient: str
    deadline_s: int


LiquidityCall = (
    DecreaseAndCollect
    | CollectOwed
    | IncreaseLiquidity
    | MintPosition
    | AddLiquidity
    | RemoveLiquidity
)


def decode(data: bytes) -> LiquidityCall:
    """Decode the call in `data`. Raises UndecodableCalldata naming the error."""
    return decode_call(data, _DECODERS)


def _two_uints(words: CalldataReader, bits: int = 256) -> tuple[int, int]:
    return words.uint(bits), words.uint(bits)


def _decode_decrease(words: CalldataReader) -> DecreaseLiquidity:
    return DecreaseLiquidity(words.uint(), words.uint(128), _two_uints(words), words.uint())


def _decode_collect(words: CalldataReader) -> CollectOwed:
    return CollectOwed(words.uint(), words.address(), _two_uints(words, 128))


def _decode_increase(words: CalldataReader) -> IncreaseLiquidity:
    return IncreaseLiquidity(words.uint(), _two_uints(words), _two_uints(words), words.uint())


def _decode_mint(words: CalldataReader) -> MintPosition:
    tokens = (words.address(), words.address())
    fee_pips = words.uint(24)
    ticks = words.signed(24), words.signed(24)
    return MintPosition(
        *tokens,
        fee_pips,
        ticks,
        _two_uints(words),
        _two_uints(words),
        words.address(),
        words.uint(),
    )


def _decode_add(words: CalldataReader) -> AddLiquidity:
    return AddLiquidity(
        words.address(),
        words.address(),
        _two_uints(words),
        _two_uints(words),
        words.address(),
        words.uint(),
    )


def _decode_remove(words: CalldataReader) -> RemoveLiquidity:
    return RemoveLiquidity(
        words.address(),
        words.address(),
        words.uint(),
        _two_uints(words),
        words.address(),
        words.uint(),
    )


def _decode_decrease_and_collect(words: CalldataReader) -> DecreaseAndCollect:
    """Require exactly two calls, each at its canonical offset."""
    words.require_word(WORD_BYTES, "the list of calls")
    words.require_word(2, "the number of calls")
    call_lengths = 4 + 5 * WORD_BYTES, 4 + 4 * WORD_BYTES
    first_offset = 2 * WORD_BYTES
    words.require_word(first_offset, "the first call")
    words.require_word(
        first_offset + WORD_BYTES + call_lengths[0] + -call_lengths[0] % WORD_BYTES,
        "the second call",
    )
    return DecreaseAndCollect(
        _inner_call(words, call_lengths[0], DECREASE_LIQUIDITY, _decode_decrease),
        _inner_call(words, call_lengths[1], COLLECT, _decode_collect),
    )


def _inner_call(
    words: CalldataReader,
    length: int,
    expected_selector: bytes,
    decoder: Callable[[CalldataReader], T],
) -> T:
    words.require_word(length, "the length of a call")
    data = words.take_padded(length)
    if data[:4] != expected_selector:
        raise UndecodableCalldata(
            "calldata: only decreaseLiquidity and then collect may be inside the manager's"
            " multicall"
        )
    return decode_call(data, {expected_selector: decoder})


_DECODERS: dict[bytes, Callable[[CalldataReader], LiquidityCall]] = {
    MANAGER_MULTICALL: _decode_decrease_and_collect,
    COLLECT: _decode_collect,
    INCREASE_LIQUIDITY: _decode_increase,
    MINT: _decode_mint,
    ADD_LIQUIDITY: _decode_add,
    REMOVE_LIQUIDITY: _decode_remove,
}
SELECTORS = frozenset(_DECODERS)
"""Functions that a transaction about liquidity may call."""


def judge(tx: UnsignedTx, data: bytes, grant: Grant, rules: SigningRules) -> None:
    """Raise Refused, naming the rule that failed, unless the call may be signed."""
    try:
        call = decode(data)
    except UndecodableCalldata as error:
        refuse("call", error.message, "the canonical encoding of a call of the table")
    action = grant.layer_action
    if action is None:
        refuse("action", "liquidity", "none: the grant has no action")
    _require_contract(tx.to, action, rules)
    match call, action:
        case [DecreaseAndCollect(), Withdraw(venue=LpVenue.V3)]:
            _judge_v3_withdrawal(call, action, grant, rules)
        case [CollectOwed(), Collect(venue=LpVenue.V3)]:
            _judge_collect(call, action.token_id, rules)
        case [IncreaseLiquidity(), Provide(venue=LpVenue.V3, token_id=int())]:
            _require_token_id(call.token_id, action.token_id)
            _require_provision(call, action, grant, rules)
        case [MintPosition(), Provide(venue=LpVenue.V3, token_id=None)]:
            _require_new_position(call, action)
            _require_recipient(call.recipient, rules)
            _require_provision(call, action, grant, rules)
        case [AddLiquidity(), Provide(venue=LpVenue.V2, token_id=None)]:
            _require_tokens(call, action)
            _require_recipient(call.recipient, rules)
            _require_provision(call, action, grant, rules)
        case [RemoveLiquidity(), Withdraw(venue=LpVenue.V2)]:
            _require_tokens(call, action)
            _require_recipient(call.recipient, rules)
            _require_withdrawal(call.liquidity, call.min_raw, action, grant)
            require_deadline(call.deadline_s, grant, rules)
        case _:
            refuse(
                "action",
                kind_words(type(call)),
                f"{kind_words(type(action))} on {action.venue}, as granted",
            )


def require_approval(
    token: str, spender: str, raw: int, action: LayerAction, rules: SigningRules
) -> None:
    """Require that an approval is for exactly the action's input: tokens that it provides, or LP
    tokens of the pair from which it withdraws.
    """
    match action:
        case Provide():
            spent_raw_by_token = dict(
                zip((action.token0, action.token1), action.desired_raw, strict=True)
            )
            if token not in spent_raw_by_token or token not in rules.tokens:
                refuse("contract", token, "a pinned token that the action provides")
        case Withdraw(venue=LpVenue.V2):
            spent_raw_by_token = {action.contract: action.liquidity}
            if token not in spent_raw_by_token or token not in rules.v2_pairs:
                refuse(
                    "contract",
                    token,
                    f"the pinned pair {action.contract}, whose liquidity is withdrawn",
                )
        case _:
            refuse(
                "approval",
                "an approval",
                f"none: {kind_words(type(action))} on {action.venue} needs none",
            )
    allowed_spenders = _allowed_contracts(action, rules)
    if spender not in allowed_spenders:
        refuse("spender", spender, f"the pinned {_contract_role(action)}")
    if raw not in (0, spent_raw_by_token[token]):
        refuse(
            "approval_amount", raw, f"0, or the {spent_raw_by_token[token]} that the action spends"
        )


def _allowed_contracts(action: LayerAction, rules: SigningRules) -> tuple[str, ...]:
    """Return contracts that may be called, or may spend, for this action."""
    if action.venue == LpVenue.V2:
        return rules.v2_routers
    return tuple(manager for manager in rules.v3_managers if manager == action.contract)


def _contract_role(action: LayerAction) -> str:
    return "V2 router" if action.venue == LpVenue.V2 else f"position manager {action.contract}"


def _require_contract(to: str, action: LayerAction, rules: SigningRules) -> None:
    if action.venue not in (LpVenue.V2, LpVenue.V3):
        refuse("venue", action.venue, f"{LpVenue.V2} or {LpVenue.V3}")
    if to not in _allowed_contracts(action, rules):
        refuse("contract", to, f"the pinned {_contract_role(action)}")
    if action.venue == LpVenue.V2 and action.contract not in rules.v2_pairs:
        refuse("contract", action.contract, "a pinned pair")
    if not {action.token0, action.token1} <= set(rules.tokens) or action.token0 == action.token1:
        refuse("tokens", f"{action.token0} and {action.token1}", "two different pinned tokens")


def _judge_v3_withdrawal(
    call: DecreaseAndCollect, action: Withdraw, grant: Grant, rules: SigningRules
) -> None:
    _require_token_id(call.decrease.token_id, action.token_id)
    _require_withdrawal(call.decrease.liquidity, call.decrease.min_raw, action, grant)
    require_deadline(call.decrease.deadline_s, grant, rules)
    _judge_collect(call.collect, action.token_id, rules)


def _judge_collect(call: CollectOwed, token_id: int | None, rules: SigningRules) -> None:
    _require_token_id(call.token_id, token_id)
    _require_recipient(call.recipient, rules)
    if call.max_raw != (UINT128_MAX, UINT128_MAX):
        refuse("amount", call.max_raw, "all that is owed of both tokens")


def _require_withdrawal(
    liquidity: int, min_raw: tuple[int, int], action: Withdraw, grant: Grant
) -> None:
    if liquidity != action.liquidity or liquidity <= 0:
        refuse("liquidity", liquidity, f"exactly {action.liquidity}, above zero")
    _require_minimums(min_raw, action.min_raw, grant)


def _require_provision(
    call: IncreaseLiquidity | MintPosition | AddLiquidity,
    action: Provide,
    grant: Grant,
    rules: SigningRules,
) -> None:
    if call.desired_raw != action.desired_raw or max(call.desired_raw) <= 0:
        refuse("amount_in", call.desired_raw, f"exactly {action.desired_raw}, above zero")
    _require_minimums(call.min_raw, action.min_raw, grant)
    require_deadline(call.deadline_s, grant, rules)


def _require_minimums(
    min_raw: tuple[int, int], planned_minimums_raw: tuple[int, int], grant: Grant
) -> None:
    """Require the plan's minimums, at or above the floors, and not both zero, because that would
    accept any price.
    """
    if len(grant.floors_raw) != 2:
        refuse("floor", f"{len(grant.floors_raw)} floors", "one for each of the two tokens")
    tokens_below_floor = [
        token_name
        for token_name, planned_min_raw, floor_raw in zip(
            ("token0", "token1"), planned_minimums_raw, grant.floors_raw, strict=True
        )
        if planned_min_raw < floor_raw
    ]
    if tokens_below_floor or max(planned_minimums_raw) <= 0:
        refuse(
            "floor",
            f"minimums of the plan {planned_minimums_raw}",
            f"at least the floors {grant.floors_raw}, and above zero",
        )
    if min_raw != planned_minimums_raw:
        refuse("min_out", min_raw, f"exactly the plan's {planned_minimums_raw}")


def _require_new_position(call: MintPosition, action: Provide) -> None:
    _require_tokens(call, action)
    if call.fee_pips != action.fee_pips:
        refuse("pool_fee", call.fee_pips, action.fee_pips)
    if call.ticks != action.ticks or call.ticks[0] >= call.ticks[1]:
        refuse("ticks", call.ticks, f"exactly {action.ticks}, in order")


def _require_tokens(
    call: MintPosition | AddLiquidity | RemoveLiquidity, action: LayerAction
) -> None:
    if (call.token0, call.token1) != (action.token0, action.token1):
        refuse("tokens", f"{call.token0} and {call.token1}", f"{action.token0} and {action.token1}")


def _require_token_id(token_id: int, granted_id: int | None) -> None:
    if token_id != granted_id:
        refuse("token_id", token_id, granted_id)


def _require_recipient(recipient: str, rules: SigningRules) -> None:
    if recipient != rules.wallet:
        refuse("recipient", recipient, f"the wallet {rules.wallet}")
