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


def refused(typed: dict[str, Any], granted: AgentApproval = GRANTED, rules: AgentApprovalRules = RULES) -> str:
    with pytest.raises(Refused) as caught:
        signer(rules).sign(typed, granted)
    assert str(caught.value).isprintable()
    return caught.value.verdicts[0].guard.removeprefix("signer.")


@pytest.mark.parametrize("is_mainnet", [False, True])
def test_the_venue_recovers_the_wallet_from_a_granted_approval(is_mainnet: bool) -> None:
    granted = replace(GRANTED, is_mainnet=is_mainnet)
    action = approval_action(granted)
    signature = signer(replace(RULES, is_mainnet=is_mainnet)).sign(approval_message(action), granted)
    assert signing.recover_user_from_user_signed_action(action, signature, AGENT_TYPES, PRIMARY, is_mainnet) == WALLET
    assert decode_approval(approval_message(action)) == granted


def test_a_key_service_signs_it_too() -> None:
    secret = CurveKey(KEY.reveal())

    def sign(digest: bytes) -> bytes:
        found = secret.sign_msg_hash(digest)
        return encode_dss_signature(found.r, found.s)

    service = RemoteKey(WALLET, sign)
    approvals = [replace(GRANTED, nonce_ms=GRANTED.nonce_ms + number) for number in range(16)]
    signatures = [service.sign_agent_approval(approval) for approval in approvals]
    assert signatures == [KEY.sign_agent_approval(approval) for approval in approvals]
    assert {v for v, _, _ in signatures} == {27, 28}, "signatures of both recovery bits are compared"


def field(name: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda typed: typed["message"].update({name: value})


CHANGES: list[Callable[[dict[str, Any]], object]] = [
    field("agentAddress", "0x" + "44" * 20),
    field("agentAddress", AGENT),
    field("agentName", "trimtab"),
    field("agentName", ""),
    field("agentName", f"trimtab valid_until {GRANTED.valid_until_ms + 1}"),
    field("agentName", f"trimtab  valid_until {GRANTED.valid_until_ms}"),
    field("agentName", f"trimtab valid_until 0{GRANTED.valid_until_ms}"),
    field("hyperliquidChain", "Mainnet"),
    field("hyperliquidChain", "Devnet"),
    field("nonce", GRANTED.nonce_ms + 1),
    field("nonce", float(GRANTED.nonce_ms)),
    field("nonce", str(GRANTED.nonce_ms)),
    field("nonce", True),
    field("destination", WALLET),
    lambda typed: typed["message"].pop("nonce"),
    lambda typed: typed.pop("message"),
    lambda typed: typed.update(message=[]),
    lambda typed: typed.update(primaryType="HyperliquidTransaction:UsdSend"),
    lambda typed: typed["domain"].update(chainId=1),
    lambda typed: typed["domain"].update(verifyingContract=WALLET),
    lambda typed: typed["domain"].update(salt="0x00"),
    lambda typed: typed["types"][PRIMARY].append({"name": "amount", "type": "string"}),
    lambda typed: typed["types"][PRIMARY].reverse(),
    lambda typed: typed["types"].update(Permit=[]),
    lambda typed: typed.update(extra=1),
    lambda typed: typed.update(extra={1, 2}),
]


@pytest.mark.parametrize("number", range(len(CHANGES)))
def test_an_approval_that_differs_in_any_field_is_refused(number: int) -> None:
    typed = copy.deepcopy(approval_typed_data(GRANTED))
    CHANGES[number](typed)
    assert refused(typed) in ("typed_data", "agent", "network")


@pytest.mark.parametrize(
    ("granted", "rules", "rule"),
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
def test_an_approval_outside_the_signers_terms_is_refused_although_granted(
    granted: AgentApproval, rules: AgentApprovalRules, rule: str
) -> None:
    assert refused(approval_typed_data(granted), granted, rules) == rule


def test_no_other_typed_data_is_signed_and_no_mutation_of_it() -> None:
    chance = random.Random(20_261_122)
    messages = [*typed_messages(WALLET), ("approval", approval_typed_data(GRANTED))]
    for name, message in typed_messages(WALLET):
        assert refused(message) == "typed_data", name
    for _ in range(2_000):
        name, message = chance.choice(messages)
        _, changed = mutated_typed(chance, name, copy.deepcopy(message))
        if changed == approval_typed_data(GRANTED):
            continue
        with pytest.raises(Refused):
            signer().sign(changed, GRANTED)


def test_the_signer_of_steps_signs_no_approval() -> None:
    one = SIGNABLES["approve"]
    with pytest.raises(Refused) as caught:
        LocalSigner(KEY, one.rules, lambda: NONCES).refuse_typed(approval_typed_data(GRANTED), one.grant)
    assert caught.value.verdicts[0].guard == "signer.typed_data"


def test_a_signer_for_another_wallet_is_not_built() -> None:
    with pytest.raises(ConfigError, match=r"wallet\.address"):
        ApprovalSigner(PrivateKey(Account.create()), RULES, At())


@pytest.mark.parametrize(
    "granted",
    [
        replace(GRANTED, valid_until_ms=NOW_S * 1000 + 180 * DAY_MS),
        replace(GRANTED, valid_until_ms=NOW_S * 1000 + 1),
        replace(GRANTED, nonce_ms=NOW_S * 1000 + 60_000),
        replace(GRANTED, nonce_ms=NOW_S * 1000 - 60_000),
    ],
)
def test_an_approval_at_the_edge_of_its_times_is_signed(granted: AgentApproval) -> None:
    assert signer().sign(approval_typed_data(granted), granted)["v"] in (27, 28)


def test_an_approval_other_than_the_one_that_the_owner_confirmed_is_refused() -> None:
    """Every fixed term holds: only the confirmation names another key or another time."""
    for confirmed in (replace(GRANTED, agent_address="0x" + "44" * 20), replace(GRANTED, valid_until_ms=GRANTED.valid_until_ms - 1)):
        assert refused(approval_typed_data(GRANTED), confirmed) == "agent"
