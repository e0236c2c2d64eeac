"""Tests of agent/signing/liquidity.py: each clause of the rule, by the transaction that only this clause refuses."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from eth_abi.abi import encode as abi_encode

from agent.errors import Refused
from agent.layers.liquidity.composer import encode_liquidity
from agent.model import IntentKind, LpAction, UnsignedTx
from agent.ports import Grant
from agent.signing import liquidity as liquidity_calldata
from agent.units import NATIVE
from tests.support import signing
from tests.support.signing import (
    ACTIONS,
    ADD,
    APPROVE_GRANT,
    COLLECT,
    DEADLINE_S,
    INCREASE,
    LP_RULES,
    MANAGER,
    MINT,
    NOW_S,
    PAIR,
    PROVIDING_ALLOWED,
    PROVIDING_FLOORS,
    ROUTER,
    STRANGER,
    TOKENS,
    V2_ROUTER,
    WALLET,
    WITHDRAW_V2,
    WITHDRAW_V3,
    action_tx,
    approval,
    grant_of,
    signer,
    tx,
)
from tests.support.text import raises_code

ROUTER_SENTINELS = (NATIVE, "0x0000000000000000000000000000000000000001", "0x0000000000000000000000000000000000000002")
assert_refused_by = partial(signing.assert_refused_by, rules=LP_RULES)
WITH_MINIMUMS = [name for name in ACTIONS if name != "collect"]
UINT128_MAX = liquidity_calldata.UINT128_MAX


def assert_signed(action: LpAction, **grant_fields: object) -> None:
    assert signer(LP_RULES).sign(action_tx(action), grant_of(action, **grant_fields)).hash


def contract_of(action: LpAction) -> str:
    return V2_ROUTER if action.venue == "uniswap_v2" else MANAGER


def with_words_of_zero(action: LpAction, *words: int) -> UnsignedTx:
    """Return the call with these words overwritten by zero, which the encoder refuses to write."""
    data = action_tx(action).data
    for word in words:
        data = data.replace(word.to_bytes(32, "big").hex(), bytes(32).hex())
    return replace(action_tx(action), data=data)


@pytest.mark.parametrize("name", PROVIDING_ALLOWED)
def test_granted_action_and_its_approvals_are_signed_twice_alike(name: str) -> None:
    transaction, grant = PROVIDING_ALLOWED[name]

    assert signer(LP_RULES).sign(transaction, grant) == signer(LP_RULES).sign(transaction, grant)


# --- Contract, tokens, recipient and kind.


@pytest.mark.parametrize("name", [name for name in ACTIONS if name != "increase"])
@pytest.mark.parametrize("recipient", [*ROUTER_SENTINELS, STRANGER, MANAGER, V2_ROUTER])
def test_recipient_is_the_wallet_alone(name: str, recipient: str) -> None:
    """A collect to the zero address would stay in the manager, where anybody may sweep it."""
    assert_refused_by("recipient", action_tx(ACTIONS[name], recipient), grant_of(ACTIONS[name]))


@pytest.mark.parametrize(
    ("name", "to"),
    [(name, to) for name in ACTIONS for to in (STRANGER, ROUTER, PAIR, MANAGER, V2_ROUTER) if to != contract_of(ACTIONS[name])],
)
def test_contract_is_the_pinned_one_of_the_venue_alone(name: str, to: str) -> None:
    action = ACTIONS[name]
    assert_refused_by("contract", replace(action_tx(action), to=to), grant_of(action))


@pytest.mark.parametrize("name", ACTIONS)
def test_contract_that_is_not_pinned_is_refused(name: str) -> None:
    action = ACTIONS[name]

    assert_refused_by("contract", action_tx(action), grant_of(action), rules=replace(LP_RULES, v3_managers=(), v2_routers=()))


@pytest.mark.parametrize("action", [WITHDRAW_V2, ADD], ids=["withdraw v2", "add"])
def test_pair_that_is_not_pinned_is_refused(action: LpAction) -> None:
    assert_refused_by("contract", action_tx(action), grant_of(action), rules=replace(LP_RULES, v2_pairs=()))


@pytest.mark.parametrize("action", [WITHDRAW_V3, COLLECT, MINT, INCREASE], ids=["withdraw v3", "collect", "mint", "increase"])
def test_manager_of_the_action_is_the_one_called(action: LpAction) -> None:
    two_managers = replace(LP_RULES, v3_managers=(MANAGER, STRANGER))

    assert_refused_by("contract", action_tx(action), grant_of(replace(action, contract=STRANGER)))
    assert_refused_by("contract", action_tx(action), grant_of(replace(action, contract=STRANGER)), rules=two_managers)


@pytest.mark.parametrize("name", ACTIONS)
@pytest.mark.parametrize("side", [0, 1])
def test_token_that_is_not_pinned_is_refused_on_either_side(name: str, side: int) -> None:
    rules = replace(LP_RULES, tokens=tuple(token for token in LP_RULES.tokens if token != TOKENS[side]))

    assert_refused_by("tokens", action_tx(ACTIONS[name]), grant_of(ACTIONS[name]), rules=rules)


@pytest.mark.parametrize("name", ACTIONS)
def test_action_sends_no_native_coin(name: str) -> None:
    assert_refused_by("value", action_tx(ACTIONS[name], value_wei=1), grant_of(ACTIONS[name]))


@pytest.mark.parametrize("name", ACTIONS)
def test_call_without_its_action_is_refused(name: str) -> None:
    assert_refused_by("action", action_tx(ACTIONS[name]), replace(grant_of(ACTIONS[name]), layer_action=None))


@pytest.mark.parametrize("name", ACTIONS)
@pytest.mark.parametrize("kind", [IntentKind.SWAP, IntentKind.APPROVE, IntentKind.CANCEL])
def test_call_granted_as_another_kind_is_refused(name: str, kind: IntentKind) -> None:
    assert_refused_by("kind", action_tx(ACTIONS[name]), grant_of(ACTIONS[name], kind=kind))


# --- The granted action, field by field.


@pytest.mark.parametrize(
    ("rule", "encoded", "granted"),
    [
        pytest.param("action", WITHDRAW_V3, COLLECT, id="withdrawal for a collect"),
        pytest.param("action", COLLECT, WITHDRAW_V3, id="collect for a withdrawal"),
        pytest.param("action", MINT, INCREASE, id="mint for an increase"),
        pytest.param("action", INCREASE, MINT, id="increase for a mint"),
        pytest.param("action", WITHDRAW_V2, ADD, id="V2 withdrawal for an addition"),
        pytest.param("action", ADD, WITHDRAW_V2, id="addition for a V2 withdrawal"),
        pytest.param("venue", MINT, replace(MINT, venue="balancer"), id="unknown venue"),
        pytest.param("liquidity", replace(WITHDRAW_V3, liquidity=WITHDRAW_V3.liquidity + 1), WITHDRAW_V3, id="more liquidity of V3"),
        pytest.param("liquidity", replace(WITHDRAW_V3, liquidity=WITHDRAW_V3.liquidity - 1), WITHDRAW_V3, id="less liquidity of V3"),
        pytest.param("liquidity", replace(WITHDRAW_V2, liquidity=WITHDRAW_V2.liquidity + 1), WITHDRAW_V2, id="more liquidity of V2"),
        pytest.param("token_id", replace(WITHDRAW_V3, token_id=43), WITHDRAW_V3, id="withdrawal from another position"),
        pytest.param("token_id", replace(COLLECT, token_id=43), COLLECT, id="collect from another position"),
        pytest.param("token_id", replace(INCREASE, token_id=43), INCREASE, id="increase of another position"),
        pytest.param("pool_fee", replace(MINT, fee_pips=500), MINT, id="mint in another fee tier"),
        pytest.param("ticks", replace(MINT, ticks=(-6_000, 6_060)), MINT, id="mint in another range"),
        pytest.param("ticks", replace(MINT, ticks=(6_000, -6_000)), replace(MINT, ticks=(6_000, -6_000)), id="reversed range, as granted"),
        pytest.param("ticks", replace(MINT, ticks=(-6_000, -6_000)), replace(MINT, ticks=(-6_000, -6_000)), id="no width, as granted"),
        pytest.param("tokens", replace(MINT, token0=MINT.token1, token1=MINT.token0), MINT, id="mint of swapped tokens"),
        pytest.param("tokens", replace(ADD, token0=ADD.token1, token1=ADD.token0), ADD, id="addition of swapped tokens"),
        pytest.param("amount_in", replace(MINT, desired_raw=(10**18 + 1, 3_000 * 10**6)), MINT, id="mint of one wei more"),
        pytest.param("amount_in", replace(MINT, desired_raw=(10**18, 3_000 * 10**6 - 1)), MINT, id="mint of one unit less"),
        pytest.param("amount_in", replace(INCREASE, desired_raw=(10**18 + 1, 3_000 * 10**6)), INCREASE, id="increase of one wei more"),
        pytest.param("amount_in", replace(ADD, desired_raw=(10**18 + 1, 3_000 * 10**6)), ADD, id="addition of one wei more"),
    ],
)
def test_action_other_than_granted_is_refused_by_its_rule(rule: str, encoded: LpAction, granted: LpAction) -> None:
    assert_refused_by(rule, action_tx(encoded), grant_of(granted))


def test_range_one_tick_wide_is_signed() -> None:
    assert_signed(replace(MINT, ticks=(-6_000, -5_999)))


@pytest.mark.parametrize(
    ("rule", "action", "words", "fields_of_zero"),
    [
        pytest.param("liquidity", WITHDRAW_V3, (WITHDRAW_V3.liquidity,), {"liquidity": 0}, id="no liquidity of V3"),
        pytest.param("liquidity", WITHDRAW_V2, (WITHDRAW_V2.liquidity,), {"liquidity": 0}, id="no liquidity of V2"),
        pytest.param("amount_in", MINT, MINT.desired_raw, {"desired_raw": (0, 0)}, id="nothing minted"),
        pytest.param("amount_in", INCREASE, INCREASE.desired_raw, {"desired_raw": (0, 0)}, id="nothing increased"),
        pytest.param("amount_in", ADD, ADD.desired_raw, {"desired_raw": (0, 0)}, id="nothing added"),
    ],
)
def test_action_of_nothing_is_refused_even_as_granted(
    rule: str, action: LpAction, words: tuple[int, ...], fields_of_zero: dict[str, object]
) -> None:
    granted = replace(action, **fields_of_zero)  # type: ignore[arg-type]  # keywords are field names, checked by replace

    assert_refused_by(rule, with_words_of_zero(action, *words), grant_of(granted))


def one_sided(pair: tuple[int, int], side: int) -> tuple[int, int]:
    return (pair[0], 0) if side == 0 else (0, pair[1])


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("action", [MINT, INCREASE], ids=["mint", "increase"])
def test_amount_of_one_token_alone_is_provided(action: LpAction, side: int) -> None:
    """A range that the price left takes one token."""
    desired_raw = one_sided(MINT.desired_raw, side)
    minimums_raw = one_sided(MINT.min_raw, side)

    assert_signed(replace(action, desired_raw=desired_raw, min_raw=minimums_raw), floors_raw=one_sided(PROVIDING_FLOORS, side))


# --- Collects, and what the manager runs.


def collect_tx(max_raw: tuple[int, int]) -> UnsignedTx:
    values = [(42, WALLET, *max_raw)]
    return tx(MANAGER, "0x" + (liquidity_calldata.COLLECT + abi_encode(["(uint256,address,uint128,uint128)"], values)).hex())


@pytest.mark.parametrize(
    "max_raw",
    [(1, UINT128_MAX), (UINT128_MAX - 1, UINT128_MAX), (UINT128_MAX, UINT128_MAX - 1)],
    ids=["one unit of token0", "one unit less of token0", "one unit less of token1"],
)
def test_collect_of_less_than_all_is_refused(max_raw: tuple[int, int]) -> None:
    assert_refused_by("amount", collect_tx(max_raw), grant_of(COLLECT))


def test_withdrawal_with_another_collect_is_refused() -> None:
    data = bytes.fromhex(action_tx(WITHDRAW_V3).data[2:])
    token_id_at = data.rindex(liquidity_calldata.COLLECT) + 4
    other_collect = data[:token_id_at] + (43).to_bytes(32, "big") + data[token_id_at + 32 :]

    assert_refused_by("token_id", tx(MANAGER, "0x" + other_collect.hex()), grant_of(WITHDRAW_V3))


DECREASE_CALL = liquidity_calldata.DECREASE_LIQUIDITY + bytes(5 * 32)
COLLECT_CALL = liquidity_calldata.COLLECT + bytes(4 * 32)
SWEEP_CALL = liquidity_calldata.selector("sweepToken(address,uint256,address)") + bytes(3 * 32)


@pytest.mark.parametrize(
    "calls",
    [
        pytest.param([DECREASE_CALL], id="a decrease alone"),
        pytest.param([COLLECT_CALL], id="a collect alone"),
        pytest.param([COLLECT_CALL, DECREASE_CALL], id="another order"),
        pytest.param([DECREASE_CALL, COLLECT_CALL, SWEEP_CALL], id="a sweep behind"),
        pytest.param([DECREASE_CALL, SWEEP_CALL], id="a sweep in place of the collect"),
        pytest.param([SWEEP_CALL], id="a sweep alone"),
        pytest.param([], id="nothing"),
    ],
)
def test_manager_multicall_is_a_withdrawal_and_its_collect(calls: list[bytes]) -> None:
    """Anything else, even a permit or a sweep, is not understood."""
    data = liquidity_calldata.MANAGER_MULTICALL + abi_encode(["bytes[]"], [calls])

    assert_refused_by("call", tx(MANAGER, "0x" + data.hex()), grant_of(WITHDRAW_V3))


def test_unknown_function_is_not_decoded() -> None:
    with pytest.raises(liquidity_calldata.UndecodableCalldata, match="unknown function"):
        liquidity_calldata.decode(bytes(4))


# --- Deadlines and floors.


@pytest.mark.parametrize("name", WITH_MINIMUMS)
@pytest.mark.parametrize("deadline_s", [NOW_S, NOW_S - 1, NOW_S + 91, 2**255], ids=["now", "passed", "one second too far", "for ever"])
def test_deadline_lies_within_the_grant_and_is_short(name: str, deadline_s: int) -> None:
    transaction = action_tx(ACTIONS[name], deadline_s=deadline_s)

    assert_refused_by("deadline", transaction, grant_of(ACTIONS[name]))
    assert_refused_by("deadline", transaction, grant_of(ACTIONS[name], deadline_s=2**256))


@pytest.mark.parametrize("name", WITH_MINIMUMS)
@pytest.mark.parametrize("side", [0, 1])
def test_minimum_one_unit_below_its_floor_is_refused(name: str, side: int) -> None:
    minimums_raw = tuple(floor_raw - (number == side) for number, floor_raw in enumerate(PROVIDING_FLOORS))
    action = replace(ACTIONS[name], min_raw=minimums_raw)

    assert_refused_by("floor", action_tx(action), grant_of(action))


@pytest.mark.parametrize("name", WITH_MINIMUMS)
def test_minimums_without_floors_are_refused(name: str) -> None:
    assert_refused_by("floor", action_tx(ACTIONS[name]), grant_of(ACTIONS[name], floors_raw=()))


@pytest.mark.parametrize("name", WITH_MINIMUMS)
def test_minimums_at_floors_are_signed_to_the_last_second(name: str) -> None:
    action = ACTIONS[name]

    assert signer(LP_RULES).sign(action_tx(action, deadline_s=NOW_S + 90), grant_of(action, floors_raw=action.min_raw)).hash


@pytest.mark.parametrize("name", WITH_MINIMUMS)
def test_minimums_of_zero_are_refused_at_floors_of_zero(name: str) -> None:
    action = ACTIONS[name]
    free_action = replace(action, min_raw=(0, 0))

    assert_refused_by("floor", with_words_of_zero(action, *action.min_raw), grant_of(free_action, floors_raw=(0, 0)))
    with raises_code(Refused, "amount"):
        encode_liquidity(free_action, WALLET, DEADLINE_S)


@pytest.mark.parametrize("action", [WITHDRAW_V3, MINT], ids=["withdraw", "mint"])
def test_one_sided_minimums_of_a_one_sided_range_are_signed(action: LpAction) -> None:
    """A range that the price left is of one token."""
    assert_signed(replace(action, min_raw=(MINT.min_raw[0], 0)), floors_raw=(PROVIDING_FLOORS[0], 0))


# --- Approvals.


@pytest.mark.parametrize(
    ("rule", "token", "spender", "raw", "action"),
    [
        pytest.param("approval_amount", TOKENS[0], MANAGER, MINT.desired_raw[0] + 1, MINT, id="one unit more"),
        pytest.param("approval_amount", TOKENS[0], MANAGER, MINT.desired_raw[0] - 1, MINT, id="one unit less"),
        pytest.param("approval_amount", TOKENS[0], MANAGER, 2**256 - 1, MINT, id="unlimited"),
        pytest.param("spender", TOKENS[0], V2_ROUTER, MINT.desired_raw[0], MINT, id="the V2 router for a mint"),
        pytest.param("spender", TOKENS[0], ROUTER, MINT.desired_raw[0], MINT, id="the swap router for a mint"),
        pytest.param("spender", TOKENS[0], STRANGER, 0, MINT, id="zero for a stranger"),
        pytest.param("spender", TOKENS[0], MANAGER, ADD.desired_raw[0], ADD, id="the manager for an addition"),
        pytest.param("approval_amount", PAIR, V2_ROUTER, 1, WITHDRAW_V2, id="part of the LP tokens"),
        pytest.param("contract", PAIR, V2_ROUTER, 10**18, ADD, id="LP tokens for an addition"),
        pytest.param("contract", TOKENS[0], V2_ROUTER, 10**18, WITHDRAW_V2, id="a token for a withdrawal"),
        pytest.param("approval", TOKENS[0], MANAGER, 10**18, WITHDRAW_V3, id="anything for a V3 withdrawal"),
        pytest.param("approval", TOKENS[0], MANAGER, 10**18, COLLECT, id="anything for a collect"),
        pytest.param("contract", MANAGER, STRANGER, 42, MINT, id="a position of the manager"),
    ],
)
def test_approval_other_than_the_action_spends_is_refused(rule: str, token: str, spender: str, raw: int, action: LpAction) -> None:
    assert_refused_by(rule, *approval(token, spender, raw, action))


def test_approval_of_another_pair_than_withdrawn_is_refused() -> None:
    """Both are pinned pairs."""
    other_pair = STRANGER
    rules = replace(LP_RULES, v2_pairs=(PAIR, other_pair))

    assert_refused_by("contract", *approval(other_pair, V2_ROUTER, WITHDRAW_V2.liquidity, WITHDRAW_V2), rules=rules)


@pytest.mark.parametrize(
    ("rule", "token", "spender"),
    [
        pytest.param("spender", TOKENS[0], MANAGER, id="a token for the manager"),
        pytest.param("spender", TOKENS[0], V2_ROUTER, id="a token for the V2 router"),
        pytest.param("contract", PAIR, V2_ROUTER, id="LP tokens for the V2 router"),
        pytest.param("contract", PAIR, ROUTER, id="LP tokens for the swap router"),
    ],
)
def test_approval_without_an_action_only_resets(rule: str, token: str, spender: str) -> None:
    def without_action(raw: int) -> tuple[UnsignedTx, Grant]:
        transaction, grant = approval(token, spender, raw, MINT)
        return transaction, replace(grant, layer_action=None)

    assert_refused_by(rule, *without_action(1))
    assert signer(LP_RULES).sign(*without_action(0)).hash


@pytest.mark.parametrize("raw", [0, 42])
def test_approval_of_a_position_of_the_manager_is_refused(raw: int) -> None:
    """approve(address,uint256) of an ERC-721 has the same selector: the position manager is no token that may be approved."""
    transaction, _ = approval(MANAGER, STRANGER, raw, MINT)

    assert_refused_by("contract", transaction, replace(APPROVE_GRANT, approval_terms=(MANAGER, STRANGER, raw)))
