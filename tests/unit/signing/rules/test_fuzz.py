"""Thousands of mutated transactions and typed-data messages before the signer: none outside the policy is signed (threat T4)."""

from __future__ import annotations

import inspect
import random
from dataclasses import replace

import pytest
from eth_account.messages import encode_typed_data
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Refused
from agent.model import IntentKind, UnsignedTx
from agent.signing.remote_key import RemoteKey
from agent.signing.rules import SIGNING_TABLE, LocalSigner
from agent.signing.secret import PrivateKey
from tests.fuzz.signer import CEILING_WEI, TIP_WEI, Score, allowed_calls, inside, run
from tests.fuzz.typed_data import mutated_typed, typed_messages
from tests.support.samples import examples
from tests.support.signables import SIGNABLES, Signable, calldata, with_bytes
from tests.support.signing import DEADLINE_S, KEY, NONCES, RULES, WALLET
from tests.support.text import raises_code

CASES = 5_000
"""Cases of `make test`; `make fuzz` runs for as long as it is told."""


def test_each_allowed_transaction_is_signed_as_it_stands() -> None:
    """Else no mutation of it would prove anything; every row of the table and every kind is among them."""
    for signable in SIGNABLES.values():
        assert LocalSigner(KEY, signable.rules, lambda: NONCES).sign(signable.tx, signable.grant).hash
        assert inside(signable, signable.tx)
    assert {calldata(signable.tx)[:4] for signable in SIGNABLES.values()} == set(SIGNING_TABLE)
    assert {signable.grant.kind for signable in SIGNABLES.values()} == {row.kind for row in SIGNING_TABLE.values()} <= set(IntentKind)


def test_no_mutation_outside_the_policy_is_signed() -> None:
    score = run(20_261_120, CASES)
    assert score.wrong == []
    assert sum(score.cases.values()) == CASES
    assert score.signed > 50, "mutations of the nonce and of deadlines stay inside the policy: none got through"
    assert len(score.refusals) >= 25, "the mutations reach too few of the rules"


SWAP_SIGNABLE = SIGNABLES["swap"]


def with_deadline(deadline_s: int) -> UnsignedTx:
    data = calldata(SWAP_SIGNABLE.tx).replace(DEADLINE_S.to_bytes(32, "big"), deadline_s.to_bytes(32, "big"))
    return with_bytes(SWAP_SIGNABLE.tx, data)


@pytest.mark.parametrize(
    "transaction",
    [
        pytest.param(with_deadline(DEADLINE_S + 30), id="the latest deadline"),
        pytest.param(replace(SWAP_SIGNABLE.tx, max_fee_wei=CEILING_WEI, max_priority_fee_wei=TIP_WEI), id="the highest fees"),
    ],
)
def test_judge_of_the_attacks_lets_the_edge_pass(transaction: UnsignedTx) -> None:
    assert inside(SWAP_SIGNABLE, transaction)


@pytest.mark.parametrize(
    "transaction",
    [
        pytest.param(with_deadline(DEADLINE_S + 31), id="a second too late"),
        pytest.param(replace(SWAP_SIGNABLE.tx, value_wei=1), id="one wei sent"),
        pytest.param(replace(SWAP_SIGNABLE.tx, to=WALLET), id="another contract"),
        pytest.param(replace(SWAP_SIGNABLE.tx, chain_id=1), id="another chain"),
        pytest.param(replace(SWAP_SIGNABLE.tx, gas=10**9), id="too much gas"),
        pytest.param(replace(SWAP_SIGNABLE.tx, gas_price_wei=1), id="all fee fields"),
        pytest.param(replace(SWAP_SIGNABLE.tx, max_priority_fee_wei=None), id="no tip"),
        pytest.param(replace(SWAP_SIGNABLE.tx, data=SWAP_SIGNABLE.tx.data[:-2] + "01"), id="another byte"),
        pytest.param(replace(SWAP_SIGNABLE.tx, nonce=8), id="another nonce"),
        pytest.param(replace(SWAP_SIGNABLE.tx, max_fee_wei=CEILING_WEI + 1), id="one wei above the ceiling"),
        pytest.param(replace(SWAP_SIGNABLE.tx, max_priority_fee_wei=TIP_WEI + 1), id="one wei above the tip"),
    ],
)
def test_judge_of_the_attacks_says_no_by_itself(transaction: UnsignedTx) -> None:
    """It shares no rule and no decoder with the signer, and must see what it is there for."""
    assert not inside(SWAP_SIGNABLE, transaction)


@pytest.mark.parametrize(
    ("trade", "batch"),
    [
        pytest.param(SIGNABLES["swap"], SIGNABLES["batch"], id="router"),
        pytest.param(SIGNABLES["rebalancer, hub"], SIGNABLES["batch, rebalancer"], id="Rebalancer"),
    ],
)
def test_grant_of_a_batch_allows_its_trade_but_not_vice_versa(trade: Signable, batch: Signable) -> None:
    assert LocalSigner(KEY, batch.rules, lambda: NONCES).sign(trade.tx, batch.grant).hash
    assert trade in allowed_calls(batch)
    assert batch not in allowed_calls(trade)
    with raises_code(Refused, "signer.contract"):
        LocalSigner(KEY, trade.rules, lambda: NONCES).sign(batch.tx, trade.grant)


@pytest.mark.parametrize(("name", "message"), typed_messages(WALLET), ids=[name for name, _ in typed_messages(WALLET)])
def test_typed_data_that_gives_money_away_is_refused(name: str, message: dict[str, object]) -> None:
    """Each is whole: eth-account would sign it."""
    assert len(encode_typed_data(full_message=message).body) == 32
    for signable in SIGNABLES.values():
        with pytest.raises(Refused) as refusal:
            LocalSigner(KEY, signable.rules, lambda: NONCES).refuse_typed(message, signable.grant)
        assert refusal.value.verdicts[0].guard == "signer.typed_data"


@examples(100)
@given(seed=st.integers(0, 2**64), number=st.integers(0, len(typed_messages(WALLET)) - 1))
def test_no_mutated_typed_data_is_signed(seed: int, number: int) -> None:
    _, message = mutated_typed(random.Random(seed), *typed_messages(WALLET)[number])
    with pytest.raises(Refused) as refusal:
        LocalSigner(KEY, RULES, lambda: NONCES).refuse_typed(message, SIGNABLES["approve"].grant)
    assert str(refusal.value).isprintable()
    assert len(str(refusal.value)) < 300


def test_signer_and_keys_sign_nothing_else() -> None:
    """No way to sign a message, a bare hash or a delegation of the account (EIP-191, EIP-7702) exists to be mutated; the approval of an
    agent's key and the call of a Safe are typed data that the key builds itself (tests/unit/signing/test_agent_approval.py,
    tests/unit/signing/test_safe_tx.py)."""
    public_names = {
        kind: {name for name, _ in inspect.getmembers(kind) if not name.startswith("_")} for kind in (LocalSigner, PrivateKey, RemoteKey)
    }
    assert public_names == {
        LocalSigner: {"address", "sign", "refuse_typed"},
        PrivateKey: {"address", "reveal", "sign_agent_approval", "sign_safe_tx", "sign_transaction"},
        RemoteKey: {"sign_agent_approval", "sign_transaction"},
    }


def test_same_seed_gives_the_same_attack() -> None:
    assert run(7, 200).document() == run(7, 200, Score()).document()
