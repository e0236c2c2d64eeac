"""The venue's contracts: what the doctor compares, and an upgrade that is refused until it is confirmed."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent import app as api
from agent.app.start.trust import pin_all
from agent.chain.tokens import IMPLEMENTATION_SLOTS
from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from agent.localchain.perpetuals import LocalPerps
from agent.model import Halt, HaltCode
from tests.support import agents
from tests.support.futures import EVEN, futures_config_changes
from tests.support.perps import read_now

TWO = {"WETH": "60%", "WBTC": "-40%"}


@pytest.fixture
def perps(perps_chain: LocalPerps) -> LocalPerps:
    """A wallet on its spot targets, with 10,000 of margin."""
    agents.fund(perps_chain.chain, {"WETH": 50_000, "USDC": 50_000})
    perps_chain.deposit(perps_chain.chain.wallet.address, 10_000 * 10**6)
    return perps_chain


def checks(chain: LocalChain, loaded: object) -> dict[str, tuple[str, str]]:
    doctor_document = api.doctor(loaded, transports=[chain.transport], now_s=chain.clock.now_s)  # type: ignore[arg-type]
    return {row["check"]: (row["state"], row["finding"]) for row in doctor_document["checks"]}


def upgraded(chain: LocalChain, proxy: str, to: str) -> None:
    """The proxy's implementation slot of EIP-1967 names another contract."""
    chain.node.ask([("anvil_setStorageAt", [proxy, IMPLEMENTATION_SLOTS[0], "0x" + to[2:].lower().rjust(64, "0")]), ("evm_mine", [])])


def test_the_doctor_compares_collateral_links_and_markets(perps: LocalPerps, tmp_path: Path) -> None:
    chain = perps.chain
    at = perps.addresses
    loaded = agents.trusted_config(chain, tmp_path / "sound", futures_config_changes(perps, TWO), EVEN)
    results = checks(chain, loaded)
    assert results["futures collateral"] == ("ok", "10000 USDC in the vault, 50000 in the wallet, 6 decimals")
    assert results["futures contracts"][0] == results["futures market WETH"][0] == results["futures proxies"][0] == "ok"
    changed = {**futures_config_changes(perps, TWO), "portfolio.numeraire": "WETH"}
    changed["futures"] |= {"exchange": at.account_balance, "collateral": "WETH"}  # type: ignore[operator]
    results = checks(chain, agents.trusted_config(chain, tmp_path / "wrong", changed, EVEN))
    assert results["futures contracts"][0] == "fail"
    assert at.exchange in results["futures contracts"][1]
    assert results["futures collateral"][0] == "fail"
    assert "the vault's collateral" in results["futures collateral"][1]
    swapped = futures_config_changes(perps, TWO)
    first, second = swapped["futures"]["markets"]  # type: ignore[index]
    first["aggregator"] = second["aggregator"]
    results = checks(chain, agents.trusted_config(chain, tmp_path / "swapped", swapped, EVEN))
    assert results["futures market WETH"][0] == "fail"
    assert "its index comes from" in results["futures market WETH"][1]


def test_an_upgraded_venue_is_refused_until_it_is_confirmed(perps: LocalPerps, tmp_path: Path) -> None:
    chain = perps.chain
    house = perps.addresses.clearing_house
    upgraded(chain, house, perps.addresses.exchange)
    loaded = agents.trusted_config(chain, tmp_path, futures_config_changes(perps, TWO), EVEN)
    assert checks(chain, loaded)["proxy futures clearing house"][0] == "ok"
    with agents.reopened_agent(chain, loaded) as agent:
        assert agent.rebalance(send=False).kind is OutcomeKind.PLANNED
        upgraded(chain, house, perps.addresses.vault)
        refused = agent.rebalance(send=True, confirm=agents.yes)
        assert refused.transactions == (), refused.reason
        assert isinstance(refused.decision, Halt), refused.reason
        assert refused.decision.codes == (HaltCode.FUTURES,)
        assert "futures clearing house" in refused.reason
        assert "its implementation differs" in refused.reason
        assert read_now(perps, chain.wallet.address).positions == ()
    state, text = checks(chain, loaded)["proxy futures clearing house"]
    assert state == "fail"
    assert perps.addresses.exchange in text
    rows = {row["role"]: row["state"] for row in pin_all(loaded, [chain.transport])["contracts"]}
    assert rows["implementation of futures clearing house"] == "CHANGED"
    with agents.reopened_agent(chain, loaded) as agent:
        assert agent.rebalance(send=False).kind is OutcomeKind.PLANNED
