"""The transaction service of a Safe, on loopback: what it is sent, and answers that are no signatures of the call."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import tomlkit

from agent.app.money.safe_service import MAX_ANSWER_BYTES, MAX_CONFIRMATIONS, SafeService
from agent.config.load import parse_config
from agent.errors import ConfigError, Retryable
from agent.localchain.world import dev_accounts
from agent.model import UnsignedTx
from agent.signing.keys import TestAccountKey, load_key
from agent.signing.safe_tx import safe_tx_hash
from tests.support.builders import address
from tests.support.configs.samples import config_text
from tests.support.safe_service import KEY, FakeSafeService, serving

SAFE = address("Safe")
TX = UnsignedTx(31337, 3, address("router"), 2**60, "0x" + "ab" * 9, 0, None, None, 1)
HASH = safe_tx_hash(SAFE, TX)
OWNERS = tuple(account.address for account in dev_accounts()[5:8])


@pytest.fixture
def fake() -> Iterator[FakeSafeService]:
    with serving(FakeSafeService(SAFE, TX.chain_id, OWNERS)) as service:
        yield service


def signature_of(number: int, tx: UnsignedTx = TX) -> bytes:
    return load_key(TestAccountKey(number), tx.chain_id, ask=None).sign_safe_tx(SAFE, tx)


def offer(fake: FakeSafeService, number: int, key: str = KEY) -> None:
    SafeService(fake.url, key).offer(SAFE, TX, HASH, OWNERS[number - 5], signature_of(number))


def test_offer__proposes_the_call_and_adds_later_signatures(fake: FakeSafeService) -> None:
    for number in (5, 6, 6):
        offer(fake, number)
    call = f"/v2/multisig-transactions/{HASH}/"
    confirmations = f"POST /v1/multisig-transactions/{HASH}/confirmations/"
    assert fake.requests == [f"GET {call}", f"POST /v2/safes/{SAFE}/multisig-transactions/", *[f"GET {call}", confirmations] * 2]
    assert fake.signers(HASH) == list(OWNERS[:2])
    assert SafeService(fake.url, KEY).signatures(HASH) == ["0x" + signature_of(number).hex() for number in (5, 6)]


@pytest.mark.parametrize(
    "changes",
    [{"nonce": 4}, {"value_wei": 2**60 - 1}, {"to": address("thief")}, {"data": "0x"}],
    ids=lambda call: str(*call),
)
def test_offer__is_refused_for_a_hash_of_another_call(fake: FakeSafeService, changes: dict[str, object]) -> None:
    """The peer recomputes the hash by itself."""
    with pytest.raises(Retryable, match="HTTP 422"):
        SafeService(fake.url, KEY).offer(SAFE, replace(TX, **changes), HASH, OWNERS[0], signature_of(5))  # type: ignore[arg-type]  # its fields


def test_call_that_the_service_lacks__has_no_signatures(fake: FakeSafeService) -> None:
    assert SafeService(fake.url, KEY).signatures(HASH) == []


@pytest.mark.parametrize(
    ("status", "answer", "reason"),
    [
        pytest.param(500, {}, "HTTP 500", id="server error"),
        pytest.param(308, {}, "HTTP 308", id="redirect"),
        pytest.param(404, b"<html>", "HTTP 404 without JSON", id="page at 404"),
        pytest.param(200, b"<html>", "HTTP 200 without JSON", id="page at 200"),
        pytest.param(200, {"safeTxHash": "0x" + "ab" * 32, "confirmations": []}, "another call", id="other hash"),
        pytest.param(200, {"confirmations": []}, "another call", id="no hash"),
        pytest.param(200, [], "another call", id="list"),
        pytest.param(200, {"safeTxHash": HASH}, "odd answer", id="no confirmations"),
        pytest.param(200, {"safeTxHash": HASH, "confirmations": [{}] * (MAX_CONFIRMATIONS + 1)}, "odd answer", id="too many confirmations"),
        pytest.param(200, b" " * (MAX_ANSWER_BYTES + 1), "too long", id="too long"),
    ],
)
def test_answer__that_lists_no_signatures__is_an_error(fake: FakeSafeService, status: int, answer: object, reason: str) -> None:
    fake.answers = [(status, answer)]
    with pytest.raises(Retryable, match=reason) as caught:
        SafeService(fake.url, KEY).signatures(HASH)
    assert fake.url not in str(caught.value)
    assert "html" not in str(caught.value)
    assert fake.requests == [f"GET /v2/multisig-transactions/{HASH}/"], "no redirect is followed"


def test_failed_request__shows_neither_address_nor_key() -> None:
    with serving(FakeSafeService(SAFE, TX.chain_id, OWNERS)) as fake, pytest.raises(Retryable, match="HTTP 401"):
        offer(fake, 5, key="")
    with pytest.raises(Retryable, match="transaction service: it cannot be reached") as caught:
        offer(fake, 5)
    assert fake.url not in str(caught.value)
    assert KEY not in f"{caught.value!r} {SafeService(fake.url, KEY)!r}"


def config_text_with_wallet(table: dict[str, object]) -> str:
    document = tomlkit.parse(config_text())
    wallet: dict[str, object] = {"address": SAFE, "mode": "propose", "safe": True, **table}
    document["wallet"] = wallet
    return tomlkit.dumps(document)


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ({"safe_service": "http://safe.example"}, "safe_service"),
        ({"safe_service": "https://safe.example/"}, "safe_service"),
        ({"safe_service": "https://safe.example?key=1"}, "safe_service"),
        ({"safe_service": "safe.example"}, "safe_service"),
        ({"safe_service": "https://safe.example", "safe": False}, "safe_service"),
        ({"safe_service_token_env": "SAFE_KEY"}, "safe_service_token_env"),
    ],
)
def test_service_in_the_config__is_an_https_address_of_a_safe(table: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError, match=f"{key}: "):
        parse_config(config_text_with_wallet(table))


@pytest.mark.parametrize(
    "table",
    [
        {"safe_service": "https://safe.example/tx-service/eth", "safe_service_token_env": "SAFE_KEY"},
        {"safe_service": "http://127.0.0.1:8000"},
    ],
    ids=["https", "this machine"],
)
def test_service_in_the_config__is_read(table: dict[str, object]) -> None:
    assert parse_config(config_text_with_wallet(table)).wallet.safe_service == table["safe_service"]
