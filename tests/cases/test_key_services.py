"""Whole rebalances signed by a key service that never signs the same way twice, its process killed in between too (design 9)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent import wiring
from agent.app.agent import Agent, open_agent
from agent.app.start.doctor.checks import doctor
from agent.app.start.wallet import PasswordSource, wallet_address
from agent.config.loaded import LoadedConfig
from agent.errors import ConfigError, PassingFault, Retryable
from agent.localchain import LocalChain
from agent.localchain.world import WALLET_INDEX
from agent.localchain.world import dev_accounts as accounts
from agent.model import IntentKind, IntentState
from agent.signing.remote_key import RemoteKey, address_from_public_key
from tests.support.agents import (
    ROOMY,
    Changes,
    fund,
    off_target,
    purse,
    require_exact,
    require_exact_rebalance,
    require_rebalance,
    trusted_config,
    yes,
)
from tests.support.endpoints import Answerer, Reply, good, passing_on, serve
from tests.support.records.key_services import KeyService
from tests.support.text import raises_code

TWO = {"WETH": "50%", "USDC": "50%"}
KEYLESS: Changes = ROOMY | {"wallet.test_account": None}


@pytest.fixture
def service() -> Iterator[KeyService]:
    """The wallet's key lies in a service."""
    key_service = KeyService(int(accounts()[WALLET_INDEX].private_key, 16))
    yield key_service
    key_service.close()


@contextmanager
def signing_by(service: KeyService, chain: LocalChain, loaded: LoadedConfig) -> Iterator[Agent]:
    """An agent whose config names no key: the program hands one in."""
    key = RemoteKey(address_from_public_key(service.public_key()), service.sign)
    with open_agent(loaded, transports=[chain.transport], clock=chain.clock, key=key) as agent:
        yield agent


def test_a_rebalance_is_signed_by_a_service(chain: LocalChain, tmp_path: Path, service: KeyService) -> None:
    fund(chain, {"WETH": 10_000})
    with signing_by(service, chain, trusted_config(chain, tmp_path, KEYLESS, TWO)) as agent:
        outcome = require_exact_rebalance(chain, agent)
        assert len(service.asked) == len(outcome.transactions) == 2


@pytest.mark.parametrize("at", ["after:signed", "before:send", "after:send"])
def test_killed_process_of_an_unrepeatable_signature__trades_once(chain: LocalChain, tmp_path: Path, service: KeyService, at: str) -> None:
    """What never left is dropped, what may have left and is nowhere is cancelled at its nonce, what arrived is followed."""
    fund(chain, {"WETH": 10_000})
    loaded = trusted_config(chain, tmp_path, KEYLESS, TWO)
    nonce = purse(chain).nonce

    def die(event: str) -> None:
        if event == at:
            raise KeyboardInterrupt

    with signing_by(service, chain, loaded) as agent, pytest.raises(KeyboardInterrupt):
        agent.rebalance(send=True, confirm=yes, progress=die)
    with signing_by(service, chain, loaded) as agent:
        require_rebalance(agent)
        assert max(off_target(chain, TWO).values()) < 50
        intents = agent.context.store.journal.intents()
        final = [intent for intent in intents if intent.state is IntentState.FINAL]
        assert sorted(intent.tx.nonce for intent in final) == list(range(nonce, purse(chain).nonce)), "each nonce once"
        cancels = [intent for intent in final if intent.kind is IntentKind.CANCEL]
        assert len(cancels) == (at == "before:send")
        assert [intent.kind for intent in final].count(IntentKind.SWAP) == 1


def test_a_key_that_is_handed_in_is_checked_like_any_other(chain: LocalChain, tmp_path: Path, service: KeyService) -> None:
    """Of another wallet it signs nothing, and on a fork only published test keys do: what is signed there is valid elsewhere."""
    loaded = trusted_config(chain, tmp_path, KEYLESS | {"wallet.address": accounts()[8].address}, TWO)
    with signing_by(service, chain, loaded) as agent, pytest.raises(ConfigError, match="the key"):
        agent.resync_nonce()
    stranger = KeyService()
    try:
        fork = trusted_config(chain, tmp_path / "fork", KEYLESS | {"chain.fork": True}, TWO)
        with signing_by(stranger, chain, fork) as agent, pytest.raises(ConfigError, match="test key"):
            agent.resync_nonce()
    finally:
        stranger.close()


REMOTE: Changes = KEYLESS | {"wallet.signer_url_env": "TRIMTAB_SIGNER"}


def open_remote(chain: LocalChain, folder: Path, changes: Changes = REMOTE) -> Agent:
    """An agent whose key is in the remote signer that the environment names."""
    return open_agent(trusted_config(chain, folder, changes, TWO), transports=[chain.transport], clock=chain.clock)


def test_a_rebalance_is_signed_by_a_remote_signer(chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """anvil holds the key and has the methods of a signer."""
    fund(chain, {"WETH": 10_000})
    with serve(passing_on(chain.url or "")) as server:
        monkeypatch.setenv("TRIMTAB_SIGNER", server.url)
        with open_remote(chain, tmp_path) as agent:
            require_exact_rebalance(chain, agent)
        assert [request["method"] for request in server.seen] == ["eth_signTransaction"] * 2


def denied(request: dict[str, Any]) -> Reply:
    error = {"code": -32000, "message": "denied"}
    return Reply(json.dumps({"jsonrpc": "2.0", "id": request["id"], "error": error}).encode())


@pytest.mark.parametrize(
    ("answer", "error", "code"),
    [
        pytest.param(lambda request: Reply(b"overloaded", 503), Retryable, "key_service", id="503"),
        pytest.param(lambda request: Reply(b"", cut="close"), Retryable, "key_service", id="closed"),
        pytest.param(denied, Retryable, "key_service", id="denied"),
        pytest.param(good(lambda method, params: "0x02"), PassingFault, "signature", id="no transaction"),
        pytest.param(lambda request: Reply(b"", delay_s=11), Retryable, "key_service", id="hangs", marks=pytest.mark.slow),
    ],
)
def test_remote_signer_that_refuses__sends_nothing_and_is_retried(
    chain: LocalChain,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: Answerer,
    error: type[Exception],
    code: str,
) -> None:
    fund(chain, {"WETH": 10_000})
    is_ill = [True]
    forward = passing_on(chain.url or "")
    with serve(lambda request: answer(request) if is_ill[0] else forward(request)) as server:
        monkeypatch.setenv("TRIMTAB_SIGNER", server.url)
        with open_remote(chain, tmp_path) as agent:
            before = purse(chain)
            with raises_code(error, code):
                agent.rebalance(send=True, confirm=yes)
            assert purse(chain).nonce == before.nonce
            is_ill[0] = False
            require_exact(chain, agent.rebalance(send=True, confirm=yes), before)


def test_doctor_and_wallet__ask_the_remote_signer_for_the_wallet(
    chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIMTAB_SIGNER", chain.url or "")
    loaded = trusted_config(chain, tmp_path, REMOTE, TWO)
    key_checks = [check for check in doctor(loaded, [chain.transport])["checks"] if check["check"] == "key"]
    assert [(check["state"], check["finding"]) for check in key_checks] == [("ok", "the remote signer signs for the wallet")]
    assert wallet_address(None, None, loaded.path, PasswordSource(), None, verify=True)["verified"]
    stranger = trusted_config(chain, tmp_path / "stranger", REMOTE | {"wallet.address": "0x" + "12" * 20}, TWO)
    key_checks = [check for check in doctor(stranger, [chain.transport])["checks"] if check["check"] == "key"]
    assert [check["state"] for check in key_checks] == ["fail"]
    with pytest.raises(ConfigError, match="no key of"):
        wallet_address(None, None, stranger.path, PasswordSource(), None, verify=True)


@pytest.mark.parametrize("address", ["", "signer:9000", "file:///key"], ids=["missing", "no scheme", "file"])
def test_a_remote_signer_without_a_web_address_is_named(
    anvil_chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("TRIMTAB_SIGNER", address)
    fund(anvil_chain, {"WETH": 10_000})
    with open_remote(anvil_chain, tmp_path) as agent, pytest.raises(ConfigError, match="TRIMTAB_SIGNER is not set to an http"):
        agent.rebalance(send=True, confirm=yes)


@pytest.mark.parametrize(
    "key_source",
    [{"wallet.key_env": "TRIMTAB_KEY"}, {"wallet.keystore": "wallet.json"}, {"wallet.prompt": True}],
    ids=lambda source: next(iter(source)),
)
def test_a_worker_has_no_key_in_its_environment(anvil_chain: LocalChain, tmp_path: Path, key_source: Changes) -> None:
    loaded = trusted_config(anvil_chain, tmp_path, KEYLESS | key_source, TWO)
    with pytest.raises(ConfigError, match="a worker has no keys"):
        wiring.require_key_outside_environment(loaded)


@pytest.mark.parametrize(
    "key_source",
    [{"wallet.signer_url_env": "TRIMTAB_SIGNER"}, {"wallet.keyring": "trimtab/main"}, {"wallet.test_account": 0}, {}],
    ids=["remote signer", "keyring", "test account", "external signer"],
)
def test_a_worker_takes_keys_that_are_elsewhere(anvil_chain: LocalChain, tmp_path: Path, key_source: Changes) -> None:
    wiring.require_key_outside_environment(trusted_config(anvil_chain, tmp_path, KEYLESS | key_source, TWO))
