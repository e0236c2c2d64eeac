"""Tests of agent/signing/payout_rules.py: the granted amount to the unit, to an address that the owner confirmed (T4, T14)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model import IntentKind, Payout, UnsignedTx
from agent.ports import Grant
from agent.signing.payout_rules import encode_payout
from agent.signing.rules import SigningRules
from agent.units import NATIVE, UINT256_MAX
from tests.support import signing
from tests.support.builders import address
from tests.support.signables import with_bytes
from tests.support.signing import FUTURES, MAX_GAS_WEI, NOW_S, ROUTER, RULES, STRANGER, USDC, USDT, WALLET, WETH, signer, tx

HOME = address("home")
OTHER_HOME = address("another home")
MANAGER = address("manager")
PAIR = address("pair")
POOL = address("v3 pool")
PAYOUT_RULES = replace(RULES, payout_addresses=(HOME, OTHER_HOME))
refusing_rule = partial(signing.refusing_rule, rules=PAYOUT_RULES)
RAW = 1_234_567_890
LIMIT_LEFT_RAW = 2_000_000_000
TOKENS = Payout(USDC, HOME, RAW, LIMIT_LEFT_RAW, 3)
COIN = Payout(NATIVE, HOME, RAW, LIMIT_LEFT_RAW, 3)


def grant_of(payout: Payout | None) -> Grant:
    return Grant(IntentKind.PAYOUT, NOW_S, NOW_S + 90, MAX_GAS_WEI, payout=payout)


def token_tx(raw: int = RAW, to: str = HOME) -> UnsignedTx:
    return tx(USDC, encode_payout(to, raw))


def coin_tx(raw: int = RAW, to: str = HOME) -> UnsignedTx:
    return tx(to, "0x", value_wei=raw)


PAY = token_tx()
PAY_COIN = coin_tx()
GRANT = grant_of(TOKENS)
COIN_GRANT = grant_of(COIN)


def rules_that_refuse_payouts_to(to: str, rules: SigningRules) -> set[str | None]:
    """Return what refuses a payout of tokens and one of native coin to an address that their grants name; None where signed."""
    return {
        refusing_rule(token_tx(to=to), grant_of(replace(TOKENS, to=to)), rules=rules),
        refusing_rule(coin_tx(to=to), grant_of(replace(COIN, to=to)), rules=rules),
    }


@pytest.mark.parametrize(("transaction", "grant"), [(PAY, GRANT), (PAY_COIN, COIN_GRANT)], ids=["tokens", "native coin"])
def test_granted_payout_is_signed(transaction: UnsignedTx, grant: Grant) -> None:
    assert signer(PAYOUT_RULES).sign(transaction, grant).hash.startswith("0x")


def test_payout_of_tokens_is_encoded_as_transfer() -> None:
    assert PAY.data == "0xa9059cbb" + "00" * 12 + HOME[2:].lower() + f"{RAW:064x}"


@pytest.mark.parametrize("raw", [1, RAW])
def test_payout_of_all_that_the_day_has_left_is_signed(raw: int) -> None:
    assert refusing_rule(token_tx(raw), grant_of(replace(TOKENS, raw=raw, limit_left_raw=raw))) is None
    assert refusing_rule(coin_tx(raw), grant_of(replace(COIN, raw=raw, limit_left_raw=raw))) is None


@pytest.mark.parametrize(
    ("rule", "transaction", "grant"),
    [
        pytest.param("payout", PAY, grant_of(None), id="tokens, none granted"),
        pytest.param("payout", PAY_COIN, grant_of(None), id="coin, none granted"),
        pytest.param("contract", replace(PAY, to=STRANGER), GRANT, id="a stranger's token"),
        pytest.param("contract", replace(PAY, to=STRANGER), grant_of(replace(TOKENS, token=STRANGER)), id="a stranger's token, granted"),
        pytest.param("contract", replace(PAY, to=WETH), GRANT, id="another token"),
        pytest.param("contract", PAY_COIN, GRANT, id="coin in place of tokens"),
        pytest.param("contract", PAY, COIN_GRANT, id="tokens in place of coin"),
        pytest.param("recipient", token_tx(to=STRANGER), GRANT, id="tokens to a stranger"),
        pytest.param("recipient", token_tx(to=OTHER_HOME), GRANT, id="tokens to another home"),
        pytest.param("recipient", coin_tx(to=STRANGER), COIN_GRANT, id="coin to a stranger"),
        pytest.param("recipient", coin_tx(to=OTHER_HOME), COIN_GRANT, id="coin to another home"),
        pytest.param("payout_amount", token_tx(RAW + 1), GRANT, id="one unit more"),
        pytest.param("payout_amount", token_tx(RAW - 1), GRANT, id="one unit less"),
        pytest.param("payout_amount", token_tx(UINT256_MAX), GRANT, id="largest amount"),
        pytest.param("payout_amount", coin_tx(RAW + 1), COIN_GRANT, id="one wei more"),
        pytest.param("payout_amount", coin_tx(RAW - 1), COIN_GRANT, id="one wei less"),
        pytest.param("payout_amount", coin_tx(0), COIN_GRANT, id="no coin"),
        pytest.param("payout_amount", token_tx(0), grant_of(replace(TOKENS, raw=0)), id="no tokens, as granted"),
        pytest.param("payout_per_day", PAY, grant_of(replace(TOKENS, limit_left_raw=RAW - 1)), id="one unit beyond the day"),
        pytest.param("payout_per_day", PAY_COIN, grant_of(replace(COIN, limit_left_raw=RAW - 1)), id="one wei beyond the day"),
        pytest.param("value", replace(PAY, value_wei=1), GRANT, id="coin beside tokens"),
        pytest.param("value", with_bytes(PAY_COIN, b"\x00"), COIN_GRANT, id="a byte beside coin"),
        pytest.param("gas_cost", replace(PAY, gas=10**7), GRANT, id="gas beyond the granted"),
        pytest.param("chain_id", replace(PAY, chain_id=1), GRANT, id="another chain"),
    ],
)
def test_payout_other_than_granted_is_refused_by_its_rule(rule: str, transaction: UnsignedTx, grant: Grant) -> None:
    assert refusing_rule(transaction, grant) == rule


@pytest.mark.parametrize("to", [STRANGER, WALLET, USDC, WETH, ROUTER, MANAGER, PAIR, POOL, NATIVE])
def test_payout_to_an_unconfirmed_address_is_refused(to: str) -> None:
    assert rules_that_refuse_payouts_to(to, PAYOUT_RULES) == {"recipient"}


def test_payout_without_confirmed_addresses_is_refused() -> None:
    assert rules_that_refuse_payouts_to(HOME, RULES) == {"recipient"}


@pytest.mark.parametrize("to", [WALLET, USDC, WETH, ROUTER, NATIVE])
def test_payout_to_wallet_or_nobody_is_refused_if_confirmed(to: str) -> None:
    assert rules_that_refuse_payouts_to(to, replace(PAYOUT_RULES, payout_addresses=(HOME, to))) == {"recipient"}


@pytest.mark.parametrize("field", ["routers", "rebalancers", "v3_managers", "v2_routers", "v2_pairs", "oracle_pools", "tokens"])
def test_payout_to_a_traded_contract_is_refused_if_confirmed(field: str) -> None:
    rules = replace(PAYOUT_RULES, payout_addresses=(HOME, STRANGER))

    assert rules_that_refuse_payouts_to(STRANGER, rules) == {None}
    assert rules_that_refuse_payouts_to(STRANGER, replace(rules, **{field: (*getattr(rules, field), STRANGER)})) == {"recipient"}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"wrapped_native": STRANGER}, id="wrapped native coin"),
        pytest.param({"batch_contract": STRANGER}, id="batches of a Safe"),
        *(
            pytest.param({"futures": replace(FUTURES, **{field: STRANGER})}, id=field)
            for field in ("clearing_house", "vault", "delegate_approval", "collateral")
        ),
    ],
)
def test_payout_to_a_called_contract_is_refused_if_confirmed(changes: dict[str, object]) -> None:
    rules = replace(PAYOUT_RULES, payout_addresses=(HOME, STRANGER))

    assert rules_that_refuse_payouts_to(STRANGER, replace(rules, **changes)) == {"recipient"}  # type: ignore[arg-type]  # field names


@given(raw=st.integers(0, 2**256 - 1), to=st.sampled_from([HOME, OTHER_HOME, STRANGER, WALLET, USDT]))
def test_payout_of_other_amount_or_address_is_refused(raw: int, to: str) -> None:
    assert (refusing_rule(token_tx(raw, to), GRANT) is None) == ((to, raw) == (HOME, RAW))
    assert (refusing_rule(coin_tx(raw, to), COIN_GRANT) is None) == ((to, raw) == (HOME, RAW))
