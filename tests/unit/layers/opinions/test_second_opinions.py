"""[second_opinions]: aggregators say beside a plan what they would pay. Their answers may be false, late or missing."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from pydantic import TypeAdapter

from agent.config.load import parse_config
from agent.config.variables import VARIABLES_KEY, Variables
from agent.errors import ConfigError
from agent.execution.evaluation import evaluate_input_once
from agent.execution.step_context import StepOutcome
from agent.layers.config import LayerTables
from agent.layers.opinions import services
from agent.layers.opinions.config import SecondOpinionsTable
from agent.layers.opinions.documents import LivePlanKeys, live_plan_keys, trades_of
from agent.layers.opinions.services import Sale, ask_services
from agent.planning.proposals import propose_rebalance
from agent.units import NATIVE
from tests.support.builders import OWNER, raw, step_input, token, v2_pool, with_snapshot
from tests.support.configs.samples import config_text
from tests.support.plans import R, Swap, plan_of, with_leg
from tests.support.text import mentions
from tests.support.tokens import USDC, WETH

SALE = Sale(WETH.address, USDC.address, 10**18)
BASE = 8453
KEY = "a secret key"
Lie = Callable[[dict[str, Any]], bytes | None]


class Aggregators:
    """A server that answers as the documents of 0x, KyberSwap and CoW say, or lies."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Answer truly and at once, and forget who asked."""
        self.paid: dict[str, int] = {}
        self.asked: list[tuple[str, dict[str, Any], dict[str, str]]] = []
        self.status = 200
        self.pause_s = 0.0
        self.lie: Lie = lambda _: None

    def zero_x(self, ask: dict[str, Any]) -> dict[str, Any]:
        return {
            "blockNumber": "38900000", "buyAmount": str(self.paid["0x"]), "buyToken": ask["buyToken"].lower(),
            "fees": {"integratorFee": None, "zeroExFee": None, "gasFee": None}, "gas": "288079", "gasPrice": "7062490",
            "issues": {"allowance": None, "balance": None, "simulationIncomplete": False, "invalidSourcesPassed": []},
            "liquidityAvailable": True, "minBuyAmount": "1", "route": {"fills": [], "tokens": []}, "sellAmount": ask["sellAmount"],
            "sellToken": ask["sellToken"].lower(), "totalNetworkFee": "2034555051960", "zid": "0x111111111111111111111111",
        }  # fmt: skip

    def kyberswap(self, ask: dict[str, Any]) -> dict[str, Any]:
        summary = {
            "tokenIn": ask["tokenIn"].lower(), "amountIn": ask["amountIn"], "amountInUsd": "3000.5", "tokenOut": ask["tokenOut"].lower(),
            "amountOut": str(self.paid["kyberswap"]), "amountOutUsd": "2999.25", "gas": "221000", "gasPrice": "7062490",
            "gasUsd": "0.0047", "extraFee": {"feeAmount": "0", "chargeFeeBy": "", "isInBps": False, "feeReceiver": ""}, "route": [[]],
        }  # fmt: skip
        router = "0x6131B5fae19EA4f9D964eAc0408E4408b66337b5"
        return {"code": 0, "message": "successfully", "data": {"routeSummary": summary, "routerAddress": router}, "requestId": "1"}

    def cow(self, ask: dict[str, Any]) -> dict[str, Any]:
        """A tenth of what is sold pays for gas, and the rest buys in proportion."""
        fee = int(ask["sellAmountBeforeFee"]) // 10
        quote = {
            "sellToken": ask["sellToken"].lower(), "buyToken": ask["buyToken"].lower(), "receiver": None,
            "sellAmount": str(int(ask["sellAmountBeforeFee"]) - fee), "buyAmount": str(self.paid["cow"] * 9 // 10), "validTo": 1764000000,
            "appData": "0x" + "0" * 64, "feeAmount": str(fee), "kind": "sell", "partiallyFillable": False, "sellTokenBalance": "erc20",
            "buyTokenBalance": "erc20", "signingScheme": "eip712",
        }  # fmt: skip
        return {"quote": quote, "from": ask["from"], "expiration": "2026-01-01T00:00:00Z", "id": 1, "verified": False}


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[Aggregators, str]]:
    aggregators = Aggregators()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            self.answer(parts.path, dict(parse_qsl(parts.query)))

        def do_POST(self) -> None:
            self.answer(self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def answer(self, path: str, ask: dict[str, Any]) -> None:
            aggregators.asked.append((path, ask, {name.lower(): value for name, value in self.headers.items()}))
            kinds = {
                "/swap/allowance-holder/price": aggregators.zero_x,
                "/base/api/v1/routes": aggregators.kyberswap,
                "/base/api/v1/quote": aggregators.cow,
            }
            document = kinds[path](ask)
            body = aggregators.lie(document) or json.dumps(document).encode()
            self.send_response(aggregators.status)
            self.send_header("Location", self.path)
            self.end_headers()
            for byte in body if aggregators.pause_s else (body,):
                time.sleep(aggregators.pause_s)
                try:
                    self.wfile.write(bytes([byte]) if isinstance(byte, int) else byte)
                    self.wfile.flush()
                except OSError:
                    return

        def log_message(self, *_: object) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    yield aggregators, f"http://127.0.0.1:{listener.server_port}"
    listener.shutdown()
    listener.server_close()


@pytest.fixture
def aggregators(server: tuple[Aggregators, str], monkeypatch: pytest.MonkeyPatch) -> Aggregators:
    aggregator_server, url = server
    aggregator_server.reset()
    monkeypatch.setattr(services, "SERVICES", {name: replace(service, url=url) for name, service in services.SERVICES.items()})
    return aggregator_server


def planned() -> StepOutcome:
    """A rebalance on Base that sells WETH for USDC."""
    step = step_input(values={"WETH": 6_000, "USDC": 4_000})
    step = with_snapshot(step, head=replace(step.snapshot.head, chain_id=BASE))
    return evaluate_input_once(step, propose_rebalance, None)


def tables(*names: str) -> LayerTables:
    table = {"services": names} | ({"zero_x_env": "ZERO_X_API_KEY"} if "0x" in names else {})
    return LayerTables(second_opinions=SecondOpinionsTable.model_validate(table, context={VARIABLES_KEY: Variables(ZERO_X_API_KEY=KEY)}))


def answer(name: str = "kyberswap") -> int | str:
    """Return what a service would pay, or why it is not known."""
    return ask_services([name], KEY, BASE, [SALE])[0][name]


def test_service__says_how_much_more_it_pays_without_the_wallet(aggregators: Aggregators) -> None:
    outcome = planned()
    assert outcome.plan is not None
    ((spent, bought),) = trades_of(outcome.plan, outcome.step_input.portfolio).values()
    aggregators.paid = {"0x": bought + bought * 12 // 100_000, "kyberswap": bought, "cow": bought - bought * 3 // 10_000}
    keys = live_plan_keys(tables("0x", "kyberswap", "cow"), outcome)
    (opinion,) = TypeAdapter(LivePlanKeys).validate_python(keys)["second_opinions"]
    assert (opinion["sell"], opinion["buy"]) == ({"WETH": str(spent[WETH.address])}, "USDC")
    assert opinion["planned_raw"] == str(bought)
    assert [answer["more_bps"] for answer in opinion["answers"]] == ["1.2", "0", "-3"]
    assert opinion["text"] == "Elsewhere, WETH to USDC: +1.2 bps (0x), +0 bps (KyberSwap), -3 bps (CoW); before gas"
    (zero_x,) = [request for request in aggregators.asked if "sellAmount" in request[1]]
    assert zero_x[1] == {
        "chainId": "8453", "sellToken": WETH.address, "buyToken": USDC.address, "sellAmount": str(spent[WETH.address]),
    }  # fmt: skip
    assert (zero_x[2]["0x-api-key"], zero_x[2]["0x-version"]) == (KEY, "v2")
    others = [request for request in aggregators.asked if request is not zero_x]
    assert len(others) == 2
    assert KEY not in str(others)
    assert OWNER.lower() not in str(aggregators.asked).lower()


def changed(**fields: object) -> Lie:
    def change(document: dict[str, Any]) -> None:
        document["data"]["routeSummary"].update(fields)

    return change


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        (changed(tokenOut=WETH.address), "other tokens"),
        (changed(tokenIn=[WETH.address]), "other tokens"),
        (changed(amountIn="1"), "another amount"),
        (changed(amountOut=3000.5), "amountOut"),
        (changed(amountOut="3000.5"), "amountOut"),
        (changed(amountOut=3000), "amountOut"),
        (changed(amountOut="-3000"), "amountOut"),
        (changed(amountOut="9" * 79), "amountOut"),
        (changed(amountOut="0"), "nothing"),
        (lambda document: document.update(data=[]), "amountIn"),
        (lambda _: b"[" * 100_000, "no JSON"),
        (lambda _: b'{"data": \xff}', "no JSON"),
        (lambda _: b" " * (services.MAX_ANSWER_BYTES + 1), "too long"),
    ],
)
def test_an_odd_answer_is_refused_by_name(aggregators: Aggregators, lie: Lie, reason: str) -> None:
    aggregators.paid = {"kyberswap": 3_000_000_000}
    assert answer() == 3_000_000_000
    aggregators.lie = lie
    assert reason in str(answer())


@pytest.mark.parametrize("name", ["0x", "cow"])
@pytest.mark.parametrize("status", [302, 307, 429, 500])
def test_redirect_or_error__is_named_and_not_followed(aggregators: Aggregators, status: int, name: str) -> None:
    aggregators.paid = {name: 1}
    aggregators.status = status
    assert answer(name) == f"HTTP {status}"
    assert len(aggregators.asked) == 1


def test_pair_without_a_route__is_named(aggregators: Aggregators) -> None:
    aggregators.paid = {"0x": 1}
    aggregators.lie = lambda document: json.dumps({"liquidityAvailable": False, "zid": document["zid"]}).encode()
    assert answer("0x") == "odd answer: it has no route"


def test_service_without_its_key__is_not_asked(aggregators: Aggregators) -> None:
    assert ask_services(["0x"], "", BASE, [SALE]) == [{"0x": "its key is not set"}]
    assert not aggregators.asked


@pytest.mark.parametrize("name", ["kyberswap", "cow"])
def test_service_that_does_not_know_the_chain__is_not_asked(aggregators: Aggregators, name: str) -> None:
    assert ask_services([name], "", 31_337, [SALE]) == [{name: "does not know chain 31337"}]
    assert not aggregators.asked


def test_key_that_is_no_header__is_not_in_the_reason(aggregators: Aggregators) -> None:
    reason = ask_services(["0x"], f"{KEY}\n", BASE, [SALE])[0]["0x"]
    assert isinstance(reason, str)
    assert KEY not in reason
    assert not aggregators.asked


def test_slow_server__is_waited_for_no_longer_than_the_limit(aggregators: Aggregators, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "TIMEOUT_S", 0.3)
    aggregators.paid, aggregators.pause_s = {"kyberswap": 1, "cow": 1}, 0.05
    start_s = time.monotonic()
    (slow, later) = ask_services(["kyberswap", "cow"], "", BASE, [SALE, SALE])
    assert time.monotonic() - start_s < 1
    assert all("slow" in str(text) or "no answer within 0.3 s" in str(text) for text in slow.values())
    assert later == dict.fromkeys(("kyberswap", "cow"), "no answer within 0.3 s")


def test_collected_routes__count_for_the_token_bought() -> None:
    wbtc = token("WBTC")
    dai = token("DAI")
    pools = [v2_pool(WETH, USDC, 3_000), v2_pool(wbtc, USDC, 60_000), v2_pool(USDC, dai, 1)]
    step = step_input({"WETH": 2_500, "WBTC": 2_500, "USDC": 2_500, "DAI": 2_500}, pools=pools)
    sold_raw = raw(1, WETH)
    tenth = raw("0.1", wbtc)
    plan = plan_of(
        step,
        [
            Swap(pools[0], WETH.address, sold_raw, sink=R),
            Swap(pools[1], wbtc.address, tenth, sink=R),
            Swap(pools[2], USDC.address, source=R),
            Swap(pools[0], WETH.address, 2 * sold_raw),
        ],
    )
    changes = plan.wallet_changes()
    trades = trades_of(plan, step.portfolio)
    assert trades == {
        dai.address: ({WETH.address: sold_raw, wbtc.address: tenth}, changes[dai.address]),
        USDC.address: ({WETH.address: 2 * sold_raw}, changes[USDC.address]),
    }
    wrapping = with_leg(plan, 3, token_in=NATIVE, token_out=WETH.address)
    assert trades_of(wrapping, step.portfolio) == {dai.address: trades[dai.address]}


def test_without_the_table_or_a_trade_nobody_is_asked(aggregators: Aggregators) -> None:
    assert live_plan_keys(LayerTables(), planned()) == {}
    outcome = evaluate_input_once(step_input(), propose_rebalance, None)
    assert live_plan_keys(tables("cow"), outcome) == {}
    assert not aggregators.asked


@pytest.mark.parametrize(
    ("table", "field"),
    [
        ("services = []", "services"),
        ('services = ["1inch"]', "services"),
        ('services = ["cow", "cow"]', "services"),
        ('services = ["0x"]', "zero_x_env"),
        ('services = ["cow"]\nzero_x_env = "ZERO_X_API_KEY"', "zero_x_env"),
        ('services = ["cow"]\nurl = "http://127.0.0.1"', "url"),
    ],
)
def test_a_mistake_in_the_table_is_named(table: str, field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(f"{config_text()}\n[second_opinions]\n{table}\n")
    assert mentions(caught.value.message, "second_opinions", field)
