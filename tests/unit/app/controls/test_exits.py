"""No control freezes an exit by tightening, and what a control changed, a control may change back (T28)."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from agent.app import config_versions
from agent.app.controls.shown_plans import require_no_widening
from agent.config.load import load_config_text
from agent.config.loaded import LoadedConfig
from agent.config.writing.edits import ConfigChanges, apply_changes
from agent.errors import Refused
from agent.execution import evaluation
from agent.execution.step_context import OutcomeKind
from agent.model import LIMITS, ControlCode, LimitSpec, LimitUnit, TighterDirection
from agent.planning import proposals
from agent.store.store import ConfigVersion
from tests.support import agents
from tests.support.decisions.exits import WBTC, step_with_stops
from tests.support.fakes.evidence import FakeEvidenceSource
from tests.support.text import raises_code

SMALLEST = {
    LimitUnit.SHARE: "0%",
    LimitUnit.DURATION: "1s",
    LimitUnit.GAS_PRICE: "1 wei",
    LimitUnit.NATIVE: "0",
    LimitUnit.COINS: "0",
}
LARGEST = {LimitUnit.SHARE: "25%", LimitUnit.DURATION: "24h", LimitUnit.NATIVE: "9", LimitUnit.COINS: "1000000000000"}
LOOSE_LIMITS = ("limits.deposit_auto=10%", "limits.balance_jump_wait=1h")
"""Limits that by default are at their tightest."""
EXACT = {"0%": 0, "1s": 1, "24h": 86_400, "0": Fraction(0), "off": None}


def extremes(spec: LimitSpec) -> tuple[str, ...]:
    """The tightest values of a limit."""
    match spec.tighter:
        case TighterDirection.LESS:
            return (SMALLEST[spec.unit],)
        case TighterDirection.MORE:
            return (LARGEST[spec.unit],)
        case TighterDirection.LESS_OR_OFF:
            return ("off",)
        case TighterDirection.MORE_OR_OFF:
            return ("off", LARGEST[spec.unit])
        case TighterDirection.ON:
            return ("on",)


def loaded(file: Path, text: str) -> LoadedConfig:
    return load_config_text(text, file, "a config")


def edited(file: Path, *sets: str) -> LoadedConfig:
    pairs = tuple((key, value) for key, _, value in (change.partition("=") for change in sets))
    return loaded(file, apply_changes(file.read_text(), ConfigChanges(key_settings=pairs)))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A config with stops of WETH."""
    path = agents.config(tmp_path, template="moderate", numeraire="USDC")
    stops = ("portfolio.assets.WETH.stop_loss=20%", "portfolio.assets.WETH.trailing_stop=30%")
    path.write_text(edited_text(path, *stops, "limits.native_top_up=off", "limits.token_screen=off", *LOOSE_LIMITS))
    return path


def edited_text(path: Path, *sets: str) -> str:
    pairs = tuple((key, value) for key, _, value in (change.partition("=") for change in sets))
    return apply_changes(path.read_text(), ConfigChanges(key_settings=pairs))


@pytest.mark.parametrize(("key", "value"), [(spec.key, value) for spec in LIMITS.values() if spec.binds_exits for value in extremes(spec)])
def test_a_control_tightens_no_limit_that_binds_exits(file: Path, key: str, value: str) -> None:
    if key == "native_top_up":
        file.write_text(edited_text(file, "limits.native_top_up=0.1"))
    with raises_code(Refused, ControlCode.WIDENS) as refusal:
        require_no_widening(loaded(file, file.read_text()).config, edited(file, f"limits.{key}={value}").config)
    assert refusal.value.verdicts[0].measured_text == f"limits.{key}"


@pytest.mark.parametrize(
    ("spec", "value"),
    [(spec, value) for spec in LIMITS.values() if not spec.binds_exits for value in extremes(spec)],
    ids=lambda part: part if isinstance(part, str) else part.key,
)
def test_a_limit_that_a_control_may_tighten_stops_no_stop_loss(file: Path, spec: LimitSpec, value: str) -> None:
    tightened = edited(file, f"limits.{spec.key}={value}")
    assert tightened.digest != loaded(file, file.read_text()).digest, "the control changes something"
    require_no_widening(loaded(file, file.read_text()).config, tightened.config)
    step = step_with_stops("WBTC")
    step = replace(step, limits=replace(step.limits, **{spec.field_name: EXACT[value]}))
    outcome = evaluation.evaluate_input(step, proposals.propose_rebalance, FakeEvidenceSource(), "abc")
    assert outcome.kind is OutcomeKind.PLANNED, outcome.reason
    assert outcome.decision_result.exit_token == WBTC.address, outcome.reason


def test_most_limits_are_judged_for_exits_and_some_are_not(file: Path) -> None:
    free = {spec.key for spec in LIMITS.values() if not spec.binds_exits}
    assert free == {"turnover", "daily_turnover", "balance_jump", "balance_jump_wait", "deposit_auto", "first_purchase", "payout_per_day"}


@pytest.mark.parametrize(
    "change",
    ["limits.gas_price=1 wei", "limits.slippage=0%", "limits.head_age=1s", "limits.native_floor=9", "limits.daily_loss=0%",
     "limits.pool_min_value=1000000000000", "portfolio.assets.WETH.reserve=1000", "portfolio.assets.WETH.stop_loss=0.01",
     "portfolio.assets.WETH.stop_loss=99%", "portfolio.assets.WETH.stop_loss=10%", "portfolio.assets.WETH.trailing_stop=99%",
     "portfolio.assets.WETH.entry=10%", "policy.confirm_blocks=32"],
)  # fmt: skip
def test_a_control_neither_freezes_nor_moves_nor_disarms_an_exit(file: Path, change: str) -> None:
    with pytest.raises(Refused) as refused:
        require_no_widening(loaded(file, file.read_text()).config, edited(file, change).config)
    assert refused.value.verdicts[0].measured_text == change.partition("=")[0]


def test_a_control_does_not_remove_a_stop(file: Path) -> None:
    text = file.read_text()
    less = "\n".join(line for line in text.splitlines() if not line.startswith("stop_loss ="))
    assert less != text
    with pytest.raises(Refused, match="stop_loss"):
        require_no_widening(loaded(file, text).config, loaded(file, less).config)


def test_a_control_may_add_an_order_where_none_is(file: Path) -> None:
    change = edited(file, "portfolio.assets.WBTC.stop_loss=20%", "portfolio.assets.WETH.take_profit=300%")
    require_no_widening(loaded(file, file.read_text()).config, change.config)


class FakeConfigVersions:
    """Versions of a config, oldest first."""

    def __init__(self, *versions: tuple[LoadedConfig, str]) -> None:
        self.versions = versions

    def newest(self, limit: int = 100) -> tuple[ConfigVersion, ...]:
        versions = enumerate(self.versions)
        return tuple(reversed([ConfigVersion(at, version.digest, at, how, version.redacted_text) for at, (version, how) in versions]))[
            :limit
        ]

    def confirmed_digest(self) -> str:
        return [version.digest for version, how in self.versions if how != "noticed"][-1]


def judge_undoing(file: Path, owner: LoadedConfig, present: LoadedConfig, after: LoadedConfig) -> None:
    """Judge the edit of a control after another control's edit."""
    versions = FakeConfigVersions((owner, "first"), (present, "noticed"), (present, "control"))
    owners = config_versions.owner_confirmed_config(present, versions)  # type: ignore[arg-type]  # a store's versions
    assert owners is not None
    require_no_widening(present.config, after.config, owners)


@pytest.mark.parametrize(
    ("owner", "present", "back"),
    [pytest.param("limits.turnover=30%", "limits.turnover=5%", "limits.turnover=30%", id="back to the owner's"),
     pytest.param("limits.turnover=30%", "limits.turnover=5%", "limits.turnover=20%", id="part of the way back"),
     pytest.param("portfolio.assets.WETH.reserve=2", "portfolio.assets.WETH.reserve=0", "portfolio.assets.WETH.reserve=2", id="reserve"),
     pytest.param("portfolio.max_live_value=1000", "portfolio.max_live_value=10", "portfolio.max_live_value=1000", id="value ceiling")],
)  # fmt: skip
def test_what_a_control_changed_a_control_may_change_back(file: Path, owner: str, present: str, back: str) -> None:
    judge_undoing(file, edited(file, owner), edited(file, present), edited(file, back))


def test_an_order_that_a_control_added_a_control_may_remove(file: Path) -> None:
    owner = loaded(file, file.read_text())
    judge_undoing(file, owner, edited(file, "portfolio.assets.WBTC.stop_loss=20%"), owner)


@pytest.mark.parametrize(("owner", "after"), [("30%", "30.01%"), ("5%", "30%")], ids=["a basis point", "six times"])
def test_a_control_changes_nothing_back_beyond_the_owner_s_value(file: Path, owner: str, after: str) -> None:
    versions = [edited(file, f"limits.turnover={share}") for share in (owner, "4%", after)]
    with pytest.raises(Refused, match=r"limits\.turnover"):
        judge_undoing(file, *versions)


def test_a_file_changed_by_hand_has_nothing_to_change_back(file: Path) -> None:
    owner = edited(file, "limits.turnover=30%")
    present = edited(file, "limits.turnover=5%")
    versions = FakeConfigVersions((owner, "first"), (present, "noticed"))
    assert config_versions.owner_confirmed_config(present, versions) is None  # type: ignore[arg-type]  # a store's versions


def test_other_tables_are_never_those_of_an_earlier_version(file: Path) -> None:
    owner = edited(file, "execution.deadline=5m")
    with pytest.raises(Refused, match=r"execution\.deadline"):
        judge_undoing(file, owner, edited(file, "execution.deadline=90s"), owner)
