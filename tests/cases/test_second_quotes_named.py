"""Doctor and plans name who quoted a swap besides our own arithmetic, and who did not."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.app.start.doctor.checks import doctor
from agent.chain import second_quote
from agent.chain.second_quote import UniswapPythonQuoter
from agent.localchain import LocalChain
from tests.support.agents import ROOMY, fund, reopened_agent, trusted_config

TARGETS = {"WETH": "50%", "USDC": "50%"}
VENUES = {"uniswap_v2", "uniswap_v3"}


def rows(chain: LocalChain, folder: Path) -> dict[str, tuple[str, str]]:
    """State and finding of the rows about second quotes, by venue."""
    document = doctor(folder / "trimtab.toml", [chain.transport])
    named = {row["check"]: (row["state"], row["finding"]) for row in document["checks"]}
    return {name.removeprefix("second quote "): row for name, row in named.items() if name.startswith("second quote ")}


def planned(chain: LocalChain, folder: Path) -> str:
    with reopened_agent(chain, trusted_config(chain, folder, ROOMY, TARGETS)) as agent:
        plan = agent.plan().plan
        assert plan is not None
        return next(verdict.measured_text for verdict in plan.verdicts if verdict.guard == "second_quote_deviation")


def test_both_sources_are_named(anvil_chain: LocalChain, tmp_path: Path) -> None:
    fund(anvil_chain, {"WETH": 10_000})
    assert planned(anvil_chain, tmp_path) == "0 bps; quoted by the venue's contracts and uniswap-python"
    assert rows(anvil_chain, tmp_path) == dict.fromkeys(VENUES, ("ok", "quoted by the venue's contracts and uniswap-python"))


def test_a_missing_library_is_named(anvil_chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(UniswapPythonQuoter, "is_installed", staticmethod(lambda: False))
    fund(anvil_chain, {"WETH": 10_000})
    assert planned(anvil_chain, tmp_path) == "0 bps; quoted by the venue's contracts"
    text = "quoted by the venue's contracts; uniswap-python is not installed"
    assert rows(anvil_chain, tmp_path) == dict.fromkeys(VENUES, ("ok", text))


def test_a_quote_that_differs_and_one_that_fails_are_warnings(
    anvil_chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fund(anvil_chain, {"WETH": 10_000})
    trusted_config(anvil_chain, tmp_path, ROOMY, TARGETS)
    exact = second_quote.UnanimousQuoter.quote
    monkeypatch.setattr(second_quote.UnanimousQuoter, "quote", lambda self, *request: exact(self, *request) + 1)
    assert all(state == "warn" and "base units" in finding for state, finding in rows(anvil_chain, tmp_path).values())

    def fail(*_: object) -> int:
        raise second_quote.NoSecondQuote("the venue's quoter refused: no")

    monkeypatch.setattr(second_quote.UnanimousQuoter, "quote", fail)
    assert rows(anvil_chain, tmp_path) == dict.fromkeys(VENUES, ("warn", "the venue's quoter refused: no"))
