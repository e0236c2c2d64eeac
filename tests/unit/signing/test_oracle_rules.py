"""Tests of agent/signing/oracle_rules.py: the granted pool and number of observations alone are signed (T4)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model import IntentKind, UnsignedTx
from agent.ports import Grant
from agent.signing.oracle_rules import INCREASE_OBSERVATIONS, encode_observations
from tests.support import signing
from tests.support.builders import address
from tests.support.signables import with_bytes
from tests.support.signing import APPROVE_GRANT, MAX_GAS_WEI, NOW_S, RULES, STRANGER, USDT, WALLET, WETH, signer, tx

POOL = address("pool")
OTHER_POOL = address("another pool")
ORACLE_RULES = replace(RULES, oracle_pools=(POOL, OTHER_POOL))
refusing_rule = partial(signing.refusing_rule, rules=ORACLE_RULES)
SLOTS = 151
RAISE = tx(POOL, encode_observations(SLOTS))
GRANT = Grant(IntentKind.ORACLE, NOW_S, NOW_S + 90, MAX_GAS_WEI, oracle_growth=(POOL, SLOTS))


def raise_to(slots: int) -> UnsignedTx:
    return tx(POOL, encode_observations(slots))


def test_granted_rise_is_signed_as_the_contract_wants_it() -> None:
    assert RAISE.data == "0x32148f67" + f"{SLOTS:064x}"
    assert signer(ORACLE_RULES).sign(RAISE, GRANT).hash.startswith("0x")


@pytest.mark.parametrize(
    ("rule", "transaction", "grant"),
    [
        pytest.param("contract", replace(RAISE, to=STRANGER), GRANT, id="of a stranger"),
        pytest.param("contract", replace(RAISE, to=WALLET), GRANT, id="of the wallet"),
        pytest.param("contract", replace(RAISE, to=WETH), GRANT, id="of a token"),
        pytest.param("contract", replace(RAISE, to=OTHER_POOL), GRANT, id="of another pinned pool"),
        pytest.param("contract", replace(RAISE, to=STRANGER), replace(GRANT, oracle_growth=(STRANGER, SLOTS)), id="unpinned, as granted"),
        pytest.param("observations", raise_to(SLOTS + 1), GRANT, id="one slot more"),
        pytest.param("observations", raise_to(SLOTS - 1), GRANT, id="one slot less"),
        pytest.param("observations", raise_to(0), GRANT, id="no slot"),
        pytest.param("observations", raise_to(65_535), GRANT, id="all slots"),
        pytest.param("oracle", RAISE, replace(GRANT, oracle_growth=None), id="none granted"),
        pytest.param("kind", RAISE, replace(GRANT, kind=IntentKind.SWAP), id="granted as a swap"),
        pytest.param("kind", RAISE, APPROVE_GRANT, id="an approval granted"),
        pytest.param("kind", tx(USDT, "0x"), GRANT, id="a cancel"),
        pytest.param("value", replace(RAISE, value_wei=1), GRANT, id="one wei sent"),
        pytest.param("gas_cost", replace(RAISE, gas=10**7), GRANT, id="gas beyond the granted"),
        pytest.param("chain_id", replace(RAISE, chain_id=1), GRANT, id="another chain"),
        pytest.param("call", raise_to(65_536 + SLOTS), GRANT, id="a bit above the number"),
    ],
)
def test_rise_other_than_granted_is_refused_by_its_rule(rule: str, transaction: UnsignedTx, grant: Grant) -> None:
    assert refusing_rule(transaction, grant) == rule


def test_rise_of_a_pool_without_pins_is_refused() -> None:
    assert refusing_rule(RAISE, GRANT, rules=RULES) == "contract"


@given(st.integers(0, 2**256 - 1))
def test_rise_to_another_number_is_refused(slots: int) -> None:
    mutated = with_bytes(RAISE, INCREASE_OBSERVATIONS + slots.to_bytes(32, "big"))

    assert (refusing_rule(mutated, GRANT) is None) == (slots == SLOTS)
