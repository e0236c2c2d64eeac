"""Example additions: text for files in a copy of agent/, and checks of the copy.

Each check runs in its own interpreter, in which `agent` is the copy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

Addition = Mapping[str, tuple[str, ...]]
"""Texts to add, by file."""
AFTER = "# after: "
"""If a text begins so, the rest of its first line is the line to insert it after; other texts are appended to their file."""

TRIGGER: Addition = MappingProxyType(
    {
        "model/triggers.py": (
            '''

@dataclass(frozen=True, slots=True)
class PeakDrawdown:
    """Acts when a price is strictly more than `fall_bps` below its highest of the last 28 days."""

    fall_bps: int
    tokens: tuple[str, ...] = ()


SingleTrigger = SingleTrigger | PeakDrawdown
Trigger = SingleTrigger | AnyOf | NoTradeZone
''',
            """# after:             return () if threshold is None else (threshold,)
        case PeakDrawdown():
            return ()
""",
            """# after:             return (review, execution)
        case PeakDrawdown():
            return ()
""",
        ),
        "policy/triggers/market_events.py": (
            """

from agent.model.triggers import PeakDrawdown


def _over_28_days(event: PeakDrawdown) -> Drawdown:
    return Drawdown(event.fall_bps, MAX_INTERVAL_S, event.tokens)


RULES[PeakDrawdown] = TriggerRules(
    validate=lambda event: _validate_drawdown(_over_28_days(event)),
    evaluate=lambda event, inputs: _evaluate_drawdown(_over_28_days(event), inputs),
    describe=lambda event, portfolio: f"peak_drawdown: {format_bps(event.fall_bps)} of {_tokens_text(event.tokens, portfolio)}",
    price_history_s=lambda event: MAX_INTERVAL_S + HISTORY_MARGIN_S,
)
NOTATIONS += (TriggerNotation("peak_drawdown", {"fall": _SHARE} | _ASSETS_KEY, PeakDrawdown, keys_required=True),)
""",
        ),
    }
)

ALLOCATOR: Addition = MappingProxyType(
    {
        "model/weights.py": (
            """# after:     HRP = "hrp", AllocationNeeds.CORRELATIONS
    INVERSE_VARIANCE = "inverse_variance", AllocationNeeds.VOLATILITIES
""",
        ),
        "weights/allocators.py": (
            '''

def inverse_variance(weights: AllocatorConfig, bounds: WeightBounds, facts: AllocatorData) -> UnroundedWeights:
    """In inverse proportion to the variance."""
    seen = compute_returns(weights, bounds.tokens, facts.label_by_token, facts.recorded_prices, facts.now_s)
    wanted = [Fraction(1 / float(v) ** 2) for v in seen.volatilities]
    shares = tuple(proportional_shares(wanted, bounds.low_bps, bounds.high_bps, bounds.total_bps))
    return weights_with_sample(shares, "inverse variance", seen)


ALLOCATORS[AllocationMethod.INVERSE_VARIANCE] = inverse_variance
''',
        ),
    }
)


SECTION: Addition = MappingProxyType(
    {
        "config/schema.py": (
            '''# after: from agent.layers.config import LayerTables


class LabelTable(ConfigTable):
    """`name` is what the owner calls this portfolio."""

    name: str = Field(min_length=1)
''',
            """# after:     record: RecordTable | None = None
    label: LabelTable | None = None
""",
        ),
        "config/writing/template.py": (
            """# after: url = "sqlite:///trimtab.db"

[label]
name = "main"                      # what you call this portfolio
""",
        ),
    }
)

LAYER: Addition = MappingProxyType(
    {
        "layers/lockup/__init__.py": ('"""Lock-up: assets that are not sold before a date ([lockup])."""\n',),
        "layers/lockup/state.py": (
            '''"""Settings of the layer in a step's input."""

from __future__ import annotations

from dataclasses import dataclass

from agent.model import LayerConfig


@dataclass(frozen=True, slots=True)
class LockupConfig(LayerConfig):
    """`tokens` are not sold before the chain time `until_s`."""

    tokens: tuple[str, ...] = ()
    until_s: int = 0

    def locked_at(self, now_s: int) -> tuple[str, ...]:
        """Return the tokens that may not be sold at this time."""
        return self.tokens if now_s < self.until_s else ()
''',
        ),
        "layers/lockup/config.py": (
            '''"""Table [lockup]: assets, and the day from which they may be sold."""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import Field

from agent.config.tables.fields import ConfigTable

TEMPLATE = """\\
# [lockup]
# assets = ["WETH"]                # not sold, also not by an exit,
# until = "2027-01-01"             # before this day (UTC)
"""


class LockupTable(ConfigTable):
    """Symbols of `assets`, and a day."""

    assets: list[str] = Field(min_length=1)
    until: str = Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")

    @property
    def until_s(self) -> int:
        """Start of the day, Unix time."""
        return int(datetime.fromisoformat(self.until).replace(tzinfo=UTC).timestamp())
''',
        ),
        "layers/lockup/settings.py": (
            '''"""Settings of the layer from [lockup]."""

from __future__ import annotations

from collections.abc import Mapping

from agent.config.loaded import LoadedConfig
from agent.config.schema import Config
from agent.layers.lockup.state import LockupConfig
from agent.model import Portfolio


def require_assets(config: Config) -> None:
    """Raise ValueError for an asset that the portfolio does not have."""
    known = {asset.symbol for asset in config.portfolio.assets}
    for symbol in () if config.lockup is None else config.lockup.assets:
        if symbol not in known:
            raise ValueError(f"lockup.assets: {symbol} is no asset of the portfolio; name one of {', '.join(sorted(known))}")


def build_settings(loaded: LoadedConfig, portfolio: Portfolio) -> LockupConfig:
    """Return the settings by token address."""
    table = loaded.config.lockup
    if table is None:
        return LockupConfig()
    tokens = (asset.token for asset in portfolio.assets if asset.token.symbol in table.assets)
    return LockupConfig(tuple(token.address for token in tokens), table.until_s)


def parameters(config: Config, portfolio: Portfolio) -> Mapping[str, str]:
    """Return the lock-up as the owner confirms it."""
    del portfolio
    table = config.lockup
    return {} if table is None else {"lockup": f"{', '.join(table.assets)} until {table.until}"}
''',
        ),
        "layers/lockup/policy.py": (
            '''"""Balances that the lock-up keeps, and where they are."""

from __future__ import annotations

from agent.layers.lockup.state import LockupConfig
from agent.model import StepInput

ALL_RAW = 2**256 - 1


def locked(step: StepInput) -> dict[str, int]:
    """Return the base units by token that no swap may spend."""
    return dict.fromkeys(step.config(LockupConfig).locked_at(step.snapshot.head.timestamp_s), ALL_RAW)


def place(step: StepInput) -> str:
    """Return where the balances are; empty without any."""
    return "a lock-up" if locked(step) else ""
''',
        ),
        "layers/lockup/guards.py": (
            '''"""Guard of the lock-up, which does not trust the planner."""

from __future__ import annotations

from agent.guards.case import GuardCase, GuardMeasurement
from agent.guards.guard import Guard
from agent.layers.lockup.state import LockupConfig


def _sold(case: GuardCase, tokens: tuple[str, ...]) -> GuardMeasurement:
    sold = sorted({case.step.portfolio.token(leg.token_in).label for leg in case.plan.legs if leg.token_in in tokens})
    return GuardMeasurement(f"sells {', '.join(sold) or 'none'}", not sold)


LOCKUP = Guard(
    "lockup",
    lambda step: step.config(LockupConfig).locked_at(step.snapshot.head.timestamp_s) or None,
    lambda tokens, step: f"no {', '.join(step.portfolio.token(token).label for token in tokens)}",
    _sold,
    "wait for the day, or change lockup.until",
)
''',
        ),
        "layers/lockup/documents.py": (
            '''"""Sentence of the lock-up in the account of a past step."""

from __future__ import annotations

from agent.layers.lockup.state import LockupConfig
from agent.model import Plan, StepInput


def sentences(step: StepInput, plan: Plan | None) -> list[str]:
    """Return what was locked."""
    del plan
    tokens = step.config(LockupConfig).locked_at(step.snapshot.head.timestamp_s)
    return [f"Locked: {', '.join(step.portfolio.token(token).label for token in tokens)}."] if tokens else []
''',
        ),
        "layers/states.py": (
            "# after: from agent.layers.liquidity.state import LiquidityCycle, LiquidityProgress, LiquidityState\n"
            "from agent.layers.lockup.state import LockupConfig\n",
            "# after: PART_TYPES: tuple[type[Any], ...] = (\n    LockupConfig,\n",
        ),
        "layers/config.py": (
            "# after: from agent.config.tables.fields import ConfigTable\nfrom agent.layers.lockup import config as lockup_config\n",
            "# after:     tax: TaxTable | None = None\n    lockup: lockup_config.LockupTable | None = None\n",
            "\n\nTABLE_TEMPLATES += (lockup_config.TEMPLATE,)\n",
        ),
        "layers/settings.py": (
            "# after: from agent.layers.liquidity import settings as liquidity\nfrom agent.layers.lockup import settings as lockup\n",
            "# after: LAYERS: tuple[LayerSettings, ...] = (\n"
            "    LayerSettings(lockup.build_settings, lockup.require_assets, lockup.parameters),\n",
        ),
        "layers/questions.py": (
            "# after: from agent.layers.liquidity.policy import valuation as liquidity\nfrom agent.layers.lockup import policy as lockup\n",
            "\n\nLAYERS += (LayerAnswers(unspendable_raw=lockup.locked, place_name=lockup.place),)\n",
        ),
        "layers/guards.py": (
            "# after: from agent.layers.liquidity import guards as liquidity\nfrom agent.layers.lockup import guards as lockup\n",
            "\n\nGUARDS += (lockup.LOCKUP,)\n",
        ),
        "layers/documents.py": (
            "# after: from agent.layers.gradual import documents as gradual\nfrom agent.layers.lockup import documents as lockup\n",
            "\n\nLAYERS += (LayerDocuments(sentences=lockup.sentences),)\n",
        ),
    }
)
"""A layer of a second kind: it answers `unspendable_raw`, which no layer of agent/layers does."""

COMMAND: Addition = MappingProxyType(
    {
        "app/records/step_age.py": (
            '''"""Age of the newest step of the store, for a monitor without the run's own metrics."""

from __future__ import annotations

import time

from agent import wiring
from agent.config.load import ConfigSource, load_config


def step_age_s(config: ConfigSource) -> int | None:
    """Seconds since the newest step; None before the first."""
    with wiring.open_store_offline(load_config(config)) as (store, _):
        return next((int(time.time()) - line.now_s for line in store.steps.newest(1)), None)
''',
        ),
        "cli/step_age.py": (
            '''"""The command age."""

from __future__ import annotations

from agent.cli.display.terminal import emit, say
from agent.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, Heading, command


@command(Heading.LOOK, 55)
def age(config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Shows the time since the newest step"""
    from agent.app.records import step_age

    age_s = step_age.step_age_s(config)
    emit({"age_s": age_s}, as_json, lambda: say("No step yet." if age_s is None else f"Newest step: {age_s} s ago."))
''',
        ),
    }
)

ALERT_KIND: Addition = MappingProxyType(
    {
        "model/alerts.py": (
            """# after:     HEARTBEAT = "heartbeat", "no sign of life"
    QUARANTINE = "quarantine", "reads failed"
""",
        ),
        "app/alerting.py": (
            """# after:         yield from _transfer_alerts(outcome_or_error)
        if failed := len(outcome_or_error.step_input.snapshot.unreadable_items):
            yield Alert(AlertKind.QUARANTINE, "quarantine", f"{failed} reads failed, what they are about is not traded.", True)
""",
        ),
    }
)


def add(text: str, addition: str) -> str:
    """Return the text of a file with the addition."""
    if not addition.startswith(AFTER):
        return text + addition
    line, _, added = addition.removeprefix(AFTER).partition("\n")
    assert text.count(f"{line}\n") == 1, line
    return text.replace(f"{line}\n", f"{line}\n{added}")


def check_trigger() -> None:
    """Check the trigger from its config keys to a decision on a stored step, with its text, template line and errors."""
    from agent import codec
    from agent.app.describe import binding_parameters
    from agent.config.build import build_policy, build_portfolio
    from agent.config.load import parse_config
    from agent.config.networks.presets import ETHEREUM_PRESET
    from agent.errors import ConfigError
    from agent.model import AnyOf, Hold, PricePoint, PriceSource, Rebalance, StepInput
    from agent.model.triggers import PeakDrawdown
    from agent.policy.decide import decide
    from agent.policy.triggers import rules, validation
    from tests.support.builders import NOW_S, history, step_input, token, unit_price
    from tests.support.configs.samples import config_text, tokens

    def written(trigger: str) -> str:
        return config_text(('trigger = { kind = "threshold", relative = "10%" }', f"trigger = {trigger}"))

    def refused(trigger: str) -> str:
        try:
            config = parse_config(written(trigger))
            validation.validate_policy(build_policy(config))
        except ConfigError as error:
            return str(error)
        raise AssertionError("it is valid")

    weth = ETHEREUM_PRESET.tokens[0].address
    config = parse_config(written('{ kind = "peak_drawdown", fall = "20%" }'))
    assert build_policy(config).trigger == PeakDrawdown(2_000, (weth,))
    assert binding_parameters(config, build_portfolio(config, tokens()), "0x")["trigger"] == "peak_drawdown: 20 % of WETH"
    listed = parse_config(written('[{ kind = "peak_drawdown", fall = "20%" }, { kind = "time", every = "1d" }]'))
    several = build_policy(listed).trigger
    assert isinstance(several, AnyOf)
    assert several.triggers[0] == PeakDrawdown(2_000, (weth,))
    assert "policy.trigger.fall: 0 bps" in refused('{ kind = "peak_drawdown", fall = "0%" }')
    assert "policy.trigger.fall: missing" in refused('{ kind = "peak_drawdown" }')
    assert "'volatility_jump', 'peak_drawdown', 'tracking', 'zone'" in refused('{ kind = "no_such_kind" }')
    assert "# either, review, drawdown, volatility_jump, peak_drawdown, several in a list" in config_text()

    ours = token("WETH")
    past = history(prices=(PricePoint(ours.address, NOW_S - 20 * 86_400, unit_price(ours, 2_000, token("USDC"))),))
    step = step_input(trigger=PeakDrawdown(2_000, (ours.address,)), past=past, cooldown_s=0, kinds=[PriceSource.FEED])
    for price, decision in ((1_600, Hold), (1_599, Rebalance)):
        moved = step_input(values={"WETH": 5_200, "USDC": 4_800}, prices={"WETH": price, "USDC": 1}, past=past, kinds=[PriceSource.FEED])
        moved = replace(moved, policy=step.policy)
        assert codec.loads(StepInput, codec.dumps(moved)) == moved
        found_decision = decide(moved).decision
        assert isinstance(found_decision, decision), found_decision
        assert "20 %" in found_decision.reason
    assert rules.required_history_s(step.policy) == 29 * 86_400
    assert rules.band_and_interval(step.policy.trigger) is None


def check_allocator() -> None:
    """Check the allocator from its config keys to targets on a stored step, with its text, template line, errors and search."""
    from agent import codec
    from agent.app.describe import binding_parameters
    from agent.config.load import parse_config
    from agent.model import PRICE_ONLY_METHODS, AllocationMethod, StepInput
    from agent.policy.target_changes import apply_allocation
    from tests.support.configs.weights import RETURNS, allocator_config, config_text, mistake, portfolio_of
    from tests.support.planning_worlds import allocator, moves, recorded, weighed

    method = AllocationMethod("inverse_variance")
    written = RETURNS.replace('"hrp"', '"inverse_variance"')
    assert allocator_config(written).method is method
    config = parse_config(config_text(written))
    assert binding_parameters(config, portfolio_of(config), "0x")["weights"].startswith(
        "inverse_variance, chosen every 7 days from returns of 1 day"
    )
    assert "min_history: missing; kind = 'inverse_variance' needs it" in mistake(written, ("min_history", None))
    assert "'hrp', 'inverse_variance' or 'futures_volatility'" in mistake(written, ("kind", '"no_such_kind"'))
    assert "# or equal, market_cap, inverse_volatility, minimum_variance, hrp, inverse_variance, futures_volatility\n" in config_text("")
    assert method in PRICE_ONLY_METHODS

    step = weighed(allocator(method), recorded(moves()))
    assert codec.loads(StepInput, codec.dumps(step)) == step
    allocated_step = apply_allocation(step)
    assert allocated_step.history.allocation is not None
    assert (allocated_step.history.allocation.method, allocated_step.history.allocation_fault) == (method, "")
    assert sum(asset.target_bps for asset in allocated_step.effective_assets) == 10_000


def check_section() -> None:
    """Check the section from the template config to its table, with errors by field."""
    from agent.config.load import parse_config
    from agent.errors import ConfigError
    from tests.support.configs.samples import config_text

    def refused(old: str, new: str) -> str:
        try:
            parse_config(config_text((old, new)))
        except ConfigError as error:
            return str(error)
        raise AssertionError("it is valid")

    label = parse_config(config_text()).label  # type: ignore[attr-defined]  # of the copy
    assert label.name == "main"
    assert "label.name: " in refused('name = "main"', 'name = ""')
    assert "did you mean name?" in refused('name = "main"', 'nam = "main"')


def check_command() -> None:
    """Check the command's place in the help, and run it on a config with an empty store."""
    import json
    from pathlib import Path

    from typer.testing import CliRunner

    from agent.cli.main import app
    from tests.support.configs.samples import config_text

    config = Path("trimtab.toml")
    config.write_text(config_text(), encoding="utf-8")
    config.chmod(0o600)
    runner = CliRunner()
    listed = runner.invoke(app, ["help", "all"]).stdout
    assert listed.index(" explain ") < listed.index("Shows the time since the newest step") < listed.index(" pnl ")
    assert json.loads(runner.invoke(app, ["age", "--json"]).stdout) == {"age_s": None}


def check_alert_kind() -> None:
    """Check the alert kind from the config over a cycle to a message with its title; it lasts while the read fails."""
    from agent.app.alerting import LASTING_KINDS, RunFacts, cycle_alerts
    from agent.config.tables.alerts import AlertsTable
    from agent.execution.step_context import OutcomeKind, StepOutcome
    from agent.model import AlertKind, UnreadableItem
    from agent.policy.decide import decide
    from tests.support.builders import step_input, with_snapshot

    kind = AlertKind("quarantine")
    assert "quarantine" in AlertsTable.model_validate({"cooldowns": {"quarantine": "1h"}}).events
    step = with_snapshot(step_input({"WETH": 5_000, "USDC": 5_000}), unreadable_items=(UnreadableItem("pool", "0x00", "reverted"),))
    decided = decide(step)
    outcome = StepOutcome("0123", OutcomeKind.HOLD, decided.decision.reason, step, decided, None)
    (alert,) = [
        alert for alert in cycle_alerts(outcome, RunFacts(paused=False, heartbeat_fault="", low_gas_wei=None)) if alert.kind is kind
    ]
    assert (alert.text, kind.title) == ("1 reads failed, what they are about is not traded.", "reads failed")
    assert alert.is_lasting
    assert kind in LASTING_KINDS


def check_layer() -> None:
    """Check the layer from its config keys to plans, guards and texts; after the day it changes nothing."""
    from datetime import UTC, datetime
    from pathlib import Path

    from agent import codec
    from agent.app.describe import binding_parameters
    from agent.config.build import build_portfolio
    from agent.config.load import parse_config
    from agent.config.loaded import LoadedConfig
    from agent.errors import ConfigError, Refused
    from agent.guards.table import judge
    from agent.layers import documents
    from agent.layers.settings import build_layer_settings
    from agent.model import Hold, Rebalance, StepInput
    from agent.planning import planner, swaps
    from agent.planning.proposals import propose_rebalance
    from agent.policy.decide import decide
    from agent.reference import reference_prices
    from tests.support.builders import NOW_S, step_input, token
    from tests.support.configs.samples import config_text, tokens
    from tests.support.plans import evidence

    def day(at_s: int) -> str:
        return datetime.fromtimestamp(at_s, UTC).date().isoformat()

    def lockup_text(symbol: str, until_s: int) -> str:
        return f'{config_text()}\n[lockup]\nassets = ["{symbol}"]\nuntil = "{day(until_s)}"\n'

    def step_until(until_s: int) -> StepInput:
        config = parse_config(lockup_text("WETH", until_s))
        portfolio = build_portfolio(config, tokens())
        (settings,) = build_layer_settings(LoadedConfig(config, Path("trimtab.toml"), ""), portfolio)
        assert binding_parameters(config, portfolio, "0x")["lockup"] == f"WETH until {day(until_s)}"
        step = step_input(values={"WETH": 6_000, "USDC": 4_000})
        return step.with_config(replace(settings, tokens=(token("WETH").address,)))

    assert "# [lockup]\n" in config_text()
    try:
        parse_config(lockup_text("WBTC", NOW_S))
    except ConfigError as error:
        assert "WBTC is no asset of the portfolio" in str(error)
    else:
        raise AssertionError("it is valid")

    locked = step_until(NOW_S + 5 * 86_400)
    free = step_until(NOW_S - 5 * 86_400)
    assert codec.loads(StepInput, codec.dumps(locked)) == locked
    decision = decide(locked).decision
    assert isinstance(decision, Rebalance)
    assert propose_rebalance(locked).plan is None
    hold = propose_rebalance(locked).decision_result.decision
    assert isinstance(hold, Hold)
    assert "a lock-up, which swaps cannot spend" in hold.reason
    weth = token("WETH").address
    usdc = token("USDC").address
    try:
        swaps.plan_swap(locked, weth, usdc, 10**17)
    except Refused as refused:
        assert "exceeds the spendable balance" in refused.message
    else:
        raise AssertionError("the owner could sell")
    assert documents.LAYERS[-1].sentences(locked, None) == ["Locked: WETH."]

    plan = propose_rebalance(free).plan
    assert plan is not None
    assert plan.legs[0].token_in == weth
    assert plan == planner.plan(free, decision, reference_prices(free))
    verdicts = {verdict.guard: verdict for verdict in judge(locked, plan, evidence(locked, plan))}
    assert (verdicts["lockup"].passed, verdicts["lockup"].measured_text) == (False, "sells WETH")
    assert next(verdict for verdict in judge(free, plan, evidence(free, plan)) if verdict.guard == "lockup").limit == "off"
