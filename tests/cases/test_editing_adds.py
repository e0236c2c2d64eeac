"""A token comes into a running bot: found, tried, priced and pinned with the yes that writes the config, or refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agent import wiring
from agent.app.start import trust
from agent.chain.tokens import IMPLEMENTATION_SLOTS
from agent.config.load import load_config
from agent.config.tables.chain import ChainTable
from agent.config.writing.edits import ConfigChanges
from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from agent.model import Verdict
from tests.support.agents import agent_config, reopened_agent, yes
from tests.support.markets.venue_kinds import add_pool
from tests.support.on_chain.bad_tokens import replace_token
from tests.support.on_chain.editing import TARGETS, EditedRun
from tests.support.stores import pins
from tests.support.text import mentions
from tests.support.venues import Venue, Venues


def link(chain: LocalChain, **more: str) -> ConfigChanges:
    """LINK for a tenth; `more` are keys of it."""
    keys = tuple((f"portfolio.assets.LINK.{key}", value) for key, value in more.items())
    return ConfigChanges(added_assets=(("LINK", chain.tokens["LINK"].address, "10%"),), targets=(("WETH", "40%"),), key_settings=keys)


def test_added_token__is_shown_priced_pinned_and_planned(chain: LocalChain, tmp_path: Path) -> None:
    bot = EditedRun(chain, tmp_path)
    with wiring.open_store_offline(bot.loaded) as (store, _):
        before = pins(store)
        declined = bot.edit(link(chain, feed=chain.feed_addresses["LINK"]), answer=False, pins_new=True)
        assert declined.state == "declined"
        assert pins(store) == before
        done = bot.edit(link(chain, feed=chain.feed_addresses["LINK"]), pins_new=True)
        assert (done.state, done.next_commands, done.new_tokens) == ("written", (), declined.new_tokens)
        came = {address: code_hash for address, code_hash, at_s in pins(store) if (address, code_hash, at_s) not in before}
    assert came == {row["address"]: row["code_hash"] for row in done.new_tokens.contracts}
    assert chain.tokens["LINK"].address in came
    pools = [row for row in done.new_tokens.contracts if row["liquidity"]]
    assert pools
    assert all(row["liquidity"].endswith(" USDC") and "LINK" in row["role"] for row in pools)
    priced, tried = done.new_tokens.notes
    assert mentions(priced, "LINK", "feed: round")
    assert mentions(tried, "LINK was")
    with reopened_agent(chain, load_config(bot.file)) as agent:
        planned = agent.plan()
        assert planned.kind is OutcomeKind.PLANNED, planned
        assert planned.plan is not None, planned
        assert chain.tokens["LINK"].address in {leg.token_out for leg in planned.plan.legs}
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.DONE
        assert chain.balance("LINK") > 0


def test_added_token_without_feed__is_priced_by_its_pools(chain: LocalChain, tmp_path: Path) -> None:
    bot = EditedRun(chain, tmp_path)
    priced, _ = bot.edit(link(chain), pins_new=True).new_tokens.notes
    assert mentions(priced, "LINK", "twap", "1800 s")
    assert "v3 " in priced
    with reopened_agent(chain, load_config(bot.file)) as agent:
        assert agent.plan().kind is OutcomeKind.PLANNED


def test_an_added_token_is_pinned_by_no_machine_on_a_live_chain(chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bot = EditedRun(chain, tmp_path)
    account = next(line for line in bot.text.splitlines() if line.startswith("test_account"))
    live = bot.text.replace(account, 'keystore = "wallet.json"')
    bot.file.write_text(live.replace("[chain]\n", f'[chain]\nsingle_operator = "{chain.transport.operator}"\n', 1))
    monkeypatch.setattr(ChainTable, "is_local", property(lambda _: False))
    with wiring.open_store_offline(bot.loaded) as (store, _):
        before = pins(store)
        done = bot.edit(link(chain, feed=chain.feed_addresses["LINK"]), pins_new=True, is_unreviewed=True)
        assert done.state == "written"
        assert "trimtab trust" in done.next_commands[0]
        assert pins(store) == before


def test_token_without_price_or_with_tax__is_not_added(chain: LocalChain, tmp_path: Path) -> None:
    bot = EditedRun(chain, tmp_path)
    unpriced = bot.refused(replace(link(chain), key_settings=(("reference.kind", '["feed"]'),)), pins_new=True)
    assert mentions(unpriced.message, "LINK", "feed", "has no")
    assert "--set portfolio.assets.LINK.feed=0x" in unpriced.remedy
    taxed = replace_token(chain, "TAXED", "FeeOnTransfer", "TAXED", "TAXED", 18, 500)
    sets = (("portfolio.assets.TAXED.feed", chain.feed_addresses["TAXED"]),)
    refused = bot.refused(
        ConfigChanges(added_assets=(("TAXED", taxed, "10%"),), targets=(("WETH", "40%"),), key_settings=sets), pins_new=True
    )
    assert mentions(refused.message, "TAXED is not")
    with wiring.open_store_offline(bot.loaded) as (store, _):
        assert taxed not in store.trust.pins()


def test_the_refusal_of_a_new_token_without_code_reads_no_text(chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bot = EditedRun(chain, tmp_path)
    chain.node.rpc("anvil_setStorageAt", chain.tokens["LINK"].address, IMPLEMENTATION_SLOTS[0], "0x" + "00" * 12 + "13" * 20)
    new_link = link(chain, feed=chain.feed_addresses["LINK"])
    assert "implementation of LINK at 0x1313" in bot.refused(new_link, pins_new=True).message

    def reworded(guard: str, _: str, limit: str, passed: bool) -> Verdict:
        return Verdict(guard, "an address without code", limit, passed)

    monkeypatch.setattr(trust, "Verdict", reworded)
    assert mentions(bot.refused(new_link, pins_new=True).message, "hold no code: an address without code")


def test_a_new_token_shows_the_depth_of_its_v4_pools(venues: Venues, tmp_path: Path) -> None:
    chain = venues.chain
    bot = EditedRun(chain, tmp_path)
    for pair in (("LINK", "WETH"), ("LINK", "USDC"), ("WETH", "USDC")):
        add_pool(venues, Venue.V4, pair, 1_000_000, (500, 10))
    v4 = {"kind": "uniswap_v4", "factory": venues.manager.address, "quoter": venues.quoter.address, "tiers": [[500, 10]]}
    agent_config(chain, tmp_path, {"execution.router": "rebalancer", "venues.+": [v4]}, TARGETS)
    rows = bot.edit(link(chain, feed=chain.feed_addresses["LINK"]), answer=False).new_tokens.contracts
    (manager,) = [row for row in rows if row["address"] == venues.manager.address]
    within_two_percent = 1_000_000 * ((1 - 1.02**-0.5) + (1 - 0.98**0.5))
    depth = f"V4 0.05 %: {within_two_percent:.0f} USDC"
    assert set(manager["liquidity"].split("; ")) == {f"LINK/WETH {depth}", f"LINK/USDC {depth}"}
    assert all(" V4 " not in row["liquidity"] for row in rows if row is not manager)
