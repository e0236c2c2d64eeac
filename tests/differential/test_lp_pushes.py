"""T11 on the deployed contracts: somebody pushes the pool just before our action and brings it back; what we lose at most."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from agent.amm.lp import positions
from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from agent.model import ConfirmedPosition, LpAction, Provide
from tests.support import agents, lp_on_chain
from tests.support.agents import USD
from tests.support.on_chain.lp_actions import V2, V3, config_with_targets

SLIPPAGE = Fraction(3, 1_000)
Prices = tuple[Fraction, Fraction]


def prices(chain: LocalChain, of: LpAction | ConfirmedPosition) -> Prices:
    """Dollars per base unit of both tokens."""
    named = {token.address: token for token in chain.tokens.values()}
    price0, two = (chain.deployed_world.prices_usd[named[at].symbol] / Fraction(10) ** named[at].decimals for at in (of.token0, of.token1))
    return price0, two


def worth(raw: tuple[int, int], at: Prices) -> Fraction:
    return raw[0] * at[0] + raw[1] * at[1]


def planned(chain: LocalChain, tmp_path: Path, pool: str, own: list[ConfirmedPosition], **wishes: str) -> LpAction:
    with agents.agent_on(chain, tmp_path, config_with_targets(chain, pool, own, **wishes)) as agent:
        outcome = agent.plan()
        assert outcome.kind is OutcomeKind.PLANNED, outcome.reason
        assert outcome.plan is not None
        [action] = outcome.plan.layer_actions
        return action


def push(chain: LocalChain, pool: str, usd: int) -> tuple[str, int]:
    """Buys WETH with dollars, or sells it for negative `usd`; what undoes it: the token and amount it got."""
    symbol, other = ("USDC", "WETH") if usd > 0 else ("WETH", "USDC")
    raw = int(abs(usd) / chain.deployed_world.prices_usd[symbol] * 10 ** chain.tokens[symbol].decimals)
    before = chain.balance(other, chain.whale.address)
    chain.swap(pool, symbol, raw)
    return other, chain.balance(other, chain.whale.address) - before


def acts(chain: LocalChain, action: LpAction) -> lp_on_chain.LiquidityMove | None:
    """What it did; None where the contracts said no."""
    try:
        return lp_on_chain.act(chain, action)
    except RuntimeError as error:
        assert any(phrase in str(error) for phrase in ("slippage", "INSUFFICIENT"))
        return None


@pytest.mark.parametrize(("pool", "sizes"), [(V3, (100, 2_000, 4_000, 9_000)), (V2, (5, 40, 80, 300))])
@pytest.mark.parametrize("up", [1, -1])
def test_liquidity_bought_in_a_sandwich__is_within_slippage(
    chain: LocalChain, tmp_path: Path, pool: str, sizes: tuple[int, ...], up: int
) -> None:
    own = [lp_on_chain.provide_v2(chain, V2, 100)] if pool == V2 else []
    action = planned(chain, tmp_path, pool, own)
    assert isinstance(action, Provide)
    at = prices(chain, action)
    went = 0
    stopped = 0
    for thousands in sizes:
        mark = chain.snapshot()
        before = worth(positions.owned_amounts(lp_on_chain.read(chain, own[0]), *at), at) if own else Fraction(0)
        back = push(chain, pool, up * thousands * 1_000)
        done = acts(chain, action)
        if done is None:
            stopped += 1
        else:
            went += 1
            chain.swap(pool, *back)
            place = (
                own[0]
                if own
                else lp_on_chain.confirmed_position(chain.deployed_world.pool_by_name[pool], action.contract, done.token_id, (1, 1))
            )
            overpaid = worth(positions.owned_amounts(lp_on_chain.read(chain, place), *at), at) - before
            paid = -worth(done.moved, at)
            assert overpaid >= paid * (1 - SLIPPAGE), f"{thousands} thousand: paid {float(paid)}, got {float(overpaid)}"
        chain.revert(mark)
    assert went >= 1
    assert stopped >= 1, "what goes beyond the band is stopped by the minimums"


@pytest.mark.parametrize(("pool", "sizes"), [(V3, (100, 2_000, 9_000)), (V2, (5, 80, 300))])
@pytest.mark.parametrize("up", [1, -1])
def test_liquidity_taken_in_a_sandwich__pays_its_worth_or_stays(
    chain: LocalChain, tmp_path: Path, pool: str, sizes: tuple[int, ...], up: int
) -> None:
    own = lp_on_chain.provide_v2(chain, V2, 2_500) if pool == V2 else lp_on_chain.provide_v3(chain, V3, -30, 30, 2_500)
    action = planned(chain, tmp_path, pool, [own], share="0%")
    at = prices(chain, action)
    stopped = 0
    fair = worth(positions.owned_amounts(lp_on_chain.read(chain, own), *at), at)
    for thousands in sizes:
        mark = chain.snapshot()
        push(chain, pool, up * thousands * 1_000)
        done = acts(chain, action)
        stopped += done is None
        assert done is None or worth(done.moved, at) >= fair * (1 - Fraction(1, USD)), "whoever pushes pays us for it"
        chain.revert(mark)
    assert stopped >= 1
