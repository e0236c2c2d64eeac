"""One of two operators lags or freezes: nothing is signed on its old block, and it is named (T19)."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from agent.app.agent import Agent
from agent.app.start.doctor.checks import doctor
from agent.app.start.trust import pin_all
from agent.chain.quorum import INTERVAL_BLOCKS, NoQuorum
from agent.chain.rpc import HASHED_HEADER_FIELDS, header_verifies
from agent.errors import EXIT_RETRYABLE
from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from tests.support.agents import ROOMY, agent_config, fund, meanwhile, purse, reopened_agent, require_rebalance, trusted_config, yes
from tests.support.endpoints import forged_header, newest
from tests.support.fakes.clock import chain_clock
from tests.support.fakes.transport import AlterAnswer, RecordingTransport
from tests.support.text import mentions, raises_code
from tests.support.worlds import price_now


def freeze(transport: RecordingTransport) -> int:
    """Let the endpoint stay at its newest block until it thaws, or is sent a transaction: it sees its own. Return the height."""
    height = int(transport.line.call("eth_blockNumber", []), 16)

    def ask(method: str, params: list[Any]) -> tuple[str, list[Any]]:
        if any(call == "eth_sendRawTransaction" for call, _ in transport.batches[-1]):
            thaw(transport)
            return method, params
        return method, [hex(height) if param == "latest" else param for param in params]

    transport.ask = ask
    return height


def thaw(transport: RecordingTransport) -> None:
    """Let the endpoint follow the chain again."""
    transport.ask = lambda method, params: (method, params)


def newest_forged(ahead: int) -> AlterAnswer:
    """Return a forged newest header, which is also shown by its number; older blocks stay true."""
    forged: dict[str, Any] = {}

    def alter(method: str, params: list[Any], answer: Any) -> Any:
        if method == "eth_getBlockByNumber" and params[0] == "latest":
            forged.update(forged_header(answer, ahead))
        is_newest = method == "eth_getBlockByNumber" and params[0] in ("latest", forged.get("number"))
        return dict(forged) if is_newest else answer

    return alter


HELD: dict[str, dict[str, int | Fraction]] = {"erc20": {"WETH": 60_000, "USDC": 30_000}, "native": {"WETH": 0, "USDC": 30_000}}
TARGETS = {"WETH": "50%", "USDC": "50%"}
COIN = {"portfolio.assets.0.address": "native", "portfolio.assets.0.symbol": "ETH", "limits.native_top_up": "0.1"}
ONE_POOL = {"venues.uniswap_v2": None, "venues.uniswap_v3.fee_tiers": [500]}
POOL = "v3 WETH/USDC 500"
MAX_LAG = 3
NUMBERS = {name for name, is_number in HASHED_HEADER_FIELDS if is_number}
HEADER = {*dict(HASHED_HEADER_FIELDS), "hash"}


def each_lag(*lags: int, also: Sequence[tuple[str, int]]) -> pytest.MarkDecorator:
    """The first lag for a wallet of tokens, and these; what is left of both wallets at every lag takes long."""
    quick = {("erc20", lags[0]), *also}
    both = [(wallet, lag) for wallet in HELD for lag in lags]
    return pytest.mark.parametrize(
        ("wallet", "lag"), [endpoint if endpoint in quick else pytest.param(*endpoint, marks=pytest.mark.slow) for endpoint in both]
    )


beyond = each_lag(4, 15, 50, also=[("native", 15)])
within = each_lag(MAX_LAG, 2, 1, also=[("native", 1)])


def rich(chain: LocalChain, wallet: str) -> dict[str, object]:
    """A wallet with something to rebalance; the changes of its config."""
    fund(chain, HELD[wallet])
    chain.set_native(20 * 10**18)
    return ROOMY | ONE_POOL | (COIN if wallet == "native" else {})


def moves_on(chain: LocalChain, blocks: int) -> None:
    """So many blocks; in the first WETH rises by more than 5 % in the pool."""
    token1 = chain.deployed_world.pool_by_name[POOL].token1
    before = price_now(chain, POOL)
    begin = chain.w3.eth.block_number
    chain.swap(POOL, "USDC", 12_500_000 * 10**6)
    rise = price_now(chain, POOL) / before if token1 == chain.tokens["USDC"].address else before / price_now(chain, POOL)
    assert Fraction(105, 100) < rise < Fraction(120, 100)
    chain.mine(blocks - (chain.w3.eth.block_number - begin))
    assert chain.w3.eth.block_number - begin == blocks


def require_nothing_signed(agent: Agent) -> None:
    assert all(intent.tx_hash is None for intent in agent.context.store.journal.intents())


@beyond
def test_nothing_is_signed_on_the_block_of_one_that_froze(chain: LocalChain, tmp_path: Path, wallet: str, lag: int) -> None:
    loaded = trusted_config(chain, tmp_path, rich(chain, wallet), TARGETS)
    frozen = RecordingTransport(chain.transport, "slow")
    with reopened_agent(chain, loaded, [chain.transport, frozen]) as agent:
        assert agent.plan().kind is OutcomeKind.PLANNED
        height = freeze(frozen)
        moves_on(chain, lag)
        before = purse(chain)
        with raises_code(NoQuorum, "lag", f"{lag} blocks", f"slow is at block {height}", f"local is at block {height + lag}"):
            agent.rebalance(send=True, confirm=yes)
        require_nothing_signed(agent)
        assert purse(chain) == before
        states = {
            endpoint_document["operator"]: (endpoint_document["state"], endpoint_document["why"]) for endpoint_document in agent.endpoints()
        }
        assert states["slow"][0] == "lagging"
        assert mentions(states["slow"][1], f"{lag} blocks", f"block {height + lag}")
        assert states["local"][0] == "in service"
        thaw(frozen)
        assert agent.plan().kind is not OutcomeKind.HALT
        assert {endpoint_document["state"] for endpoint_document in agent.endpoints()} == {"in service"}


@within
def test_a_lag_within_its_limit_trades(chain: LocalChain, tmp_path: Path, wallet: str, lag: int) -> None:
    loaded = trusted_config(chain, tmp_path, rich(chain, wallet), TARGETS)
    frozen = RecordingTransport(chain.transport, "slow")
    with reopened_agent(chain, loaded, [chain.transport, frozen]) as agent:
        freeze(frozen)
        chain.mine(lag)
        outcome = require_rebalance(agent)
        assert outcome.step_input.snapshot.operators == ("local", "slow")


@beyond
def test_one_that_froze_after_the_snapshot_stops_the_signing(chain: LocalChain, tmp_path: Path, wallet: str, lag: int) -> None:
    loaded = trusted_config(chain, tmp_path, rich(chain, wallet), TARGETS)
    frozen = RecordingTransport(chain.transport, "slow")

    def happens() -> None:
        freeze(frozen)
        moves_on(chain, lag)

    with reopened_agent(chain, loaded, [chain.transport, frozen]) as agent:
        before = purse(chain)
        with raises_code(NoQuorum, "lag", "slow"):
            agent.rebalance(send=True, confirm=meanwhile(happens))
        require_nothing_signed(agent)
        assert purse(chain).raw == before.raw


def test_one_of_three_that_froze_is_left_out_and_named(chain: LocalChain, tmp_path: Path) -> None:
    loaded = trusted_config(chain, tmp_path, rich(chain, "erc20"), TARGETS)
    frozen = RecordingTransport(chain.transport, "slow")
    beta = RecordingTransport(chain.transport, "beta")
    with reopened_agent(chain, loaded, [frozen, chain.transport, beta]) as agent:
        freeze(frozen)
        chain.mine(50)
        outcome = agent.plan()
        assert outcome.step_input.snapshot.operators == ("beta", "local")
        assert [q.address for q in outcome.step_input.snapshot.unreadable_items] == ["slow"]
        assert agent.endpoints()[0]["state"] == "lagging"
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.DONE
        thaw(frozen)
        agent.plan()
        assert agent.endpoints()[0]["state"] == "in service"


def test_header__verifies_as_mined_with_no_field_altered(chain: LocalChain) -> None:
    chain.swap(POOL, "USDC", 10**6)
    height = chain.w3.eth.block_number
    header = chain.transport.call("eth_getBlockByNumber", [hex(height), False])
    assert header_verifies(header, height)
    assert not header_verifies(header, height + 1)
    assert not header_verifies(None, height)
    altered = {name: value for name, value in header.items() if name in HEADER and value is not None}
    assert len(altered) >= 16
    for name, value in altered.items():
        assert not header_verifies(
            {**header, name: hex(int(value, 16) + 1) if name in NUMBERS else value[:-1] + "fe"[value[-1] == "f"]}, height
        )
        assert not header_verifies({**header, name: None}, height)


@pytest.mark.parametrize("when", ["before the snapshot", pytest.param("after the snapshot", marks=pytest.mark.slow)])
def test_frozen_and_lying_endpoint__are_no_majority(chain: LocalChain, tmp_path: Path, when: str) -> None:
    """Two of three show a block that is 20 blocks old, and the price has risen since; only one liar is needed for it (T32)."""
    loaded = trusted_config(chain, tmp_path, rich(chain, "erc20"), TARGETS)
    slow = RecordingTransport(chain.transport, "slow")
    liar = RecordingTransport(chain.transport, "liar")

    def happens() -> None:
        freeze(slow)
        freeze(liar)
        moves_on(chain, 20)

    chain.node.rpc("anvil_setBlockTimestampInterval", 12)
    chain.mine(INTERVAL_BLOCKS)
    with reopened_agent(chain, loaded, [slow, chain.transport, liar]) as agent:
        if when == "before the snapshot":
            happens()
        before = purse(chain)
        with raises_code(NoQuorum, "lag", "20 blocks", "slow", "liar", "local"):
            agent.rebalance(send=True, confirm=yes if when == "before the snapshot" else meanwhile(happens))
        require_nothing_signed(agent)
        assert purse(chain).raw == before.raw


SKEWS = {"9 s slow": -9, "30 s slow": -30, "600 s slow": -600, "right": 0, "9 s fast": 9, "set back": 0, "suspended": 0}


@pytest.mark.parametrize(
    "clock", [name if name in ("9 s slow", "set back") else pytest.param(name, marks=pytest.mark.slow) for name in SKEWS]
)
def test_a_wrong_clock_does_not_hide_a_newer_header(chain: LocalChain, tmp_path: Path, clock: str) -> None:
    """Two of three show a block that is 7 blocks of 2 s old; a clock 9 s slow would call that 5 s, and a block of 12 s is never old."""
    lag = 7
    loaded = trusted_config(chain, tmp_path, rich(chain, "erc20"), TARGETS)
    slow = RecordingTransport(chain.transport, "slow")
    liar = RecordingTransport(chain.transport, "liar")
    lost_s = 0
    machine = chain_clock(chain, SKEWS[clock], monotonic_s=lambda: chain.now_s() - lost_s)
    chain.node.rpc("anvil_setBlockTimestampInterval", 2)
    chain.mine(INTERVAL_BLOCKS)
    with reopened_agent(chain, loaded, [slow, chain.transport, liar], clock=machine) as agent:
        freeze(slow)
        freeze(liar)
        moves_on(chain, lag)
        machine.advance(-600 if clock == "set back" else 0)
        lost_s = 14 if clock == "suspended" else 0
        before = purse(chain)
        with raises_code(NoQuorum, "lag", f"{lag} blocks", "slow", "liar", "local"):
            agent.rebalance(send=True, confirm=yes)
        require_nothing_signed(agent)
        assert purse(chain).raw == before.raw


@pytest.mark.parametrize("ahead", [4, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_a_head_that_one_of_two_made_up_is_traded_on_by_nobody(chain: LocalChain, tmp_path: Path, ahead: int) -> None:
    loaded = trusted_config(chain, tmp_path, rich(chain, "erc20"), TARGETS)
    lies: list[int] = [0]
    liar = RecordingTransport(chain.transport, "liar", newest(number=lambda height: height + lies[0]))
    with reopened_agent(chain, loaded, [chain.transport, liar]) as agent:
        lies[0] = ahead
        with raises_code(NoQuorum, "lag", "local", "liar"):
            agent.rebalance(send=True, confirm=yes)
        require_nothing_signed(agent)
        assert {endpoint_document["operator"]: bool(endpoint_document["why"]) for endpoint_document in agent.endpoints()} == {
            "local": True,
            "liar": True,
        }


def test_header_one_of_three_made_up__stops_nothing(chain: LocalChain, tmp_path: Path) -> None:
    """Its hash is that of its fields, so only the clock tells that no four blocks have been mined since the others' newest."""
    loaded = trusted_config(chain, tmp_path, rich(chain, "erc20"), TARGETS)
    liar = RecordingTransport(chain.transport, "liar", newest_forged(4))
    beta = RecordingTransport(chain.transport, "beta")
    result = liar.call("eth_getBlockByNumber", ["latest", False])
    assert header_verifies(result, chain.w3.eth.block_number + 4)
    with reopened_agent(chain, loaded, [liar, chain.transport, beta]) as agent:
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.DONE
        assert "4 blocks ahead" in agent.endpoints()[0]["why"]


@pytest.mark.parametrize("ahead", [pytest.param(4, marks=pytest.mark.slow), 1_000_000])
def test_a_head_that_one_of_three_made_up_stops_nothing(chain: LocalChain, tmp_path: Path, ahead: int) -> None:
    loaded = trusted_config(chain, tmp_path, rich(chain, "erc20"), TARGETS)
    liar = RecordingTransport(chain.transport, "liar", newest(number=lambda height: height + ahead))
    beta = RecordingTransport(chain.transport, "beta")
    with reopened_agent(chain, loaded, [liar, chain.transport, beta]) as agent:
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.DONE
        assert f"{ahead} blocks ahead" in agent.endpoints()[0]["why"]


def named(rows: list[dict[str, str]]) -> dict[str, str]:
    return {row["check"]: row["state"] for row in rows if row["check"].startswith("endpoint")}


def test_the_doctor_names_the_one_of_two_that_froze(chain: LocalChain, tmp_path: Path) -> None:
    rpc = [{"url": chain.url, "operator": operator} for operator in ("local", "slow")]
    frozen = RecordingTransport(chain.transport, "slow")
    loaded = agent_config(chain, tmp_path, {"chain.quorum": 2, "chain.rpc": rpc}, TARGETS)
    pin_all(loaded, [chain.transport, frozen])
    freeze(frozen)
    chain.mine(15)
    doctor_document = doctor(loaded, [chain.transport, frozen], chain.clock.now_s)
    assert named(doctor_document["checks"]) == {"endpoint local": "ok", "endpoint slow": "fail"}
    assert doctor_document["exit"] == EXIT_RETRYABLE
    assert {endpoint["operator"]: endpoint["state"] for endpoint in doctor_document["endpoints"]} == {
        "local": "in service",
        "slow": "lagging",
    }
