"""Example additions: text for the end of files in a copy of agent/, and what the copy must then do.

A check runs in an interpreter of its own, in which `agent` is the copy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

Addition = Mapping[str, str]
"""Text by the file that it is added to."""

TRIGGER: Addition = MappingProxyType(
    {
        "model/triggers.py": '''

@dataclass(frozen=True, slots=True)
class PeakDrawdown:
    """Acts when a price is strictly more than `fall_bps` below its highest of the last 28 days."""

    fall_bps: int
    tokens: tuple[str, ...] = ()


SingleTrigger = SingleTrigger | PeakDrawdown
Trigger = SingleTrigger | AnyOf | NoTradeZone
''',
        "policy/triggers/market_events.py": """

from agent.model.triggers import PeakDrawdown


def _over_28_days(event: PeakDrawdown) -> Drawdown:
    return Drawdown(event.fall_bps, LONGEST_S, event.tokens)


RULES[PeakDrawdown] = TriggerRules(
    validate=lambda event: _validate_drawdown(_over_28_days(event)),
    evaluate=lambda event, inputs: _evaluate_drawdown(_over_28_days(event), inputs),
    describe=lambda event, portfolio: f"peak_drawdown: {text.format_bps(event.fall_bps)} of {_tokens(event.tokens, portfolio)}",
    history_s=lambda event: LONGEST_S + MARGIN_S,
)
NOTATIONS += (TriggerNotation("peak_drawdown", {"fall": _SHARE} | _ASSETS, PeakDrawdown, required=True),)
""",
    }
)


def check_trigger() -> None:
    """From its keys in the config over a stored step to a decision; in the text, the new config and the errors."""
    from agent import codec
    from agent.app.describe import parameters
    from agent.config import build_policy, build_portfolio, parse_config
    from agent.config.presets import ETHEREUM
    from agent.errors import ConfigError
    from agent.model import AnyOf, Hold, PricePoint, PriceSource, Rebalance, StepInput
    from agent.model.triggers import PeakDrawdown
    from agent.policy.decide import decide
    from agent.policy.triggers import rules
    from tests.support.builders import NOW_S, history, step_input, token, unit_price
    from tests.unit.test_config import text, tokens

    def written(trigger: str) -> str:
        return text(('trigger = { kind = "threshold", relative = "10%" }', f"trigger = {trigger}"))

    def refused(trigger: str) -> str:
        try:
            config = parse_config(written(trigger))
            rules.validate_policy(build_policy(config))
        except ConfigError as error:
            return str(error)
        raise AssertionError("it is valid")

    weth = ETHEREUM.tokens[0].address
    config = parse_config(written('{ kind = "peak_drawdown", fall = "20%" }'))
    assert build_policy(config).trigger == PeakDrawdown(2_000, (weth,))
    assert parameters(config, build_portfolio(config, tokens()), "0x")["trigger"] == "peak_drawdown: 20% of WETH"
    listed = parse_config(written('[{ kind = "peak_drawdown", fall = "20%" }, { kind = "time", every = "1d" }]'))
    several = build_policy(listed).trigger
    assert isinstance(several, AnyOf)
    assert several.triggers[0] == PeakDrawdown(2_000, (weth,))
    assert "policy.trigger.fall: 0 bps is not between 0 and 100 %" in refused('{ kind = "peak_drawdown", fall = "0%" }')
    assert "policy.trigger.fall: missing" in refused('{ kind = "peak_drawdown" }')
    assert "'volatility_jump', 'peak_drawdown', 'zone'" in refused('{ kind = "no_such_kind" }')
    assert "# either, review, drawdown, volatility_jump, peak_drawdown, several in a list" in text()

    ours = token("WETH")
    past = history(prices=(PricePoint(ours.address, NOW_S - 20 * 86_400, unit_price(ours, 2_000, token("USDC"))),))
    step = step_input(trigger=PeakDrawdown(2_000, (ours.address,)), past=past, cooldown_s=0, kinds=[PriceSource.FEED])
    for price, decision in ((1_600, Hold), (1_599, Rebalance)):
        moved = step_input(values={"WETH": 5_200, "USDC": 4_800}, prices={"WETH": price, "USDC": 1}, past=past, kinds=[PriceSource.FEED])
        moved = replace(moved, policy=step.policy)
        assert codec.loads(StepInput, codec.dumps(moved)) == moved
        found = decide(moved).decision
        assert isinstance(found, decision), found
        assert "a fall of more than 20 %" in found.reason
    assert rules.required_history_s(step.policy) == 29 * 86_400
    assert rules.band_and_interval(step.policy.trigger) is None
