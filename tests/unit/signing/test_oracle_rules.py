"""A pool's memory before the signer: the granted pool and number are signed, every rule says no by its name, no mutation passes (T4)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Refused
from agent.model import IntentKind, UnsignedTx
from agent.ports import Grant
from agent.signing.oracle_rules import INCREASE_OBSERVATIONS, encode_observations
from agent.signing.rules import require_signable
from tests.support.builders import address
from tests.support.signables import cut_or_lengthened, edited_words, flipped_bits, overwritten, with_bytes
from tests.support.signing import APPROVE_GRANT, MAX_GAS_WEI, NONCES, NOW_S, RULES, STRANGER, USDT, WALLET, WETH, signer, tx
from tests.support.text import raises_code

POOL, OTHER = address("pool"), address("another pool")
ORACLE_RULES = replace(RULES, oracle_pools=(POOL, OTHER))
SLOTS = 151
RAISE = tx(POOL, encode_observations(SLOTS))
GRANT = Grant(IntentKind.ORACLE, NOW_S, NOW_S + 90, MAX_GAS_WEI, oracle_growth=(POOL, SLOTS))


def refusing_rule(transaction: UnsignedTx, grant: Grant = GRANT) -> str | None:
    """The rule that refuses; None when it may be signed."""
    try:
        require_signable(transaction, grant, ORACLE_RULES, NONCES)
    except Refused as refusal:
        return refusal.verdicts[0].guard.removeprefix("signer.")
    return None


def test_granted_rise_is_signed_as_the_contract_wants_it() -> None:
    assert refusing_rule(RAISE) is None
    assert RAISE.data == "0x32148f67" + f"{SLOTS:064x}"
    assert signer(ORACLE_RULES).sign(RAISE, GRANT).hash.startswith("0x")


@pytest.mark.parametrize(
    ("rule", "transaction", "grant"),
    [
        ("contract", replace(RAISE, to=STRANGER), GRANT),
        ("contract", replace(RAISE, to=WALLET), GRANT),
        ("contract", replace(RAISE, to=WETH), GRANT),
        ("contract", replace(RAISE, to=OTHER), GRANT),
        ("contract", replace(RAISE, to=STRANGER), replace(GRANT, oracle_growth=(STRANGER, SLOTS))),
        ("observations", tx(POOL, encode_observations(SLOTS + 1)), GRANT),
        ("observations", tx(POOL, encode_observations(0)), GRANT),
        ("observations", tx(POOL, encode_observations(65_535)), GRANT),
        ("oracle", RAISE, replace(GRANT, oracle_growth=None)),
        ("kind", RAISE, replace(GRANT, kind=IntentKind.SWAP)),
        ("kind", RAISE, APPROVE_GRANT),
        ("kind", tx(USDT, "0x"), GRANT),
        ("value", replace(RAISE, value_wei=1), GRANT),
        ("gas_cost", replace(RAISE, gas=10**7), GRANT),
        ("chain_id", replace(RAISE, chain_id=1), GRANT),
        ("call", tx(POOL, "0x" + (INCREASE_OBSERVATIONS + (65_536 + SLOTS).to_bytes(32, "big")).hex()), GRANT),
    ],
)
def test_each_rule_says_no_by_its_name(rule: str, transaction: UnsignedTx, grant: Grant) -> None:
    assert refusing_rule(transaction, grant) == rule


def test_pools_that_nobody_named_are_told_nothing() -> None:
    with raises_code(Refused, "signer.contract"):
        require_signable(RAISE, GRANT, RULES, NONCES)


def test_no_flipped_bit_edited_word_or_other_length_is_signed() -> None:
    mutations = [*flipped_bits(RAISE), *edited_words(RAISE), *cut_or_lengthened(RAISE)]
    assert len(mutations) > 300
    assert [mutated.data for mutated in mutations if refusing_rule(mutated) is None] == []


@given(st.lists(st.tuples(st.integers(0, 35), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4))
def test_no_calldata_written_over_is_signed_but_what_was_granted(edits: list[tuple[int, bytes]]) -> None:
    mutated = overwritten(RAISE, edits)
    assert (refusing_rule(mutated) is None) == (mutated.data == RAISE.data)


@given(st.integers(0, 2**256 - 1))
def test_of_all_numbers_only_the_granted_one_is_signed(slots: int) -> None:
    mutated = with_bytes(RAISE, INCREASE_OBSERVATIONS + slots.to_bytes(32, "big"))
    assert (refusing_rule(mutated) is None) == (slots == SLOTS)
