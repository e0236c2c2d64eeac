"""Money before the signer: it goes to confirmed addresses, the granted amount to the unit; every rule says no by its name, no
mutation passes (T4, T14).
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Refused
from agent.model import IntentKind, Payout, UnsignedTx
from agent.ports import Grant
from agent.signing.payout_rules import encode_payout
from agent.signing.rules import require_signable
from agent.units import NATIVE, UINT256_MAX
from tests.support.builders import address
from tests.support.signables import cut_or_lengthened, edited_words, flipped_bits, overwritten, with_bytes
from tests.support.signing import ALLOWED, MAX_GAS_WEI, NONCES, NOW_S, ROUTER, RULES, STRANGER, USDC, USDT, WALLET, WETH, signer, tx

HOME, OTHER_HOME = address("home"), address("another home")
MANAGER, PAIR, POOL = address("manager"), address("pair"), address("v3 pool")
PAYOUT_RULES = replace(RULES, payout_addresses=(HOME, OTHER_HOME))
RAW, LIMIT_LEFT_RAW = 1_234_567_890, 2_000_000_000
TOKENS = Payout(USDC, HOME, RAW, LIMIT_LEFT_RAW, 3)
COIN = Payout(NATIVE, HOME, RAW, LIMIT_LEFT_RAW, 3)
PAY = tx(USDC, encode_payout(HOME, RAW))
PAY_COIN = tx(HOME, "0x", value_wei=RAW)


def grant_of(payout: Payout | None) -> Grant:
    return Grant(IntentKind.PAYOUT, NOW_S, NOW_S + 90, MAX_GAS_WEI, payout=payout)


GRANT, COIN_GRANT = grant_of(TOKENS), grant_of(COIN)


def refusing_rule(transaction: UnsignedTx, grant: Grant = GRANT, rules: object = PAYOUT_RULES) -> str | None:
    """The rule that refuses; None when it may be signed."""
    try:
        require_signable(transaction, grant, rules, NONCES)  # type: ignore[arg-type]  # rules of the tests
    except Refused as refusal:
        return refusal.verdicts[0].guard.removeprefix("signer.")
    return None


def payouts_to(to: str) -> tuple[UnsignedTx, Grant, UnsignedTx, Grant]:
    """Both payments to an address, each with a grant that says so too."""
    return tx(USDC, encode_payout(to, RAW)), grant_of(replace(TOKENS, to=to)), replace(PAY_COIN, to=to), grant_of(replace(COIN, to=to))


def test_granted_payout_is_signed() -> None:
    assert refusing_rule(PAY) is None
    assert refusing_rule(PAY_COIN, COIN_GRANT) is None
    assert PAY.data == "0xa9059cbb" + "00" * 12 + HOME[2:].lower() + f"{RAW:064x}"
    for transaction, grant in ((PAY, GRANT), (PAY_COIN, COIN_GRANT)):
        assert signer(PAYOUT_RULES).sign(transaction, grant).hash.startswith("0x")


@pytest.mark.parametrize(
    ("rule", "transaction", "grant"),
    [
        ("payout", PAY, grant_of(None)),
        ("payout", PAY_COIN, grant_of(None)),
        ("contract", replace(PAY, to=STRANGER), GRANT),
        ("contract", replace(PAY, to=STRANGER), grant_of(replace(TOKENS, token=STRANGER))),
        ("contract", replace(PAY, to=WETH), GRANT),
        ("contract", PAY_COIN, GRANT),
        ("contract", PAY, COIN_GRANT),
        ("recipient", tx(USDC, encode_payout(STRANGER, RAW)), GRANT),
        ("recipient", tx(USDC, encode_payout(OTHER_HOME, RAW)), GRANT),
        ("recipient", replace(PAY_COIN, to=STRANGER), COIN_GRANT),
        ("recipient", replace(PAY_COIN, to=OTHER_HOME), COIN_GRANT),
        ("payout_amount", tx(USDC, encode_payout(HOME, RAW + 1)), GRANT),
        ("payout_amount", tx(USDC, encode_payout(HOME, RAW - 1)), GRANT),
        ("payout_amount", tx(USDC, encode_payout(HOME, UINT256_MAX)), GRANT),
        ("payout_amount", replace(PAY_COIN, value_wei=RAW + 1), COIN_GRANT),
        ("payout_amount", replace(PAY_COIN, value_wei=0), COIN_GRANT),
        ("payout_amount", tx(USDC, encode_payout(HOME, 0)), grant_of(replace(TOKENS, raw=0))),
        ("payout_per_day", PAY, grant_of(replace(TOKENS, limit_left_raw=RAW - 1))),
        ("payout_per_day", PAY_COIN, grant_of(replace(COIN, limit_left_raw=RAW - 1))),
        ("value", replace(PAY, value_wei=1), GRANT),
        ("gas_cost", replace(PAY, gas=10**7), GRANT),
        ("chain_id", replace(PAY, chain_id=1), GRANT),
        ("value", with_bytes(PAY_COIN, b"\x00"), COIN_GRANT),
    ],
)
def test_each_rule_says_no_by_its_name(rule: str, transaction: UnsignedTx, grant: Grant) -> None:
    assert refusing_rule(transaction, grant) == rule


@pytest.mark.parametrize("to", [STRANGER, WALLET, USDC, WETH, ROUTER, MANAGER, PAIR, POOL, NATIVE])
def test_payout_goes_to_confirmed_addresses_that_are_no_contract(to: str) -> None:
    token_tx, token_grant, coin_tx, coin_grant = payouts_to(to)
    assert (refusing_rule(token_tx, token_grant), refusing_rule(coin_tx, coin_grant)) == ("recipient", "recipient")
    rules = replace(PAYOUT_RULES, payout_addresses=(HOME, to), v3_managers=(MANAGER,), v2_pairs=(PAIR,), oracle_pools=(POOL,))
    rule = None if to == STRANGER else "recipient"
    assert (refusing_rule(token_tx, token_grant, rules), refusing_rule(coin_tx, coin_grant, rules)) == (rule, rule)


def test_without_confirmed_addresses_nothing_is_paid() -> None:
    assert refusing_rule(PAY, GRANT, RULES) == refusing_rule(PAY_COIN, COIN_GRANT, RULES) == "recipient"


def test_payout_is_signed_on_its_own_grant_alone() -> None:
    for name, (transaction, grant) in ALLOWED.items():
        assert refusing_rule(PAY, grant) is not None, name
        assert refusing_rule(PAY_COIN, grant) is not None, name
        assert refusing_rule(transaction, GRANT) is not None, name
        assert refusing_rule(transaction, COIN_GRANT) is not None, name
        assert refusing_rule(transaction, grant) is None, name


def test_no_flipped_bit_edited_word_or_other_length_is_signed() -> None:
    mutations = [*flipped_bits(PAY), *edited_words(PAY), *cut_or_lengthened(PAY)]
    assert len(mutations) > 500
    assert [mutated.data for mutated in mutations if refusing_rule(mutated) is None] == []


@given(st.lists(st.tuples(st.integers(0, 67), st.binary(min_size=1, max_size=20)), min_size=1, max_size=4))
def test_no_calldata_written_over_is_signed_but_what_was_granted(edits: list[tuple[int, bytes]]) -> None:
    mutated = overwritten(PAY, edits)
    assert (refusing_rule(mutated) is None) == (mutated.data == PAY.data)


@given(raw=st.integers(0, 2**256 - 1), to=st.sampled_from([HOME, OTHER_HOME, STRANGER, WALLET, USDT]))
def test_payout_of_other_amount_or_address_is_refused(raw: int, to: str) -> None:
    assert (refusing_rule(tx(USDC, encode_payout(to, raw))) is None) == ((to, raw) == (HOME, RAW))
    assert (refusing_rule(replace(PAY_COIN, to=to, value_wei=raw), COIN_GRANT) is None) == ((to, raw) == (HOME, RAW))


@pytest.mark.parametrize("raw", [1, RAW])
def test_payment_of_all_that_the_day_has_left_is_signed(raw: int) -> None:
    assert refusing_rule(tx(USDC, encode_payout(HOME, raw)), grant_of(replace(TOKENS, raw=raw, limit_left_raw=raw))) is None
    assert refusing_rule(replace(PAY_COIN, value_wei=raw), grant_of(replace(COIN, raw=raw, limit_left_raw=raw))) is None


@pytest.mark.parametrize("field", ["routers", "rebalancers", "v3_managers", "v2_routers", "v2_pairs", "oracle_pools", "tokens"])
def test_payout_to_a_traded_contract_is_refused_if_confirmed(field: str) -> None:
    token_tx, token_grant, coin_tx, coin_grant = payouts_to(STRANGER)
    rules = replace(PAYOUT_RULES, payout_addresses=(HOME, STRANGER))
    assert (refusing_rule(token_tx, token_grant, rules), refusing_rule(coin_tx, coin_grant, rules)) == (None, None)
    pinned = replace(rules, **{field: (*getattr(rules, field), STRANGER)})
    assert refusing_rule(token_tx, token_grant, pinned) == "recipient"
    assert refusing_rule(coin_tx, coin_grant, pinned) == "recipient"
