"""The commands with Hyperliquid as the futures venue: doctor, positions, margin, funding, plan, and what is sent and told."""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from agent import app as api
from agent.chain.rpc import Transport
from agent.localchain import LocalChain
from agent.signing import keys
from agent.units import Token
from agent.wiring import context
from tests.cli.tools import CommandResult
from tests.support import agents
from tests.support.futures import EVEN
from tests.support.hyperliquid import AGENT, AGENT_ENV, ETH_AND_BTC, venue_changes, venue_for
from tests.support.hyperliquid_server import DAY_MS, HyperliquidServer

Run = Callable[..., CommandResult]


def funding_paid(run: Run) -> dict[str, Fraction]:
    """Funding of the recorded days by market."""
    paid: dict[str, Fraction] = {}
    for row in run("funding", "--json").json["recorded"]:
        paid[row["symbol"]] = paid.get(row["symbol"], Fraction(0)) + Fraction(row["paid"])
    return paid


def tax_total(years: dict[str, str]) -> Fraction:
    return sum(map(Fraction, years.values()), Fraction(0))


def test_commands_show_send_and_tell_orders_of_hyperliquid(
    chain: LocalChain, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(AGENT_ENV, AGENT.key.hex())
    agents.fund(chain, {"WETH": 50_000, "USDC": 50_000})
    with venue_for(chain) as server:
        agents.agent_config(chain, tmp_path, venue_changes(server, ETH_AND_BTC) | {"tax": {"method": "fifo", "year_limit": "off"}}, EVEN)
        assert run("trust", "--yes", "--json").code == 0
        checks = {row["check"]: row for row in run("doctor", "--json").json["checks"]}
        assert checks["futures account"]["state"] == "ok"
        assert "10000 USDC on the testnet" in checks["futures account"]["finding"]
        assert checks["futures agent"]["state"] == "ok"

        assert checks["futures agent key"]["finding"] == "variable TRIMTAB_TEST_AGENT"
        used = run("delegate", "--send", "--yes")
        assert used.code == 2
        assert "posted for approval before" in used.err, "a key in a variable cannot be replaced by trimtab"

        document = run("margin", "--json").json
        assert document["unknown"] == ""
        assert document["margin"]["value"] == "10000"
        assert [order["symbol"] for order in document["plan"]["orders"]]
        assert document["plan"]["top_up_raw"] == "0"
        words = run("plan")
        assert words.code == 0, words
        assert "futures" in words.out.lower(), words

        done = run("rebalance", "--send", "--yes", "--json").json
        assert done["outcome"] == "done", done
        assert [(sent["kind"], sent["status"]) for sent in done["transactions"]] == [("futures", "final")] * 2
        positions = run("positions", "--json").json["positions"]
        assert {(position["symbol"], position["side"]) for position in positions} == {("ETH", "long"), ("BTC", "short")}
        rates = run("funding", "--json").json
        assert {market["symbol"] for market in rates["markets"]} == {"ETH", "BTC"}
        status = run("status", "--json").json["futures"]
        assert status["unknown"] == ""
        assert status["broken"] == []
        again = run("rebalance", "--send", "--yes", "--json").json
        assert (again["outcome"], again["transactions"]) == ("hold", [])
        assert run("run", "--once", "--send", "--yes").code == 0

        reduced = run("deleverage", "--to", "1x", "--send", "--yes", "--json").json
        assert reduced["outcome"] == "done"
        assert float(run("margin", "--json").json["margin"]["leverage"]) <= 1
        deposit = run("margin", "--deposit", "100", "--send", "--yes")
        assert deposit.code == 2, deposit
        assert "moves no margin at Hyperliquid" in deposit.err + deposit.out, deposit

        sent = run("txs", "--json").json["transactions"]
        assert {
            (transaction["kind"], transaction["status"], transaction["max_fee_wei"], transaction["gas_used"]) for transaction in sent
        } == {("futures", "final", "0", 0)}
        assert run("reconcile", "--json").code == 0
        step = run("history", "--json").json["steps"][0]["step"]
        assert run("explain", step).code == 0
        server.agents = []
        server.move("ETH", "-40/100")
        server.seed("ETH")
        held_up = run("rebalance", "--send", "--yes", "--json").json
        assert (held_up["outcome"], held_up["transactions"]) == ("hold", []), held_up
        assert "trimtab delegate" in held_up["reason"], held_up
        server.read_faults["*"] = 503
        down = run("margin", "--json")
        assert down.code == 10, down
        assert "HTTP 503" in down.json["unknown"], down
        checks = {row["check"]: row for row in run("doctor", "--json").json["checks"]}
        assert checks["futures account"]["state"] == "fail"

        server.read_faults.clear()
        before = run("pnl", "--json").json["tax"]["futures"]
        chain.node.mine_at(chain.now_s() + 3_700)
        paid = [server.pay_funding(coin) for coin in ("BTC", "ETH")]
        unrecorded = funding_paid(run)
        assert run("run", "--once").code == 0
        pnl_document = run("pnl", "--json").json
        period = pnl_document["periods"][0]
        assert (period["deposits"], period["futures"]["transferred"]) == ("0", "0"), "margin at the venue is no deposit from outside"
        assert period["futures"]["profit"] == period["profit"] != "0"
        assert Fraction(period["futures"]["funding"]) == sum(paid) != 0
        fees = [Fraction(fill["fee"]) for sent in (done, reduced) for fill in sent["fills"]]
        assert Fraction(period["futures"]["fees"]) == sum(fees)
        assert len(fees) == 4, "also of orders in the valuation's own block"
        assert tax_total(pnl_document["tax"]["futures"]) == tax_total(before) - sum(paid), "hourly funding is in the year's figure"
        assert funding_paid(run) == unrecorded == dict(zip(("BTC", "ETH"), paid, strict=True))
        assert run("export", "--out", str(tmp_path / "out"), "--json").code == 0
        rows = list(csv.DictReader((tmp_path / "out" / "futures.csv").open()))
        assert [Fraction(row["amount"]) for row in rows if row["event"] == "funding"] == [-transaction for transaction in paid]
        assert {row["symbol"]: abs(Fraction(row["size"])) < 10 for row in rows if row["size"]} == {"ETH": True, "BTC": True}
        assert all(10 < Fraction(row["notional"]) < 50_000 for row in rows if row["notional"])
        assert run("export", "--format", "rotki", "--out", str(tmp_path / "rotki")).code == 0
        assert run("books", "check").code == 0


def test_run_with_an_expired_key__holds_futures_and_trades_spot(
    chain: LocalChain, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(AGENT_ENV, AGENT.key.hex())
    agents.fund(chain, {"WETH": 70_000, "USDC": 30_000})
    with venue_for(chain) as server:
        agents.agent_config(chain, tmp_path, venue_changes(server, ETH_AND_BTC), EVEN)
        assert run("trust", "--yes").code == 0
        server.agents[0].until_ms = server.now_ms + 1_000
        for _ in range(2):
            done = run("run", "--once", "--send", "--yes", "--json")
            assert done.code == 0, done
            assert "trimtab delegate --send" in done.json["decision"]["reason"], done
        assert {transaction["kind"] for transaction in run("txs", "--json").json["transactions"]} == {"approve", "swap"}
        assert "trimtab delegate --send" in run("status", "--json").json["futures"]["blocked"]
        remedy = f"trimtab delegate --config {tmp_path / 'trimtab.toml'} --send"
        assert remedy in run("status").out
        assert remedy in run("margin").out
        checks = {row["check"]: row for row in run("doctor", "--json").json["checks"]}
        assert (checks["futures agent"]["state"], checks["futures agent"]["remedy"]) == ("warn", "trimtab delegate --send")
        assert server.bodies[1:] == [], "nothing but the approval of the first key was posted"


PASSWORD = "seven sober owls at dusk"  # of a keystore in a test


def keystore_agent(chain: LocalChain, server: HyperliquidServer, folder: Path) -> None:
    """A config whose agent key is in a file that is not there yet."""
    changes = venue_changes(server, ETH_AND_BTC)
    futures = changes["futures"]
    assert isinstance(futures, dict)
    del futures["agent_key_env"]
    futures["agent_keystore"] = "agent.json"
    agents.agent_config(chain, folder, changes, EVEN)


def address_in(file: Path) -> str:
    """The address of the key in a keystore, decrypted."""
    return api.wallet_address(file, None, None, api.PasswordSource("TRIMTAB_AGENT_PASSWORD"), None, True)["address"]


def test_an_order_that_rests_is_shown_listed_and_cancelled(
    anvil_chain: LocalChain, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(AGENT_ENV, AGENT.key.hex())
    agents.fund(anvil_chain, {"WETH": 50_000, "USDC": 50_000})
    with venue_for(anvil_chain) as server:
        server.move("ETH", "0")
        limits = {"futures.order_type": "gtc", "futures.order_time": "1h"}
        agents.trusted_config(anvil_chain, tmp_path, venue_changes(server, {"ETH": "100%"}) | limits, EVEN)
        done = run("rebalance", "--send", "--yes")
        assert done.code == 0, (done.out, done.err)
        assert len(server.bodies) == 2, (done.out, done.err)
        server.trade_through("ETH", "1.5")
        assert run("run", "--once", "--send", "--yes").code == 0
        text = " ".join(run("status").out.split())
        assert "Resting order: buy" in text
        assert "1.5 filled, until" in text
        past = [transaction["status"] for row in run("history", "--json").json["steps"] for transaction in row["transactions"]]
        assert past == ["resting"]
        assert "resting" in run("history").out
        listed = run("txs").out
        assert "resting" in listed
        assert "1.5 of" in " ".join(listed.split())
        assert len(run("cancel", "--json").json["transactions"]) == 1
        cancelled = run("cancel", "--send", "--yes", "--json").json
        assert [transaction["status"] for transaction in cancelled["transactions"]] == ["final"]
        assert cancelled["waiting"] == 0
        assert [order.status for order in server.orders if order.cloid] == ["canceled"]


@pytest.fixture
def unapproved(anvil_chain: LocalChain, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[HyperliquidServer]:
    """A wallet with margin at the venue, and no agent."""
    monkeypatch.setenv("TRIMTAB_AGENT_PASSWORD", PASSWORD)
    monkeypatch.setattr(keys, "SCRYPT_N", 2**4)  # that of real keystores is tested in tests/unit/app/start/test_wallet_files.py
    agents.fund(anvil_chain, {"WETH": 50_000, "USDC": 50_000})
    with venue_for(anvil_chain) as server:
        server.agents = []
        server.bodies = []
        server.nonces = {}
        keystore_agent(anvil_chain, server, tmp_path)
        assert run("trust", "--yes").code == 0
        yield server


def test_delegate__creates_and_approves_a_key_that_trades(unapproved: HyperliquidServer, tmp_path: Path, run: Run) -> None:
    server = unapproved
    file = tmp_path / "agent.json"
    without = run("rebalance", "--send", "--yes", "--json")
    assert without.code == 0
    assert "trimtab delegate --send" in without.json["reason"], "spot needs no agent key"
    planned = run("delegate", "--json").json
    assert (planned["outcome"], planned["agent"], planned["replaces"]) == ("planned", None, None)
    assert not file.exists()
    assert server.bodies == [], "without --send nothing is written or posted"
    words = run("delegate").out
    assert "key: a new one" in words
    assert "replaces: none" in words
    assert "cannot withdraw" in words
    assert run("delegate", "--send").code == 2, "without a terminal nobody confirms"

    done = run("delegate", "--days", "30", "--send", "--yes", "--json").json
    assert done["outcome"] == "done"
    [agent] = server.agents
    assert (agent.address, agent.name, agent.until_ms) == (done["agent"].lower(), "trimtab", server.bodies[0]["nonce"] + 30 * DAY_MS)
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.glob("agent.json*")] == ["agent.json"]
    assert address_in(file) == done["agent"]
    traded = run("rebalance", "--send", "--yes", "--json").json
    assert traded["outcome"] == "done", traded
    assert server.signers[-1] == agent.address, traded

    again = run("delegate", "--send", "--yes", "--json").json
    assert again["outcome"] == "done"
    assert again["replaces"] == done["agent"] != again["agent"], "a key is never approved twice"
    [agent] = server.agents
    assert agent.address == again["agent"].lower()
    old = tmp_path / f"agent.json.{done['agent']}"
    assert again["kept"] == str(old)
    assert old.exists()
    assert address_in(file) == again["agent"]
    checks = {row["check"]: row for row in run("doctor", "--json").json["checks"]}
    assert checks["futures agent"]["state"] == "ok"


def test_a_fresh_key_of_ones_own_is_approved_as_it_is(unapproved: HyperliquidServer, tmp_path: Path, run: Run) -> None:
    new_key_document = api.create_wallet(tmp_path / "agent.json", None, api.PasswordSource("TRIMTAB_AGENT_PASSWORD"), None)
    done = run("delegate", "--send", "--yes", "--json").json
    assert (done["outcome"], done["agent"], done["kept"]) == ("done", new_key_document["address"], None)
    assert [agent.address for agent in unapproved.agents] == [new_key_document["address"].lower()]


def test_a_key_that_only_our_records_know_is_not_approved_again(unapproved: HyperliquidServer, tmp_path: Path, run: Run) -> None:
    first = run("delegate", "--send", "--yes", "--json").json["agent"]
    unapproved.prune(first)  # the venue forgets it with its nonces
    second = run("delegate", "--send", "--yes", "--json").json
    assert second["outcome"] == "done"
    assert second["agent"] != first


@pytest.mark.parametrize(("fault", "code"), [("lost", 0), ("late", 0), ("garbled", 0), ("dropped", 11), ("down", 11)])
def test_an_approval_whose_answer_is_lost_is_looked_up(
    unapproved: HyperliquidServer, tmp_path: Path, run: Run, fault: str, code: int
) -> None:
    unapproved.faults = [fault]
    result = run("delegate", "--send", "--yes", "--json")
    assert result.code == code, result
    assert len(unapproved.bodies) <= 1
    assert len(unapproved.agents) == (code == 0)
    assert (tmp_path / "agent.json").exists() == (code == 0)
    if code:
        assert run("delegate", "--send", "--yes").code == 0
        assert (tmp_path / "agent.json").exists()
        assert len(unapproved.agents) == 1


def test_what_the_venue_or_the_owner_refuses_leaves_no_key(
    unapproved: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    wallet = unapproved.wallets.pop(anvil_chain.wallet.address.lower())
    refused = run("delegate", "--send", "--yes")
    assert refused.code == 10
    assert "deposit USDC" in refused.err
    unapproved.wallets[anvil_chain.wallet.address.lower()] = wallet
    assert run("pause", "--reason", "a test").code == 0
    assert run("delegate", "--send", "--yes").code == 10
    assert run("resume").code == 0
    monkeypatch.setenv("TRIMTAB_AGENT_PASSWORD", "short")
    assert run("delegate", "--send", "--yes").code == 2
    assert "documents no action" in run("delegate", "--end", "--send", "--yes").err
    assert unapproved.bodies == []
    assert list(tmp_path.glob("agent.json*")) == []


def test_usdc_of_other_decimals__is_refused_wherever_it_is_read(
    unapproved: HyperliquidServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on BNB Smart Chain, where USDC has 18."""
    read = context.read_tokens

    def as_there(line: Transport, addresses: Sequence[str]) -> tuple[Token, ...]:
        return tuple(
            replace(token_read, decimals=18) if token_read.symbol == "USDC" else token_read for token_read in read(line, addresses)
        )

    monkeypatch.setattr(context, "read_tokens", as_there)
    for words in (
        ("status",),
        ("plan",),
        ("margin",),
        ("doctor",),
        ("trust", "--yes"),
        ("rebalance", "--send", "--yes"),
        ("run", "--once"),
        ("paper", "--once"),
        ("delegate", "--send", "--yes"),
        ("deleverage",),
        ("positions",),
        ("funding",),
        ("invest",),
        ("stop",),
    ):
        result = run(*words)
        assert result.code == 2, (words, result)
        assert "USDC has 18 decimals" in result.out + result.err, (words, result)
    assert unapproved.bodies == []


def test_init_doctor_trust_and_paper__lead_to_a_dry_run(
    chain: LocalChain, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No deposit, no agent, no key: the config of `init`, at the local venue and chain."""
    venue = tmp_path / "venue.toml"
    wallet = chain.wallet.address
    with venue_for(chain) as server:
        server.wallets.pop(wallet.lower())
        server.agents = []
        server.transfers = []
        server.bodies = []
        venue.write_text(f'venue = "hyperliquid"\nurl = "{server.url}"\nnetwork = "testnet"\n[markets]\nWETH = "ETH"\n')
        result = run(
            *("init", "--wallet", wallet, "--target", "WETH=50%", "--target", "USDC=50%", "--rpc", "A=one", "--rpc", "B=two"),
            *("--futures", "moderate", "--futures-venue", str(venue), "--futures-target", "WETH=60%", "--futures-target", "BTC=-40%"),
        )
        assert result.code == 2
        assert "BTC" in result.err, "a market that the file does not have"
        venue.write_text(venue.read_text() + 'WBTC = "BTC"\n')
        result = run(
            *("init", "--wallet", wallet, "--target", "WETH=50%", "--target", "USDC=50%", "--rpc", "A=one", "--rpc", "B=two"),
            *("--futures", "moderate", "--futures-venue", str(venue), "--futures-target", "WETH=60%", "--futures-target", "BTC=-40%"),
            "--json",
        )
        assert result.code == 0, result
        assert [step for step in result.json["next"] if "paper" in step], result
        futures = tomllib.loads((tmp_path / "trimtab.toml").read_text())["futures"]
        assert [(market["symbol"], market.get("asset")) for market in futures["markets"]] == [("ETH", "WETH"), ("BTC", None)]
        agents.agent_config(chain, tmp_path, {"portfolio.max_live_value": "200000", "futures": futures}, EVEN)
        checks = {row["check"]: row for row in run("doctor", "--json").json["checks"]}
        assert (checks["futures account"]["state"], checks["futures agent"]["remedy"]) == ("warn", "trimtab delegate --send")
        assert run("trust", "--yes").code == 0
        paper = run("paper", "--once", "--value", "10000", "--margin", "2000", "--json").json
        holding_by_symbol = {holding["symbol"]: holding for holding in run("status", "--paper", "--json").json["holdings"]}
        assert all(abs(holding["drift_bps"]) <= 20 for holding in holding_by_symbol.values()), (
            "the margin counts in the weight of USDC from the start"
        )
        assert (paper["outcome"], [transaction["status"] for transaction in paper["transactions"]]) == ("done", ["final"] * 2), paper
        assert {(position["symbol"], position["side"]) for position in run("positions", "--paper", "--json").json["positions"]} == {
            ("ETH", "long"),
            ("BTC", "short"),
        }
        assert 1.9 < float(run("margin", "--paper", "--json").json["margin"]["leverage"]) < 2.1
        assert run("plan", "--paper", "--json").json["outcome"] == "hold"
        assert run("positions", "--json").json["positions"] == [] == server.bodies, "nothing was posted, and the real account is empty"
