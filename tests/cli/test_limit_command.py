"""Corrections over time and swaps at a price on the command line: the arithmetic, the order's life, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from agent.localchain import LocalChain
from tests import agents
from tests.cli import shapes
from tests.cli.shapes import count, decimal, maybe, one_of, raw, require, text
from tests.cli.tools import Said
from tests.pacing import OFF, ROUNDS, TARGETS

OPTION = {"rounds": count, **dict.fromkeys(("moved", "fees", "impact", "skew", "gas", "waiting", "rest", "total"), decimal)}
PACING = {"chosen": count, "why": text, "options": [OPTION]}
ORDER = {"id": text, "what": text, "until": text, "state": one_of("open", "filled", "cancelled", "expired"), "why": text}
CORRECTION = {
    "id": text,
    "style": one_of("rounds", "twap", "limit"),
    "state": one_of("open", "ended", "cancelled"),
    "why": text,
    "began": text,
    "expires": text,
    "rounds_done": count,
    "rounds_about": count,
    "next": maybe(text),
    **dict.fromkeys(("wish_raw", "moved_raw", "spent_raw"), raw),
    "budget_raw": maybe(raw),
}
SWAP = ("swap", "--in", "WETH", "--out", "USDC", "--amount", "1")


def test_a_plan_shows_what_each_number_of_rounds_costs_and_which_is_chosen(
    anvil_chain: LocalChain, tmp_path: Path, run: Callable[..., Said]
) -> None:
    agents.trusted(anvil_chain, tmp_path, ROUNDS, TARGETS)
    agents.fund(anvil_chain, OFF)
    plan = run("plan", "--json").json
    require({**shapes.PLAN, "pacing": PACING}, plan)
    costs = {option["rounds"]: float(option["total"]) for option in plan["pacing"]["options"]}
    assert list(costs) == [1, 2, 3]
    assert costs[plan["pacing"]["chosen"]] == min(costs.values()) < costs[1]
    assert "round 1 of about" in plan["decision"]["reason"]
    words = run("plan", "--verbose").out
    assert "Rounds against one, in USDC" in words
    assert "all at once" in words
    step = run("rebalance", "--json").json["step"]
    told = run("explain", step).out
    assert "Rounds against one: " in told
    assert "left undone" in told


def test_an_order_is_shown_placed_listed_and_cancelled(anvil_chain: LocalChain, tmp_path: Path, run: Callable[..., Said]) -> None:
    agents.trusted(anvil_chain, tmp_path, {}, TARGETS)
    agents.fund(anvil_chain, {"WETH": 5_000, "USDC": 5_000})
    dry = run(*SWAP, "--limit", "3100", "--until", "4h", "--json")
    assert dry.code == 0, dry.why
    require({**shapes.PLAN, "order": {**ORDER, "id": text}}, dry.json)
    assert dry.json["order"]["id"] == ""
    assert run("limit", "--json").json == {"orders": [], "corrections": []}
    placed = run(*SWAP, "--limit", "3100", "--until", "4h", "--send", "--yes", "--json")
    assert placed.code == 0, placed.why
    assert placed.json["order"]["state"] == "open"
    assert "its price is 29" in placed.json["reason"]
    listed = run("limit", "--json").json
    require({"orders": [ORDER], "corrections": [CORRECTION]}, listed)
    (order,) = listed["orders"]
    assert order["what"] == "sell 1 WETH at 3100 USDC or better"
    assert "sell 1 WETH at 3100 USDC or better" in run("limit").out
    assert run("limit", "--cancel", order["id"]).code == 0
    assert run("limit", "--json").json["orders"][0]["state"] == "cancelled"
    again = run("limit", "--cancel", order["id"], "--json")
    assert (again.code, again.error["kind"]) == (2, "ConfigError")
    for more in (("--limit", "3100"), ("--until", "4h"), ("--wait",)):
        alone = run(*SWAP, *more, "--json")
        assert alone.code == 2
        assert "go together" in alone.error["message"]
