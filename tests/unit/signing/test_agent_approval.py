"""The signer's rule for the approval of an agent's key: as confirmed it is signed, and nothing else of typed data is."""

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
from tests.support.hyperliquid_server import AGENT_TYPES, DAY_MS
from tests.support.signables import SIGNABLES
from tests.support.signing import KEY, NONCES, WALLET

NOW_S = 1_790_000_000
AGENT = "0x409Bd4a7Bf3C01cE2B9D51bD2B1fa67c309C13fa"
GRANTED = AgentApproval(AGENT, "trimtab", NOW_S * 1000 + 90 * DAY_MS, NOW_S * 1000, is_mainnet=False)
RULES = AgentApprovalRules(WALLET, WALLET, "trimtab", is_mainnet=False)
PRIMARY = "HyperliquidTransaction:ApproveAgent"


class At:
    """A clock that stands still."""

    def now_s(self) -> int:
        return NOW_S

    def sleep(self, seconds: float) -> None:
        raise AssertionError(seconds)


def signer(rules: AgentApprovalRules = RULES) -> ApprovalSigner:
    return ApprovalSigner(KEY, rules, At())


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


CHANGES: list[Callable[[dict[str, Any]], object]] = [
    with_field("agentAddress", "0x" + "44" * 20),
    with_field("agentAddress", AGENT),
    with_field("agentName", "trimtab"),
    with_field("agentName", ""),
    with_field("agentName", f"trimtab valid_until {GRANTED.valid_until_ms + 1}"),
    with_field("agentName", f"trimtab  valid_until {GRANTED.valid_until_ms}"),
    with_field("agentName", f"trimtab valid_until 0{GRANTED.valid_until_ms}"),
    with_field("hyperliquidChain", "Mainnet"),
    with_field("hyperliquidChain", "Devnet"),
    with_field("nonce", GRANTED.nonce_ms + 1),
    with_field("nonce", float(GRANTED.nonce_ms)),
    with_field("nonce", str(GRANTED.nonce_ms)),
    with_field("nonce", True),
    with_field("destination", WALLET),
    lambda typed_data: typed_data["message"].pop("nonce"),
    lambda typed_data: typed_data.pop("message"),
    lambda typed_data: typed_data.update(message=[]),
    lambda typed_data: typed_data.update(primaryType="HyperliquidTransaction:UsdSend"),
    lambda typed_data: typed_data["domain"].update(chainId=1),
    lambda typed_data: typed_data["domain"].update(verifyingContract=WALLET),
    lambda typed_data: typed_data["domain"].update(salt="0x00"),
    lambda typed_data: typed_data["types"][PRIMARY].append({"name": "amount", "type": "string"}),
    lambda typed_data: typed_data["types"][PRIMARY].reverse(),
    lambda typed_data: typed_data["types"].update(Permit=[]),
    lambda typed_data: typed_data.update(extra=1),
    lambda typed_data: typed_data.update(extra={1, 2}),
]


@pytest.mark.parametrize("number", range(len(CHANGES)))
def test_approval_that_differs_in_any_field_is_refused(number: int) -> None:
    typed_data = copy.deepcopy(approval_typed_data(GRANTED))
    CHANGES[number](typed_data)
    assert refusing_rule(typed_data) in ("typed_data", "agent", "network")


@pytest.mark.parametrize(
    ("approval", "rules", "rule"),
    [
        (replace(GRANTED, agent_address=WALLET), RULES, "agent"),
        (replace(GRANTED, agent_address="0x" + "0" * 40), RULES, "agent"),
        (replace(GRANTED, name="other"), RULES, "agent_name"),
        (replace(GRANTED, is_mainnet=True), RULES, "network"),
        (replace(GRANTED, valid_until_ms=NOW_S * 1000), RULES, "deadline"),
        (replace(GRANTED, valid_until_ms=NOW_S * 1000 + 180 * DAY_MS + 1), RULES, "deadline"),
        (replace(GRANTED, nonce_ms=GRANTED.nonce_ms + 60_001), RULES, "nonce"),
        (replace(GRANTED, nonce_ms=GRANTED.nonce_ms - 60_001), RULES, "nonce"),
        (GRANTED, replace(RULES, account=AGENT), "trader"),
    ],
)
def test_approval_outside_the_rules_is_refused_though_granted(approval: AgentApproval, rules: AgentApprovalRules, rule: str) -> None:
    assert refusing_rule(approval_typed_data(approval), approval, rules) == rule


def test_no_other_typed_data_is_signed_and_no_mutation_of_it() -> None:
    dice = random.Random(20_261_122)
    messages = [*typed_messages(WALLET), ("approval", approval_typed_data(GRANTED))]
    for name, message in typed_messages(WALLET):
        assert refusing_rule(message) == "typed_data", name
    for _ in range(2_000):
        name, message = dice.choice(messages)
        _, mutated = mutated_typed(dice, name, copy.deepcopy(message))
        if mutated == approval_typed_data(GRANTED):
            continue
        with pytest.raises(Refused):
            signer().sign(mutated, GRANTED)


def test_signer_of_steps_signs_no_approval() -> None:
    signable = SIGNABLES["approve"]
    with pytest.raises(Refused) as refusal:
        LocalSigner(KEY, signable.rules, lambda: NONCES).refuse_typed(approval_typed_data(GRANTED), signable.grant)
    assert refusal.value.verdicts[0].guard == "signer.typed_data"


def test_signer_for_another_wallet_is_not_built() -> None:
    with pytest.raises(ConfigError, match=r"wallet\.address"):
        ApprovalSigner(PrivateKey(Account.create()), RULES, At())


@pytest.mark.parametrize(
    "approval",
    [
        replace(GRANTED, valid_until_ms=NOW_S * 1000 + 180 * DAY_MS),
        replace(GRANTED, valid_until_ms=NOW_S * 1000 + 1),
        replace(GRANTED, nonce_ms=NOW_S * 1000 + 60_000),
        replace(GRANTED, nonce_ms=NOW_S * 1000 - 60_000),
    ],
)
def test_approval_at_the_edge_of_its_times_is_signed(approval: AgentApproval) -> None:
    assert signer().sign(approval_typed_data(approval), approval)["v"] in (27, 28)


def test_approval_that_the_owner_did_not_confirm_is_refused() -> None:
    """Every fixed term holds: only the confirmation names another key or another time."""
    for confirmed_approval in (
        replace(GRANTED, agent_address="0x" + "44" * 20),
        replace(GRANTED, valid_until_ms=GRANTED.valid_until_ms - 1),
    ):
        assert refusing_rule(approval_typed_data(GRANTED), confirmed_approval) == "agent"
