"""Tests of agent/signing/agent_approval.py: an approval is signed as the owner confirmed it, and no other typed data is."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from eth_account import Account
from eth_keys.datatypes import PrivateKey as CurveKey
from hyperliquid.utils import signing

from agent.errors import ConfigError, Refused
from agent.signing.agent_approval import AgentApproval, AgentApprovalRules, ApprovalSigner, approval_typed_data, decode_approval
from agent.signing.remote_key import RemoteKey
from agent.signing.rules import LocalSigner
from agent.signing.secret import PrivateKey
from agent.venues.hyperliquid.venue import approval_action, approval_message
from tests.fuzz.typed_data import mutated_typed, typed_messages
from tests.support.fakes.clock import FakeClock, forbid_sleep
from tests.support.hyperliquid_server import AGENT_TYPES, DAY_MS
from tests.support.signables import SIGNABLES
from tests.support.signing import KEY, NONCES, WALLET
from tests.support.text import raises_code

NOW_S = 1_790_000_000
AGENT = "0x409Bd4a7Bf3C01cE2B9D51bD2B1fa67c309C13fa"
GRANTED = AgentApproval(AGENT, "trimtab", NOW_S * 1000 + 90 * DAY_MS, NOW_S * 1000, is_mainnet=False)
RULES = AgentApprovalRules(WALLET, WALLET, "trimtab", is_mainnet=False)
PRIMARY = "HyperliquidTransaction:ApproveAgent"


CLOCK = FakeClock(NOW_S, wait=forbid_sleep)


def signer(rules: AgentApprovalRules = RULES) -> ApprovalSigner:
    return ApprovalSigner(KEY, rules, CLOCK)


def refusing_rule(typed_data: dict[str, Any], approval: AgentApproval = GRANTED, rules: AgentApprovalRules = RULES) -> str:
    with pytest.raises(Refused) as refusal:
        signer(rules).sign(typed_data, approval)
    assert str(refusal.value).isprintable()
    return refusal.value.verdicts[0].guard.removeprefix("signer.")


@pytest.mark.parametrize("is_mainnet", [False, True])
def test_venue_recovers_the_wallet_from_a_granted_approval(is_mainnet: bool) -> None:
    approval = replace(GRANTED, is_mainnet=is_mainnet)
    action = approval_action(approval)

    signature = signer(replace(RULES, is_mainnet=is_mainnet)).sign(approval_message(action), approval)

    assert signing.recover_user_from_user_signed_action(action, signature, AGENT_TYPES, PRIMARY, is_mainnet) == WALLET
    assert decode_approval(approval_message(action)) == approval


def test_key_service_signs_it_too() -> None:
    secret = CurveKey(KEY.reveal())

    def sign(digest: bytes) -> bytes:
        signature = secret.sign_msg_hash(digest)
        return encode_dss_signature(signature.r, signature.s)

    service = RemoteKey(WALLET, sign)
    approvals = [replace(GRANTED, nonce_ms=GRANTED.nonce_ms + number) for number in range(16)]

    signatures = [service.sign_agent_approval(approval) for approval in approvals]

    assert signatures == [KEY.sign_agent_approval(approval) for approval in approvals]
    assert {v for v, _, _ in signatures} == {27, 28}, "signatures of both recovery bits are compared"


def with_field(name: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda typed_data: typed_data["message"].update({name: value})


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        pytest.param("agent", with_field("agentAddress", "0x" + "44" * 20), id="another key"),
        pytest.param("typed_data", with_field("agentAddress", AGENT), id="a checksummed address"),
        pytest.param("typed_data", with_field("agentName", "trimtab"), id="no expiry"),
        pytest.param("typed_data", with_field("agentName", ""), id="no name"),
        pytest.param("agent", with_field("agentName", f"trimtab valid_until {GRANTED.valid_until_ms + 1}"), id="a millisecond longer"),
        pytest.param("typed_data", with_field("agentName", f"trimtab  valid_until {GRANTED.valid_until_ms}"), id="two spaces"),
        pytest.param("typed_data", with_field("agentName", f"trimtab valid_until 0{GRANTED.valid_until_ms}"), id="a leading zero"),
        pytest.param("network", with_field("hyperliquidChain", "Mainnet"), id="the other network"),
        pytest.param("typed_data", with_field("hyperliquidChain", "Devnet"), id="an unknown network"),
        pytest.param("agent", with_field("nonce", GRANTED.nonce_ms + 1), id="another nonce"),
        pytest.param("typed_data", with_field("nonce", float(GRANTED.nonce_ms)), id="nonce as a float"),
        pytest.param("typed_data", with_field("nonce", str(GRANTED.nonce_ms)), id="nonce as text"),
        pytest.param("typed_data", with_field("nonce", True), id="nonce as a truth value"),
        pytest.param("typed_data", with_field("destination", WALLET), id="one more field"),
        pytest.param("typed_data", lambda typed_data: typed_data["message"].pop("nonce"), id="no nonce"),
        pytest.param("typed_data", lambda typed_data: typed_data.pop("message"), id="no message"),
        pytest.param("typed_data", lambda typed_data: typed_data.update(message=[]), id="a list as message"),
        pytest.param("typed_data", lambda typed_data: typed_data.update(primaryType="HyperliquidTransaction:UsdSend"), id="a payment"),
        pytest.param("typed_data", lambda typed_data: typed_data["domain"].update(chainId=1), id="another chain"),
        pytest.param("typed_data", lambda typed_data: typed_data["domain"].update(verifyingContract=WALLET), id="a contract"),
        pytest.param("typed_data", lambda typed_data: typed_data["domain"].update(salt="0x00"), id="a salt"),
        pytest.param(
            "typed_data", lambda typed_data: typed_data["types"][PRIMARY].append({"name": "amount", "type": "string"}), id="an amount"
        ),
        pytest.param("typed_data", lambda typed_data: typed_data["types"][PRIMARY].reverse(), id="another order of fields"),
        pytest.param("typed_data", lambda typed_data: typed_data["types"].update(Permit=[]), id="one more type"),
        pytest.param("typed_data", lambda typed_data: typed_data.update(extra=1), id="one more part"),
        pytest.param("typed_data", lambda typed_data: typed_data.update(extra={1, 2}), id="a part that is no JSON"),
    ],
)
def test_approval_that_differs_in_any_field_is_refused(rule: str, change: Callable[[dict[str, Any]], object]) -> None:
    typed_data = copy.deepcopy(approval_typed_data(GRANTED))
    change(typed_data)

    assert refusing_rule(typed_data) == rule


NOW_MS = NOW_S * 1000


@pytest.mark.parametrize(
    ("rule", "approval", "rules"),
    [
        pytest.param("agent", replace(GRANTED, agent_address=WALLET), RULES, id="the wallet itself"),
        pytest.param("agent", replace(GRANTED, agent_address="0x" + "0" * 40), RULES, id="nobody"),
        pytest.param("agent_name", replace(GRANTED, name="other"), RULES, id="another name"),
        pytest.param("network", replace(GRANTED, is_mainnet=True), RULES, id="the other network"),
        pytest.param("deadline", replace(GRANTED, valid_until_ms=NOW_MS), RULES, id="expired now"),
        pytest.param("deadline", replace(GRANTED, valid_until_ms=NOW_MS + 180 * DAY_MS + 1), RULES, id="a millisecond too long"),
        pytest.param("nonce", replace(GRANTED, nonce_ms=NOW_MS + 60_001), RULES, id="a millisecond too far ahead"),
        pytest.param("nonce", replace(GRANTED, nonce_ms=NOW_MS - 60_001), RULES, id="a millisecond too old"),
        pytest.param("trader", GRANTED, replace(RULES, account=AGENT), id="of another account"),
    ],
)
def test_approval_outside_the_rules_is_refused_though_granted(rule: str, approval: AgentApproval, rules: AgentApprovalRules) -> None:
    assert refusing_rule(approval_typed_data(approval), approval, rules) == rule


@pytest.mark.parametrize(
    "approval",
    [
        pytest.param(replace(GRANTED, valid_until_ms=NOW_MS + 180 * DAY_MS), id="the longest validity"),
        pytest.param(replace(GRANTED, valid_until_ms=NOW_MS + 1), id="the shortest validity"),
        pytest.param(replace(GRANTED, nonce_ms=NOW_MS + 60_000), id="a minute ahead"),
        pytest.param(replace(GRANTED, nonce_ms=NOW_MS - 60_000), id="a minute old"),
    ],
)
def test_approval_at_the_edge_of_its_times_is_signed(approval: AgentApproval) -> None:
    assert signer().sign(approval_typed_data(approval), approval)["v"] in (27, 28)


@pytest.mark.parametrize(
    "confirmed_approval",
    [
        pytest.param(replace(GRANTED, agent_address="0x" + "44" * 20), id="another key"),
        pytest.param(replace(GRANTED, valid_until_ms=GRANTED.valid_until_ms - 1), id="a shorter validity"),
        pytest.param(replace(GRANTED, nonce_ms=GRANTED.nonce_ms - 1), id="another nonce"),
    ],
)
def test_approval_that_the_owner_did_not_confirm_is_refused(confirmed_approval: AgentApproval) -> None:
    """Every fixed term holds: only the confirmation differs."""
    assert refusing_rule(approval_typed_data(GRANTED), confirmed_approval) == "agent"


def test_refusal_names_an_approval_by_its_terms() -> None:
    with pytest.raises(Refused) as refusal:
        signer().sign(approval_typed_data(GRANTED), replace(GRANTED, nonce_ms=GRANTED.nonce_ms + 1))

    verdict = refusal.value.verdicts[0]
    assert verdict.measured_text == f"trimtab {AGENT}, valid until 1797776000000 ms, nonce 1790000000000"
    assert verdict.limit == f"exactly trimtab {AGENT}, valid until 1797776000000 ms, nonce 1790000000001"


@pytest.mark.parametrize(("name", "message"), typed_messages(WALLET), ids=[name for name, _ in typed_messages(WALLET)])
def test_other_typed_data_is_refused(name: str, message: dict[str, Any]) -> None:
    assert refusing_rule(message) == "typed_data", name


def test_no_mutation_of_typed_data_is_signed() -> None:
    dice = random.Random(20_261_122)
    messages = [*typed_messages(WALLET), ("approval", approval_typed_data(GRANTED))]
    for _ in range(2_000):
        name, message = dice.choice(messages)
        _, mutated = mutated_typed(dice, name, copy.deepcopy(message))
        if mutated != approval_typed_data(GRANTED):
            with raises_code(Refused, "signer.typed_data"):
                signer().sign(mutated, GRANTED)


def test_signer_of_steps_signs_no_approval() -> None:
    signable = SIGNABLES["approve"]

    with pytest.raises(Refused) as refusal:
        LocalSigner(KEY, signable.rules, lambda: NONCES).refuse_typed(approval_typed_data(GRANTED), signable.grant)

    assert refusal.value.verdicts[0].guard == "signer.typed_data"


def test_signer_for_another_wallet_is_not_built() -> None:
    with pytest.raises(ConfigError, match=r"wallet\.address"):
        ApprovalSigner(PrivateKey(Account.create()), RULES, CLOCK)
