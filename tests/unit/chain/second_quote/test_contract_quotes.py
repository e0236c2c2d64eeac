"""Second quotes by the venue's contracts: what is asked, which answers count, and who has to agree; the names of web3 6."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import pytest

from agent.chain.rpc import RpcFault
from agent.chain.second_quote import (
    CONTRACT_QUOTER_NAME,
    ContractQuoter,
    NoSecondQuote,
    UnanimousQuoter,
    UniswapPythonQuoter,
    build_quoter,
)
from agent.errors import Retryable
from agent.model import Leg
from agent.venues.kinds.uniswap_v2 import UniswapV2
from agent.venues.kinds.uniswap_v3 import UniswapV3
from tests.support.builders import address
from tests.support.chain_reads.legs import leg
from tests.support.fakes.transport import ScriptedTransport
from tests.support.text import raises_code

V2 = UniswapV2("v2", address("factory"), address("router"))
V3 = UniswapV3("v3", address("factory"), quoter=address("quoter v2"), quoter_v1=address("quoter"))
BLOCK = {"blockHash": "0xabc", "requireCanonical": True}


def words(*values: int | str) -> str:
    return "0x" + "".join(format(value, "064x") if isinstance(value, int) else value[2:].lower().rjust(64, "0") for value in values)


def answering(*answers: object) -> ScriptedTransport:
    """Return a node that gives each call its own answer."""
    each_in_turn = iter(answers)
    return ScriptedTransport(eth_call=lambda _params: next(each_in_turn))


def test_pool_and_price_are_asked_in_one_request_at_the_block() -> None:
    v2 = answering(words(address("deep")), words(32, 2, 5, 77))
    assert ContractQuoter(v2, (V2, V3)).quote(leg(5), 5, "0xabc") == 77
    v3 = answering(words(address("deep")), words(88, 1, 2, 3))
    assert ContractQuoter(v3, (V2, V3)).quote(leg(5, venue="v3"), 5, "0xabc") == 88
    for line, contracts in ((v2, [V2.factory, V2.router]), (v3, [V3.factory, V3.quoter])):
        assert [method for method, _ in line.calls] == ["eth_call"] * 2
        assert [params[0]["to"] for _, params in line.calls] == contracts
        assert [params[1] for _, params in line.calls] == [BLOCK] * 2


POOL = words(address("deep"))


@pytest.mark.parametrize(
    ("answers", "leg", "code", "figure"),
    [
        pytest.param((POOL, words(32, 2, 5, 7)), leg(5, venue="elsewhere"), "venue", "elsewhere", id="foreign venue"),
        pytest.param((POOL, words(32, 2, 5, 7)), leg(5, fee_pips=2500), "fee", "3000 millionths", id="other fee"),
        pytest.param((words(0), words(32, 2, 5, 7)), leg(5), "pool", "", id="no pool"),
        pytest.param((words(2**255), words(1, 2, 3, 4)), leg(5, venue="v3"), "pool", "", id="pool of high bits"),
        pytest.param((POOL, words(64, 2, 5, 7)), leg(5), "answer", "two amounts", id="one amount too few"),
        pytest.param((POOL, words(32, 2, 5)), leg(5), "no_answer", "128 bytes", id="short pair answer"),
        pytest.param((POOL, words(1, 2, 3, 4) + "00"), leg(5, venue="v3"), "no_answer", "128 bytes", id="torn answer"),
        pytest.param((POOL, "0x"), leg(5, venue="v3"), "no_answer", "128 bytes", id="no answer"),
        pytest.param((POOL, RpcFault(3, "execution reverted: SPL")), leg(5, venue="v3"), "quoter", "execution reverted: SPL", id="revert"),
        pytest.param((Retryable("endpoint is down"),), leg(5), "no_answer", "endpoint is down", id="endpoint down"),
    ],
)
def test_an_answer_that_is_no_quote_is_told_in_words(answers: tuple[object, ...], leg: Leg, code: str, figure: str) -> None:
    with raises_code(NoSecondQuote, code, figure):
        ContractQuoter(answering(*answers), (V2, V3)).quote(leg, 5, "0xabc")


@dataclass(frozen=True)
class Says:
    out_raw: int | None

    def quote(self, leg: Leg, amount_in_raw: int, block_hash: str) -> int:
        if self.out_raw is None:
            raise NoSecondQuote("nobody home")
        return self.out_raw

    def sources(self, _: Leg) -> tuple[str, ...]:
        return ("test",)


def test_sources_that_differ_by_one_base_unit_are_no_quote() -> None:
    assert UnanimousQuoter((("a", Says(7)), ("b", Says(7)))).quote(leg(5), 5, "0xabc") == 7
    with raises_code(NoSecondQuote, "quotes_differ", "a 7, b 8"):
        UnanimousQuoter((("a", Says(7)), ("b", Says(8)))).quote(leg(5), 5, "0xabc")


def test_a_source_that_is_silent_leaves_no_quote() -> None:
    with pytest.raises(NoSecondQuote, match="nobody home"):
        UnanimousQuoter((("a", Says(7)), ("b", Says(None)))).quote(leg(5), 5, "0xabc")


def test_the_library_is_asked_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(UniswapPythonQuoter, "is_installed", staticmethod(lambda: True))
    assert [name for name, _ in build_quoter(answering(), (V2,)).quoters] == [CONTRACT_QUOTER_NAME, "uniswap-python"]
    monkeypatch.setattr(UniswapPythonQuoter, "is_installed", staticmethod(lambda: False))
    assert [name for name, _ in build_quoter(answering(), (V2,)).quoters] == [CONTRACT_QUOTER_NAME]


def test_importing_the_library_leaves_web3_as_it_was() -> None:
    code = """
import sys, web3, web3.types
before = {name for name in sys.modules if name.startswith("web3.middleware")}, hasattr(web3.types, "Middleware")
from agent.chain.second_quote import web3_6_names
with web3_6_names():
    import uniswap
assert uniswap.Uniswap
assert hasattr(web3.types, "Middleware") == before[1]
assert "web3.middleware.cache" not in sys.modules
try:
    uniswap.util._get_eth_simple_cache_middleware()
except RuntimeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
