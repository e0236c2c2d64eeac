"""Deciding again from a saved input: no chain, no store."""

from __future__ import annotations

from agent import codec, engine
from agent.errors import ConfigError
from agent.execution.outcome import Outcome
from agent.model import StepInput, V3Pool
from agent.planning import strategies

MOST_DECIMALS = 255
"""What a contract can answer."""
WIDEST_SPACING = 16_383
"""UniswapV3Factory.enableFeeAmount takes no wider one."""


def input_text(step_input: StepInput) -> str:
    """A StepInput as the text that `plan --save-input` writes."""
    return codec.dumps(step_input) + "\n"


def plan_from_input(text: str) -> Outcome:
    """The plan that the same input gave; guards that need evidence of the moment do not judge it. Raises ConfigError."""
    return plan_from(codec.loads(StepInput, text))


def plan_from(step_input: StepInput) -> Outcome:
    """The same from an input that was read already, of whatever file."""
    require_possible(step_input)
    try:
        return engine.judge(step_input, strategies.rebalance, None)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # The file is well-formed, but its parts contradict each other, as no snapshot's do.
        raise ConfigError(f"the input does not hang together: {error!r}", "hand in a file as plan --save-input wrote it") from None


def require_possible(step: StepInput) -> None:
    """Raises ConfigError for decimals that no contract answers, and for a tick spacing that no pool has: deciding would never be done."""
    _require_decimals(step)
    _require_spacing(step)


def _require_decimals(step: StepInput) -> None:
    """Powers of ten of them are taken exactly."""
    portfolio = step.portfolio
    tokens = (portfolio.numeraire, *(asset.token for asset in portfolio.assets), *portfolio.hubs)
    for what, decimals in (*((one.address, one.decimals) for one in tokens), *((one.feed, one.decimals) for one in step.snapshot.feeds)):
        if not 0 <= decimals <= MOST_DECIMALS:
            raise ConfigError(f"the input says that {what} has {decimals} decimals", "hand in a file as plan --save-input wrote it")


def _require_spacing(step: StepInput) -> None:
    """Below zero a quote walks the ticks away from where it stands."""
    for pool in step.snapshot.pools:
        if isinstance(pool, V3Pool) and not 0 < pool.tick_spacing <= WIDEST_SPACING:
            raise ConfigError(
                f"the input says that pool {pool.address} has a tick spacing of {pool.tick_spacing}",
                "hand in a file as plan --save-input wrote it",
            )
