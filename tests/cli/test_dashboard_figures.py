"""Pages of the dashboard over a store that traded: each figure and each chart is that of the command, and no secret is shown."""

from __future__ import annotations

import json
import os
import re
import time
from fractions import Fraction
from html import unescape
from importlib.util import find_spec
from typing import Any

import pytest

if (find_spec("fastapi") is None or find_spec("uvicorn") is None) and not os.environ.get("CI"):
    pytest.skip("the dashboard needs its extra", allow_module_level=True)

from agent.app.dashboard import live_documents, stored_documents
from agent.localchain.nodes import free_port
from agent.web.access import Access
from agent.web.api.gate import API_PREFIX
from agent.web.pages import PAGES, value_at
from agent.web.reach import Reach
from tests.cli.tools import SECRET, Desk
from tests.support.api import Client
from tests.support.dashboards import PATIENCE_S, InProcessDocumentCache, Served
from tests.support.samples import slow

PERIODS = ("day", "week", "month", "year", "all")
TAX = '\n[tax]\nmethod = "fifo"\nyear_limit = "off"\n'
OPINIONS = '\n[second_opinions]\nservices = ["cow"]\n'


def below(documents: Any, path: str, *keys: str) -> set[str]:
    """The paths of these keys of each row of a list."""
    return {f"{path}.{number}.{key}" for number in range(len(value_at(documents, path))) for key in keys}


def stand_still(desk: Desk) -> None:
    """Keep the newest block: an idle local chain mines every 10 s."""
    desk.node.mine_at(int(time.time()))
    desk.node.rpc("evm_setAutomine", False)
    while time.time() < desk.node.now_s():  # a block of the future has an age of another form
        time.sleep(0.05)


def compared(desk: Desk, page: str, documents: dict[str, Any]) -> tuple[set[str], str]:
    """Compare a page, read anew after a login, with documents of commands at the same block; return the paths of its figures, and it."""
    access = Access(Reach(port=1))
    access.set_users({1: ("ann", False)})
    cookie = f"trimtab-1={access.begin_session(1)}"
    with Served(access, InProcessDocumentCache(str(desk.config), desk.config.with_name("trimtab.db"))) as served:
        end = time.monotonic() + PATIENCE_S
        names = set[str]()
        while not names | {"pnl"} >= documents.keys():  # each read of the page has ended; "now" takes the place of "pnl"
            assert time.monotonic() < end, names
            paths = served.compared(page, documents, Cookie=cookie)
            names = {of.partition(".")[0] for of in paths}
        return paths, unescape(served.ask(page, Cookie=cookie)[2].decode())


def test_plan__with_trades_worst_case_tax_and_verdicts(desk: Desk) -> None:
    desk.config.write_text(desk.config.read_text() + TAX + OPINIONS)
    desk.ask("run", "--once")
    stand_still(desk)
    plan = desk.ask("plan")
    documents = {"plan": plan, "status": desk.ask("status")}  # the weights of now are beside those after
    paths, text = compared(desk, "/plan", documents)
    assert plan["second_opinions"]
    assert all(
        "does not know chain 31337 (CoW)" in second_opinion["text"] and second_opinion["text"] in text
        for second_opinion in plan["second_opinions"]
    )
    expected_paths = below(
        documents, "plan.legs", "token_in", "token_out", "venue", "amount_in_raw", "amount_out_raw", "min_out_raw", "impact_bps"
    )
    expected_paths |= below(documents, "plan.verdicts", "guard", "measured", "limit")
    expected_paths |= {f"plan.cost.{name}" for name in ("fees", "impact", "skew", "gas", "approvals", "total")}
    expected_paths |= {f"plan.weights_after_bps.{symbol}" for symbol in plan["weights_after_bps"]}
    expected_paths |= {f"plan.weights_before_bps.{symbol}" for symbol in plan["weights_before_bps"]}
    expected_paths |= {f"plan.{name}" for name in ("outcome", "reason", "block", "expires_block", "turnover", "worst_case")}
    assert len(plan["legs"]) > 1
    assert len(plan["verdicts"]) > 30
    assert float(plan["worst_case"]) > float(plan["cost"]["total"]) > 0
    assert plan["tax"]["disposals"]
    assert paths >= expected_paths | {"plan.tax.gain"}


@pytest.mark.slow
def test_pages__of_a_traded_portfolio_with_their_charts(desk: Desk) -> None:
    desk.ask("rebalance", "--send", "--yes")
    desk.ask("orders", "set", "--yes", "WETH", "--stop-loss", "20%", "--take-profit", "9000")
    desk.ask("orders", "set", "--yes", "LINK", "--entry", "12")
    desk.ask("run", "--once")
    desk.ask("request", "pause", "reason=smoke")
    desk.ask("request", "resume")
    stand_still(desk)
    profit = {period: desk.ask("pnl", "--period", period, "--limit", "1") for period in PERIODS}
    documents = {
        "status": desk.ask("status"), "history": desk.ask("history", "--limit", "100"), "lots": desk.ask("books", "lots"),
        "pnl": profit, "now": live_documents(str(desk.config), ["now"])["now"], "run": desk.ask("health", want=15),
        "orders": desk.ask("orders"), "alerts": desk.ask("alerts"), "controls": desk.ask("controls"),
    }  # fmt: skip
    pages = {
        "/": ("status", "history", "pnl", "now", "run", "alerts", "orders"),
        "/assets": ("status", "lots", "orders", "alerts"),
        "/controls": ("controls",),
    }
    paths_by_page = {page: compared(desk, page, {name: documents[name] for name in names}) for page, names in pages.items()}
    overview, text = paths_by_page["/"]
    periods = (
        "profit",
        "twr_bps",
        "hold_return_bps",
        "benchmark_return_bps",
        "against_holding",
        "costs.total",
        "trades",
        "refusals",
        "alerts",
    )
    assert overview >= {f"now.pnl.{period}.periods.0.{key}" for period in PERIODS for key in periods}
    columns = ("symbol", "amount", "price", "day_bps", "weight_bps", "target_bps", "band_bps.0", "band_bps.1", "value")
    assert overview >= below(documents, "status.holdings", *columns)
    moved = documents["history"]["steps"][1]["execution"]["amounts"]
    assert overview >= {f"history.steps.1.execution.amounts.{symbol}" for symbol in moved}
    assert {symbol: amount for symbol, amount in moved.items() if not amount.startswith("-")}.keys() == {
        leg["token_out"] for leg in desk.ask("explain", documents["history"]["steps"][1]["step"])["legs"]
    }
    assert overview >= {f"history.steps.1.cost.{name}" for name in ("total", "fees", "impact", "gas")}
    assert documents["history"]["steps"][2]["outcome"] == "approved"
    assert "history.steps.2.cost.total" in overview
    assert re.search(r"Last rebalance, .*Sold.*Bought.*Cost.*Approvals.*Against plan.*Outcome", " ".join(text.split()))
    assert re.search(r"(Bought|Sold) [−-]", " ".join(text.split())) is None, "the word says the sign"
    assets, weights = paths_by_page["/assets"]
    levels = {
        f"alerts.assets.{number}.{key}": alert_asset["symbol"] == "USDC"
        for number, alert_asset in enumerate(documents["alerts"]["assets"])
        for key in ("alert_low", "to_low_bps", "alert_high", "to_high_bps")
    }
    for page_figures in (overview, assets):
        shown_of_numeraire = [path in page_figures for path, is_numeraire in levels.items() if is_numeraire]
        assert page_figures >= {path for path, is_numeraire in levels.items() if not is_numeraire}
        assert shown_of_numeraire == [False] * 4, "the price of the numeraire in itself does not move"
    require_charts(text, weights, documents)
    assert {order["kind"] for order in documents["orders"]["orders"]} == {"entry", "stop_loss", "take_profit"}
    assert assets >= below(documents, "orders.orders", "subject", "kind", "stage", "level", "price", "distance_bps", "terms")
    assert assets >= below(documents, "lots.assets", "amount", "entry_price", "price", "cost", "value", "unrealised", "realised")
    assert assets >= below(documents, "alerts.assets", "price")
    controls, _ = paths_by_page["/controls"]
    assert {control["kind"] for control in documents["controls"]["controls"]} == {"pause", "resume"}
    assert controls >= below(documents, "controls.controls", "requested", "kind", "requested_by", "origin", "state", "reason")
    assert "controls.controls.1.arguments.0.value" in controls


def test_value_and_profit_of_now_are_of_the_moment_of_the_status(desk: Desk) -> None:
    desk.ask("run", "--once")
    desk.ask("localchain", "--port", desk.about["url"].rpartition(":")[2], "--move", "WETH=+2%")
    documents = live_documents(str(desk.config))
    stored = stored_documents(str(desk.config))
    now = documents["now"]["pnl"]["all"]
    before = stored["pnl"]["all"]
    assert now["value"] == documents["status"]["total_value"]
    assert now["until"] > before["until"]
    assert Fraction(now["value"]) > Fraction(before["value"])
    [period] = now["periods"]
    assert Fraction(period["profit"]) == Fraction(now["value"]) - Fraction(period["start_value"])
    series = documents["now"]["series"]
    assert series["times_s"][:-1] == stored["series"]["times_s"]
    assert Fraction(series["values"][-1]) == Fraction(now["value"])
    assert Fraction(series["hold_values"][-1]) == Fraction(period["start_value"]) + Fraction(period["hold_profit"])
    assert stored_documents(str(desk.config))["pnl"]["all"] == before, "nothing of it is recorded"


def require_charts(overview: str, assets: str, documents: dict[str, Any]) -> None:
    """Compare value and holding over time, and weights with bands and targets, with the documents of the commands."""
    (value,) = (json.loads(chart_text) for chart_text in re.findall(r'data-value-chart="(\{.*?\})"', overview))
    weights = [json.loads(chart_text) for chart_text in re.findall(r'data-chart="(\{.*?\})"', assets)]
    past = documents["history"]["values"][::-1]
    present = documents["now"]["pnl"]["all"]
    [whole] = present["periods"]
    assert len(past) > 1
    assert [Fraction(point) for point in value["line"]] == [*(Fraction(point["value"]) for point in past), Fraction(present["value"])]
    assert Fraction(value["hold"][-1]) == Fraction(whole["start_value"]) + Fraction(whole["hold_profit"])
    assert len(value["marks"]) == whole["rebalances"]
    assert {weight["name"]: (weight["line"], weight["band"]) for weight in weights} == {
        holding["symbol"]: (
            [point["weights_bps"].get(holding["symbol"], 0) / 100 for point in past],
            [bps / 100 for bps in (*holding["band_bps"], holding["target_bps"])],
        )
        for holding in documents["status"]["holdings"]
    }


@pytest.mark.parametrize("answers", [False, *slow([True])])
def test_page_or_api_answer__has_no_endpoint_secret(desk: Desk, answers: bool) -> None:
    desk.ask("run", "--once")
    token = desk.ask("token", "add", "all", "--scope", "read", "--scope", "plan")["token"]
    assert SECRET in desk.config.read_text()
    if not answers:
        desk.edit((desk.about["url"], f"http://127.0.0.1:{free_port()}"))
    with Served(board=InProcessDocumentCache(str(desk.config), desk.config.with_name("trimtab.db"))) as served:
        client = Client(served, token)
        paths = [f"{API_PREFIX}/{name}" for name in ("status", "plan", "alerts", "orders", "endpoints", "settings")]
        document_by_path = {path: client.ask(path) for path in paths}
        assert {answer.status for answer in document_by_path.values()} == ({200} if answers else {200, 503})
        pages = {page.path: served.ask(page.path) for page in PAGES}
        assert answers or b'class="alarm" role="alert">Not read' in pages["/"][2]
    page_answers = [answer.body + repr(answer.headers).encode() for answer in document_by_path.values()]
    page_answers += [body + repr(headers).encode() for _, headers, body in pages.values()]
    assert not [text for text in page_answers if SECRET.encode() in text]
