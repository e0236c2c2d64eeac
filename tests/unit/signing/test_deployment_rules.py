"""The deployment before the signer: this version's creation code by the CREATE2 deployer is signed, every rule says no by its name (T4)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.errors import Refused
from agent.model import IntentKind, UnsignedTx
from agent.ports import Grant
from agent.signing.deployment_rules import CREATE2_DEPLOYER, SALT, encode_deployment
from agent.signing.rules import SigningRules, require_signable
from agent.venues.deployment import rebalancer_init_code, rebalancer_init_hash
from tests.support.signables import SIGNABLES, calldata, cut_or_lengthened, edited_words, flipped_bits, with_bytes
from tests.support.signing import APPROVE_GRANT, MAX_GAS_WEI, NONCES, NOW_S, RULES, STRANGER, WALLET, signer, tx

OWN_RULES = replace(RULES, init_code_hash=rebalancer_init_hash())
DEPLOY = tx(CREATE2_DEPLOYER, encode_deployment(rebalancer_init_code()))
GRANT = Grant(IntentKind.DEPLOY, NOW_S, NOW_S + 90, MAX_GAS_WEI, init_code_hash=rebalancer_init_hash())
OTHER = SIGNABLES["deployment"]


def refusing_rule(transaction: UnsignedTx, grant: Grant = GRANT, rules: SigningRules = OWN_RULES) -> str | None:
    """The rule that refuses; None when it may be signed."""
    try:
        require_signable(transaction, grant, rules, NONCES)
    except Refused as refusal:
        return refusal.verdicts[0].guard.removeprefix("signer.")
    return None


def test_this_version_s_creation_code_is_signed() -> None:
    assert refusing_rule(DEPLOY) is None
    assert signer(OWN_RULES).sign(DEPLOY, GRANT).hash.startswith("0x")


@pytest.mark.parametrize(
    ("rule", "transaction", "grant", "rules"),
    [
        ("contract", replace(DEPLOY, to=STRANGER), GRANT, OWN_RULES),
        ("contract", replace(DEPLOY, to=WALLET), GRANT, OWN_RULES),
        ("salt", tx(CREATE2_DEPLOYER, "0x" + (SALT[:-1] + b"\x01" + rebalancer_init_code()).hex()), GRANT, OWN_RULES),
        ("init_code_hash", OTHER.tx, GRANT, OWN_RULES),
        ("init_code_hash", OTHER.tx, OTHER.grant, OWN_RULES),
        ("init_code_hash", DEPLOY, GRANT, RULES),
        ("init_code_hash", tx(CREATE2_DEPLOYER, "0x" + SALT.hex()), GRANT, OWN_RULES),
        ("salt", tx(CREATE2_DEPLOYER, "0x" + SALT[:4].hex()), GRANT, OWN_RULES),
        ("deployment", DEPLOY, replace(GRANT, init_code_hash=None), OWN_RULES),
        ("kind", DEPLOY, replace(GRANT, kind=IntentKind.SWAP), OWN_RULES),
        ("kind", DEPLOY, APPROVE_GRANT, OWN_RULES),
        ("value", replace(DEPLOY, value_wei=1), GRANT, OWN_RULES),
        ("gas_cost", replace(DEPLOY, gas=10**8), GRANT, OWN_RULES),
        ("chain_id", replace(DEPLOY, chain_id=1), GRANT, OWN_RULES),
    ],
)
def test_each_rule_says_no_by_its_name(rule: str, transaction: UnsignedTx, grant: Grant, rules: SigningRules) -> None:
    assert refusing_rule(transaction, grant, rules) == rule


def test_no_changed_byte_of_the_payload_is_signed() -> None:
    data = calldata(DEPLOY)
    for position in (*range(len(SALT)), *range(len(SALT), len(data), 37), len(data) - 1):
        assert refusing_rule(with_bytes(DEPLOY, data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :])) is not None, (
            position
        )


def test_no_flipped_bit_edited_word_or_other_length_is_signed() -> None:
    mutations = [*flipped_bits(OTHER.tx), *edited_words(OTHER.tx), *cut_or_lengthened(OTHER.tx)]
    assert len(mutations) > 300
    assert [mutated.data for mutated in mutations if refusing_rule(mutated, OTHER.grant, OTHER.rules) is None] == []
