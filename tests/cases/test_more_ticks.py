"""Amounts beyond the ticks of a snapshot: more are read in one more request, and only what the pools cannot take is refused."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from agent.amm.swap_errors import KnownTicksExceeded
from agent.amm.v3.pool import V3Pool
from agent.app.paper import open_paper
from agent.artifacts import npm_artifact
from agent.chain.providers.endpoint import EndpointProvider
from agent.chain.rpc import RpcFault
from agent.errors import Refused
from agent.execution import evaluation
from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from agent.model import LimitOrder
from agent.planning import proposals
from agent.planning.planner import Quote
from tests.support import lp_on_chain
from tests.support.agents import ROOMY, agent_on, fund, purse, require_exact, require_rebalance, trusted_config, yes
from tests.support.fakes.transport import RecordingTransport
from tests.support.text import raises_code
from tests.support.wallets import QUOTER_V2

TARGETS = {"LINK": "50%", "USDC": "50%"}
THIN = {"venues.uniswap_v2": None, "venues.uniswap_v3.fee_tiers": [10_000], "limits.pool_min_value": "off"}
"""LINK trades in one pool of 400,000 dollars."""
NO_BOUND = {f"limits.{name}": "off" for name in ("price_impact", "plan_cost", "daily_loss")} | {"portfolio.max_live_value": "1000000"}
POOL = "v3 LINK/USDC 10000"
DENSE = "v3 WETH/USDC 500"
LINK = 10**18


def crowd(chain: LocalChain, each_side: int) -> None:
    """Initialises as many neighbouring ticks on each side of the price of the dense pool."""
    spacing = 10
    near = lp_on_chain.tick(chain, DENSE) // 10
    thin = 10**12
    ends = [(near + number) * spacing for number in range(-each_side, each_side + 1)]
    chain.mint_positions(chain.deployed_world.pool_by_name[DENSE], [(low, high, thin) for low, high in pairwise(ends)])


def quoter_answer(chain: LocalChain, pool: str, sold: str, amount_raw: int) -> int:
    """What the deployed QuoterV2 says."""
    info = chain.deployed_world.pool_by_name[pool]
    token_in = chain.tokens[sold].address
    token_out = info.token1.address if info.token0.address == token_in else info.token0.address
    quoter = chain.contract(chain.addresses.quoter_v2, npm_artifact(QUOTER_V2)).functions
    return int(quoter.quoteExactInputSingle((token_in, token_out, amount_raw, info.fee_pips, 0)).call()[0])


def known_ticks(quote: tuple[Any, Quote], pool: str) -> tuple[int, int]:
    """Ticks of the pool that a quote was made from."""
    state = next(pool_state for pool_state in quote[0].snapshot.pools if pool_state.address == pool)
    assert isinstance(state, V3Pool)
    return state.known_from_tick, state.known_to_tick


@pytest.mark.parametrize("amount", [1_000, pytest.param(20_000, marks=pytest.mark.slow), 400_000])
def test_a_quote_goes_on_where_the_ticks_of_the_snapshot_end(chain: LocalChain, tmp_path: Path, amount: int) -> None:
    with agent_on(chain, tmp_path, ROOMY | THIN, TARGETS) as agent:
        step, narrow = agent.quote_with_input("LINK", "USDC", "1")
        two = step.snapshot.http_request_count
        for pool in (chain.address_by_pool[POOL], None):
            quote = agent.quote_with_input("LINK", "USDC", str(amount), pool)
            assert quote[1].amount_out_raw == quoter_answer(chain, POOL, "LINK", amount * LINK)
            further = quote[0].snapshot.http_request_count - two
            assert further == (0 if quote[1].price_impact_bps < 200 else 1)
            assert (known_ticks(quote, chain.address_by_pool[POOL]) == known_ticks((step, narrow), chain.address_by_pool[POOL])) == (
                further == 0
            )


@pytest.mark.parametrize("sold", ["WETH", pytest.param("USDC", marks=pytest.mark.slow)])
def test_a_quote_passes_hundreds_of_ticks_to_the_wei(chain: LocalChain, tmp_path: Path, sold: str) -> None:
    crowd(chain, 200)
    amount = 6_000 if sold == "WETH" else 18_000_000
    with agent_on(chain, tmp_path, ROOMY, {"WETH": "50%", "USDC": "50%"}) as agent:
        bought = "USDC" if sold == "WETH" else "WETH"
        step, quote = agent.quote_with_input(sold, bought, str(amount), chain.address_by_pool[DENSE])
        assert quote.amount_out_raw == quoter_answer(chain, DENSE, sold, amount * 10 ** chain.tokens[sold].decimals)
        pool = next(pool for pool in step.snapshot.pools if pool.address == chain.address_by_pool[DENSE])
        assert isinstance(pool, V3Pool)
        assert len(pool.ticks) > 400
        assert quote.price_impact_bps > 1_500


def test_what_a_pool_cannot_take_is_refused_with_how_much_it_can(chain: LocalChain, tmp_path: Path) -> None:
    with agent_on(chain, tmp_path, ROOMY | THIN, TARGETS) as agent:
        for pool, amount in ((chain.address_by_pool[POOL], 10**23), (None, 10**7)):
            with pytest.raises(Refused, match="only") as caught:
                agent.quote_with_input("LINK", "USDC", str(amount), pool)
            assert not isinstance(caught.value, KnownTicksExceeded)
            fits = caught.value.remedy.removeprefix("sell at most ").removesuffix(" LINK at a time").replace(",", "")
            assert agent.quote_with_input("LINK", "USDC", fits, pool)[1].amount_out_raw > 0


def test_a_plan_goes_on_where_the_ticks_of_the_snapshot_end(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"LINK": 300_000})
    with agent_on(chain, tmp_path, ROOMY | THIN | NO_BOUND, TARGETS) as agent:
        two = agent.step_input().snapshot.http_request_count
        planned = agent.plan()
        assert planned.plan is not None
        assert planned.step_input.snapshot.http_request_count == two + 1
        assert max(leg.impact_bps for leg in planned.plan.legs) > 1_000
        before = purse(chain)
        outcome = require_rebalance(agent)
        require_exact(chain, outcome, before)
        assert outcome.plan is not None
        assert max(abs(share - 5_000) for token, share in outcome.plan.weights_after_bps if share) <= 10


def test_manual_swap__goes_on_there_and_two_operators_agree(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"LINK": 300_000})
    lines = [EndpointProvider(chain.url or "", operator, 30) for operator in ("alpha", "beta")]
    with agent_on(chain, tmp_path, ROOMY | THIN | NO_BOUND, TARGETS, transports=lines) as agent:
        before = purse(chain)
        outcome = agent.swap("LINK", "USDC", "12000", send=True, confirm=yes)
        assert outcome.kind is OutcomeKind.DONE, outcome.reason
        assert outcome.step_input.snapshot.http_request_count == 3 * len(lines)
        require_exact(chain, outcome, before)


def test_paper_goes_on_there_too_and_is_filled_on_more_ticks(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"LINK": 300_000})
    loaded = trusted_config(chain, tmp_path, ROOMY | THIN | NO_BOUND | {"chain.confirmations": 1}, TARGETS)
    with open_paper(loaded, clock=chain.clock, transports=[chain.transport]) as paper:
        outcome = require_rebalance(paper)
        plan = outcome.plan
        swap = outcome.transactions[-1].receipt
        assert plan is not None
        assert swap is not None
        assert max(abs(share - 5_000) for _, share in plan.weights_after_bps if share) <= 10
        assert swap.net_transfers(chain.wallet.address)[chain.tokens["USDC"].address] == sum(leg.amount_out_raw for leg in plan.legs)


def test_an_order_that_waits_goes_on_there_too(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"LINK": 300_000})
    with agent_on(chain, tmp_path, ROOMY | THIN | NO_BOUND, TARGETS) as agent:
        link = chain.tokens["LINK"].address
        usdc = chain.tokens["USDC"].address
        step, quote = agent.quote_with_input("LINK", "USDC", "20000")
        price = Fraction(quote.amount_out_raw, 20_000 * LINK)
        order = LimitOrder("test", link, usdc, 20_000 * LINK, price, chain.clock.now_s() + 3_600, chain.clock.now_s())
        outcome = evaluation.evaluate(agent.context.readers, proposals.single_order_proposer(order))
        assert outcome.kind is OutcomeKind.PLANNED, outcome.reason
        assert outcome.step_input.snapshot.http_request_count == step.snapshot.http_request_count
        waits = evaluation.evaluate(agent.context.readers, proposals.single_order_proposer(replace(order, price=price * 2)))
        assert waits.kind is OutcomeKind.HOLD
        assert "its price" in waits.reason


def test_a_plan_within_the_ticks_of_the_snapshot_reads_no_more(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"LINK": 3_000, "USDC": 1_500})
    with agent_on(chain, tmp_path, ROOMY | THIN | NO_BOUND, TARGETS) as agent:
        two = agent.step_input().snapshot.http_request_count
        planned = agent.plan()
        assert planned.kind is OutcomeKind.PLANNED
        assert planned.step_input.snapshot.http_request_count == two


@pytest.mark.parametrize("how", ["lies", "refuses"])
def test_lie_about_more_ticks__leaves_what_was_read(chain: LocalChain, tmp_path: Path, how: str) -> None:
    telling = False

    def alter(method: str, params: list[Any], answer: Any) -> Any:
        if not telling or method != "eth_call" or len(params[0]["data"]) < 1_000 or not isinstance(answer, str):
            return answer
        return RpcFault(-32000, "out of gas") if how == "refuses" else answer[:-2] + ("00" if answer[-2:] != "00" else "01")

    liar = RecordingTransport(chain.transport, "liar", alter)
    with agent_on(chain, tmp_path, ROOMY | THIN, TARGETS, transports=[chain.transport, liar]) as agent:
        step = agent.step_input()
        telling = True
        agent.step_input = lambda: step  # type: ignore[method-assign]  # it tells the truth about the snapshot alone
        with raises_code(KnownTicksExceeded, "known_ticks"):
            agent.quote_with_input("LINK", "USDC", "400000", chain.address_by_pool[POOL])
        telling = False
        assert agent.quote_with_input("LINK", "USDC", "400000", chain.address_by_pool[POOL])[1].amount_out_raw == quoter_answer(
            chain, POOL, "LINK", 400_000 * LINK
        )
