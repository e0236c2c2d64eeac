"""Tests of agent/signing/deployment_rules.py: this version's creation code by the CREATE2 deployer alone is signed (T4)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from agent.model import IntentKind, UnsignedTx
from agent.ports import Grant
from agent.signing.deployment_rules import CREATE2_DEPLOYER, SALT, encode_deployment
from agent.signing.rules import SigningRules
from agent.venues.deployment import rebalancer_init_code, rebalancer_init_hash
from tests.support import signing
from tests.support.signables import SIGNABLES, calldata, with_bytes
from tests.support.signing import APPROVE_GRANT, MAX_GAS_WEI, NOW_S, RULES, STRANGER, WALLET, signer, tx

OWN_RULES = replace(RULES, init_code_hash=rebalancer_init_hash())
refusing_rule = partial(signing.refusing_rule, rules=OWN_RULES)
DEPLOY = tx(CREATE2_DEPLOYER, encode_deployment(rebalancer_init_code()))
GRANT = Grant(IntentKind.DEPLOY, NOW_S, NOW_S + 90, MAX_GAS_WEI, init_code_hash=rebalancer_init_hash())
OTHER = SIGNABLES["deployment"]
"""A deployment of other code, with a grant and rules that allow it."""


def deployer_tx(payload: bytes) -> UnsignedTx:
    return tx(CREATE2_DEPLOYER, "0x" + payload.hex())


def test_granted_deployment_is_signed() -> None:
    assert signer(OWN_RULES).sign(DEPLOY, GRANT).hash.startswith("0x")


@pytest.mark.parametrize(
    ("rule", "transaction", "grant", "rules"),
    [
        pytest.param("contract", replace(DEPLOY, to=STRANGER), GRANT, OWN_RULES, id="by a stranger"),
        pytest.param("contract", replace(DEPLOY, to=WALLET), GRANT, OWN_RULES, id="by the wallet"),
        pytest.param("salt", deployer_tx(SALT[:-1] + b"\x01" + rebalancer_init_code()), GRANT, OWN_RULES, id="another salt"),
        pytest.param("salt", deployer_tx(SALT[:4]), GRANT, OWN_RULES, id="part of the salt"),
        pytest.param("init_code_hash", deployer_tx(SALT), GRANT, OWN_RULES, id="no code"),
        pytest.param("init_code_hash", OTHER.tx, GRANT, OWN_RULES, id="other code"),
        pytest.param("init_code_hash", OTHER.tx, OTHER.grant, OWN_RULES, id="other code, as granted"),
        pytest.param("init_code_hash", DEPLOY, OTHER.grant, OWN_RULES, id="code that is not granted"),
        pytest.param("init_code_hash", DEPLOY, GRANT, RULES, id="code without a rule"),
        pytest.param("deployment", DEPLOY, replace(GRANT, init_code_hash=None), OWN_RULES, id="none granted"),
        pytest.param("kind", DEPLOY, replace(GRANT, kind=IntentKind.SWAP), OWN_RULES, id="granted as a swap"),
        pytest.param("kind", DEPLOY, APPROVE_GRANT, OWN_RULES, id="an approval granted"),
        pytest.param("value", replace(DEPLOY, value_wei=1), GRANT, OWN_RULES, id="one wei sent"),
        pytest.param("gas_cost", replace(DEPLOY, gas=10**8), GRANT, OWN_RULES, id="gas beyond the granted"),
        pytest.param("chain_id", replace(DEPLOY, chain_id=1), GRANT, OWN_RULES, id="another chain"),
    ],
)
def test_deployment_other_than_granted_is_refused_by_its_rule(
    rule: str, transaction: UnsignedTx, grant: Grant, rules: SigningRules
) -> None:
    assert refusing_rule(transaction, grant, rules=rules) == rule


def test_no_changed_byte_of_the_payload_is_signed() -> None:
    data = calldata(DEPLOY)
    for at in (*range(len(SALT)), *range(len(SALT), len(data), 37), len(data) - 1):
        mutated = with_bytes(DEPLOY, data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
        assert refusing_rule(mutated, GRANT) is not None, at
