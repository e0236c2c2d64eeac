"""Each clause of the signer's rule for liquidity, by the transaction that only this clause refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
from eth_abi.abi import encode as abi_encode

from agent.chain.tokens import encode_approve
from agent.errors import Refused
from agent.layers.liquidity.composer import encode_liquidity
from agent.model import IntentKind, LpAction, UnsignedTx
from agent.ports import Grant
from agent.signing import liquidity as liquidity_calldata
from agent.signing.rules import SigningRules
from agent.units import NATIVE
from tests.support.signing import (  # fmt: skip
    ACTIONS,
    ADD,
    CHAIN_ID,
    COLLECT,
    DEADLINE_S,
    INCREASE,
    LP_RULES,
    MANAGER,
    MINT,
    NOW_S,
    PAIR,
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
from tests.support.signing import PROVIDING_ALLOWED as ALLOWED
from tests.support.signing import PROVIDING_FLOORS as FLOORS
from tests.support.text import raises_code

ROUTER_SENTINELS = (NATIVE, "0x0000000000000000000000000000000000000001", "0x0000000000000000000000000000000000000002")


def refused(transaction: UnsignedTx, grant: Grant, rule: str, rules: SigningRules = LP_RULES) -> None:
    with pytest.raises(Refused) as refusal:
        signer(rules).sign(transaction, grant)
    assert refusal.value.verdicts[0].guard == f"signer.{rule}", refusal.value.message


@pytest.mark.parametrize("name", ALLOWED)
def test_each_action_and_each_approval_that_it_needs_is_signed(name: str) -> None:
    transaction, grant = ALLOWED[name]
    signed = signer(LP_RULES).sign(transaction, grant)
    assert signed == signer(LP_RULES).sign(transaction, grant)


@pytest.mark.parametrize("name", [name for name in ACTIONS if name != "increase"])
@pytest.mark.parametrize("recipient", [*ROUTER_SENTINELS, STRANGER, MANAGER, V2_ROUTER])
def test_what_comes_out_goes_to_the_wallet_and_nowhere_else(name: str, recipient: str) -> None:
    """A collect to the zero address would stay in the manager, where anybody may sweep it."""
    refused(action_tx(ACTIONS[name], recipient), grant_of(ACTIONS[name]), "recipient")


@pytest.mark.parametrize("name", [name for name in ACTIONS if name != "collect"])
@pytest.mark.parametrize("deadline_s", [NOW_S, NOW_S - 1, NOW_S + 91, 2**255])
def test_deadline_lies_within_the_grant_and_is_short(name: str, deadline_s: int) -> None:
    refused(action_tx(ACTIONS[name], deadline_s=deadline_s), grant_of(ACTIONS[name]), "deadline")
    long_grant = grant_of(ACTIONS[name], deadline_s=2**256)
    if deadline_s > NOW_S:
        refused(action_tx(ACTIONS[name], deadline_s=deadline_s), long_grant, "deadline")


@pytest.mark.parametrize("name", [name for name in ACTIONS if name != "collect"])
@pytest.mark.parametrize("side", [0, 1])
def test_minimum_below_its_floor_is_refused_on_either_side(name: str, side: int) -> None:
    low_minimums = tuple(floor - (number == side) for number, floor in enumerate(FLOORS))
    action = replace(ACTIONS[name], min_raw=low_minimums)
    refused(action_tx(action), grant_of(action), "floor")
    refused(action_tx(ACTIONS[name]), grant_of(ACTIONS[name], floors_raw=()), "floor")


@pytest.mark.parametrize("name", [name for name in ACTIONS if name != "collect"])
def test_minimums_of_zero_are_refused_at_floors_of_zero(name: str) -> None:
    """The encoder refuses them too, so the bytes are made here."""
    action, zero = ACTIONS[name], bytes(32)
    data = action_tx(action).data
    for raw in action.min_raw:
        data = data.replace(raw.to_bytes(32, "big").hex(), zero.hex())
    mutated = tx(V2_ROUTER if action.venue == "uniswap_v2" else MANAGER, data)
    refused(mutated, grant_of(replace(action, min_raw=(0, 0)), floors_raw=(0, 0)), "floor")
    with raises_code(Refused, "amount"):
        encode_liquidity(replace(action, min_raw=(0, 0)), WALLET, DEADLINE_S)


def test_one_sided_minimums_of_a_one_sided_range_are_signed() -> None:
    """A range that the price left is of one token."""
    for action in (WITHDRAW_V3, MINT):
        one_sided = replace(action, min_raw=(action.min_raw[0], 0))
        assert signer(LP_RULES).sign(action_tx(one_sided), grant_of(one_sided, floors_raw=(FLOORS[0], 0))).hash


@pytest.mark.parametrize("name", ACTIONS)
def test_only_the_pinned_contract_of_the_venue_is_called(name: str) -> None:
    action = ACTIONS[name]
    for to in (STRANGER, ROUTER, PAIR, V2_ROUTER if action.venue == "uniswap_v3" else MANAGER):
        refused(replace(action_tx(action), to=to), grant_of(action), "contract")
    refused(action_tx(action), grant_of(action), "contract", replace(LP_RULES, v3_managers=(), v2_routers=()))
    if action.venue == "uniswap_v2":
        refused(action_tx(action), grant_of(action), "contract", replace(LP_RULES, v2_pairs=()))
    else:
        refused(action_tx(action), grant_of(replace(action, contract=STRANGER)), "contract")


@pytest.mark.parametrize("name", ACTIONS)
def test_only_pinned_tokens_are_provided_taken_out_or_collected(name: str) -> None:
    for token in TOKENS:
        rules_without_token = replace(LP_RULES, tokens=tuple(token for token in LP_RULES.tokens if token != token))
        refused(action_tx(ACTIONS[name]), grant_of(ACTIONS[name]), "tokens", rules_without_token)


@pytest.mark.parametrize("name", ACTIONS)
def test_no_native_coin_goes_along(name: str) -> None:
    refused(action_tx(ACTIONS[name], value_wei=1), grant_of(ACTIONS[name]), "value")


@pytest.mark.parametrize("name", ACTIONS)
def test_call_without_its_action_or_kind_is_refused(name: str) -> None:
    transaction = action_tx(ACTIONS[name])
    refused(transaction, replace(grant_of(ACTIONS[name]), layer_action=None), "action")
    for kind in (IntentKind.SWAP, IntentKind.APPROVE, IntentKind.CANCEL):
        refused(transaction, grant_of(ACTIONS[name], kind=kind), "kind")


def test_action_of_another_venue_or_verb_is_refused() -> None:
    pairs: list[tuple[LpAction, LpAction]] = [(WITHDRAW_V3, COLLECT), (COLLECT, WITHDRAW_V3), (MINT, INCREASE), (INCREASE, MINT)]
    for sent, granted in pairs:
        refused(action_tx(sent), grant_of(granted), "action")
    for sent, granted in ((WITHDRAW_V2, ADD), (ADD, WITHDRAW_V2)):
        refused(action_tx(sent), grant_of(granted), "action")


def test_withdrawal_of_other_liquidity_or_token_is_refused() -> None:
    for action in (WITHDRAW_V3, WITHDRAW_V2):
        refused(action_tx(replace(action, liquidity=action.liquidity + 1)), grant_of(action), "liquidity")
    refused(action_tx(replace(WITHDRAW_V3, token_id=43)), grant_of(WITHDRAW_V3), "token_id")
    refused(action_tx(replace(COLLECT, token_id=43)), grant_of(COLLECT), "token_id")
    refused(action_tx(replace(INCREASE, token_id=43)), grant_of(INCREASE), "token_id")


def test_withdrawal_with_another_collect_is_refused() -> None:
    data = bytes.fromhex(action_tx(WITHDRAW_V3).data[2:])
    offset = data.rindex(liquidity_calldata.COLLECT) + 4
    refused(tx(MANAGER, "0x" + (data[:offset] + (43).to_bytes(32, "big") + data[offset + 32 :]).hex()), grant_of(WITHDRAW_V3), "token_id")


def test_collect_of_less_than_all_is_refused() -> None:
    partial_collect = liquidity_calldata.COLLECT + abi_encode(
        ["(uint256,address,uint128,uint128)"], [(42, WALLET, 1, liquidity_calldata.UINT128_MAX)]
    )
    refused(tx(MANAGER, "0x" + partial_collect.hex()), grant_of(COLLECT), "amount")


def test_mint_elsewhere_than_granted_is_refused() -> None:
    refused(action_tx(replace(MINT, fee_pips=500)), grant_of(MINT), "pool_fee")
    refused(action_tx(replace(MINT, ticks=(-6_000, 6_060))), grant_of(MINT), "ticks")
    reversed_range = replace(MINT, ticks=(6_000, -6_000))
    refused(action_tx(reversed_range), grant_of(reversed_range), "ticks")
    swapped_tokens = replace(MINT, token0=MINT.token1, token1=MINT.token0)
    refused(action_tx(swapped_tokens), grant_of(MINT), "tokens")


def test_more_or_less_than_granted_is_not_provided() -> None:
    for action in (MINT, INCREASE, ADD):
        refused(action_tx(replace(action, desired_raw=(10**18 + 1, 3_000 * 10**6))), grant_of(action), "amount_in")


def test_manager_multicall_is_a_withdrawal_and_its_collect() -> None:
    """Anything else inside its multicall, even a permit or a sweep, is not understood."""
    decrease = liquidity_calldata.DECREASE_LIQUIDITY + bytes(5 * 32)
    collect = liquidity_calldata.COLLECT + bytes(4 * 32)
    sweep = liquidity_calldata.selector("sweepToken(address,uint256,address)") + bytes(3 * 32)
    for inner_calls in ([decrease], [collect], [collect, decrease], [decrease, collect, sweep], [decrease, sweep], [sweep], []):
        data = liquidity_calldata.MANAGER_MULTICALL + abi_encode(["bytes[]"], [inner_calls])
        refused(tx(MANAGER, "0x" + data.hex()), grant_of(WITHDRAW_V3), "call")


def test_approval_is_exact_and_for_the_spender_of_the_action() -> None:
    for token, spender, raw, action, rule in [
        (TOKENS[0], MANAGER, MINT.desired_raw[0] + 1, MINT, "approval_amount"),
        (TOKENS[0], MANAGER, 2**256 - 1, MINT, "approval_amount"),
        (TOKENS[0], V2_ROUTER, MINT.desired_raw[0], MINT, "spender"),
        (TOKENS[0], ROUTER, MINT.desired_raw[0], MINT, "spender"),
        (TOKENS[0], STRANGER, 0, MINT, "spender"),
        (TOKENS[0], MANAGER, ADD.desired_raw[0], ADD, "spender"),
        (PAIR, V2_ROUTER, 1, WITHDRAW_V2, "approval_amount"),
        (PAIR, V2_ROUTER, 10**18, ADD, "contract"),
        (TOKENS[0], V2_ROUTER, 10**18, WITHDRAW_V2, "contract"),
        (TOKENS[0], MANAGER, 10**18, WITHDRAW_V3, "approval"),
        (TOKENS[0], MANAGER, 10**18, COLLECT, "approval"),
    ]:
        transaction, grant = approval(token, spender, raw, action)
        refused(transaction, grant, rule)


def test_approval_without_an_action_only_resets() -> None:
    for token, spender in ((TOKENS[0], MANAGER), (TOKENS[0], V2_ROUTER), (PAIR, V2_ROUTER), (PAIR, ROUTER)):
        for raw in (0, 1):
            transaction, grant = approval(token, spender, raw, MINT)
            bare_grant = replace(grant, layer_action=None)
            if raw:
                refused(transaction, bare_grant, "contract" if token == PAIR else "spender")
            else:
                assert signer(LP_RULES).sign(transaction, bare_grant).hash


def test_tokens_of_a_manager_cannot_be_approved_away() -> None:
    """approve(address,uint256) of an ERC-721 has the same selector: the position manager is no token that may be approved."""
    grant = Grant(IntentKind.APPROVE, NOW_S, NOW_S + 90, 10**16, approval_terms=(MANAGER, STRANGER, 42))
    refused(UnsignedTx(CHAIN_ID, 7, MANAGER, 0, encode_approve(STRANGER, 42), 600_000, 10**10, 10**9, None), grant, "contract")
    refused(tx(MANAGER, encode_approve(STRANGER, 0)), replace(grant, approval_terms=(MANAGER, STRANGER, 0)), "contract")


def test_unknown_venue_and_unknown_function_are_refused() -> None:
    foreign_action = replace(MINT, venue="balancer")
    refused(action_tx(MINT), grant_of(foreign_action), "venue")
    with pytest.raises(liquidity_calldata.UndecodableCalldata, match="unknown function"):
        liquidity_calldata.decode(bytes(4))


def test_no_liquidity_and_no_amount_are_refused_even_as_granted() -> None:
    """The encoder refuses them too, so the words are overwritten here."""
    for action, field in ((WITHDRAW_V3, "liquidity"), (WITHDRAW_V2, "liquidity")):
        data = action_tx(action).data.replace(action.liquidity.to_bytes(32, "big").hex(), bytes(32).hex())
        refused(replace(action_tx(action), data=data), grant_of(replace(action, **{field: 0})), "liquidity")
    for action in (MINT, INCREASE, ADD):
        data = action_tx(action).data
        for raw in action.desired_raw:
            data = data.replace(raw.to_bytes(32, "big").hex(), bytes(32).hex())
        refused(replace(action_tx(action), data=data), grant_of(replace(action, desired_raw=(0, 0))), "amount_in")


@pytest.mark.parametrize("name", [name for name in ACTIONS if name != "collect"])
def test_minimum_at_its_floor_is_signed_until_the_last_second(name: str) -> None:
    action = ACTIONS[name]
    assert signer(LP_RULES).sign(action_tx(action, deadline_s=NOW_S + 90), grant_of(action, floors_raw=action.min_raw)).hash


@pytest.mark.parametrize("side", [0, 1])
def test_amount_of_one_token_alone_is_provided(side: int) -> None:
    """A range that the price left takes one token."""

    def one_side(pair: tuple[int, int]) -> tuple[int, int]:
        return (pair[0], 0) if side == 0 else (0, pair[1])

    for action in (MINT, INCREASE):
        one_sided = replace(action, desired_raw=one_side(action.desired_raw), min_raw=one_side(action.min_raw))
        assert signer(LP_RULES).sign(action_tx(one_sided), grant_of(one_sided, floors_raw=one_side(FLOORS))).hash


def test_range_must_be_a_tick_wide() -> None:
    for upper, is_signed in ((-6_000, False), (-5_999, True)):
        narrow_range = replace(MINT, ticks=(-6_000, upper))
        if is_signed:
            assert signer(LP_RULES).sign(action_tx(narrow_range), grant_of(narrow_range)).hash
        else:
            refused(action_tx(narrow_range), grant_of(narrow_range), "ticks")


def test_collect_of_less_than_all_of_token1_is_refused() -> None:
    most_raw = liquidity_calldata.UINT128_MAX
    call = liquidity_calldata.COLLECT + abi_encode(["(uint256,address,uint128,uint128)"], [(42, WALLET, most_raw, most_raw - 1)])
    refused(tx(MANAGER, "0x" + call.hex()), grant_of(COLLECT), "amount")
