"""[holding]: what the agent has just bought is not sold by a rebalance, and the reason says until when; exits never wait."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from agent import codec
from agent.app.describe import binding_parameters
from agent.config.build import build_portfolio
from agent.config.load import parse_config
from agent.config.loaded import LoadedConfig
from agent.errors import ConfigError
from agent.layers.holding.memory import read_memory
from agent.layers.holding.state import HoldingConfig, HoldingState
from agent.layers.holding.store import ANY_TOKEN, HoldingStore
from agent.layers.settings import build_layer_settings
from agent.layers.tax.state import TaxState
from agent.model import Hold, IntentKind, LotMethod, OpenLot, Rebalance, StepInput, TaxInputs, Transfer
from agent.model.ledger import ExternalTransaction
from agent.planning import planner, requests, swaps
from agent.planning.proposals import decision_after_plan, propose_rebalance
from agent.policy.decide import decide
from agent.store import Store
from agent.units import NATIVE, format_time
from tests.support.builders import NOW_S, step_input, token, v2_pool
from tests.support.configs.samples import USDC_PRESET, WETH_PRESET, config_text, tokens
from tests.support.constants import DAY_S
from tests.support.ledgers import at
from tests.support.plans import proposed_plan, verdict
from tests.support.records.intents import ended_intent
from tests.support.stores import store_fixture
from tests.support.text import mentions
from tests.support.transactions import OTHER, START_S, WALLET

WETH, WBTC, USDC = (token(symbol).address for symbol in ("WETH", "WBTC", "USDC"))
THREE = {"WETH": 3_400, "WBTC": 3_300, "USDC": 3_300}
TOKEN_A = "0x" + "Aa" * 20
TOKEN_B = "0x" + "Bb" * 20


def overweight(age_s: int | None, *tokens: str) -> StepInput:
    """WETH at 60 % of a target of 50 %; bought so many seconds ago, held for a day."""
    step = step_input(values={"WETH": 6_000, "USDC": 4_000})
    return step if age_s is None else step_after_purchase(step, age_s, *(tokens or (WETH,)))


def step_after_purchase(step: StepInput, age_s: int, *tokens: str) -> StepInput:
    times_s = tuple((token, NOW_S - age_s) for token in sorted(tokens))
    return step.with_config(HoldingConfig(tokens, DAY_S)).with_layer(HoldingState(times_s))


def three_assets(age_s: int) -> StepInput:
    """WETH and WBTC above their bands, WETH bought just now."""
    return step_after_purchase(step_input(THREE, {"WETH": 4_500, "WBTC": 4_500, "USDC": 1_000}), age_s, WETH)


def with_table(table: str) -> str:
    return f"{config_text()}\n[holding]\n{table}\n"


def settings_of(table: str) -> tuple[HoldingConfig, str]:
    config = parse_config(with_table(table))
    portfolio = build_portfolio(config, tokens())
    (settings,) = build_layer_settings(LoadedConfig(config, Path("trimtab.toml"), ""), portfolio)
    assert isinstance(settings, HoldingConfig)
    return settings, binding_parameters(config, portfolio, "0x")["holding"]


def test_without_assets_all_but_the_numeraire_are_held() -> None:
    settings, confirmed = settings_of('hours = "24h"')
    assert settings == HoldingConfig((WETH_PRESET.address,), DAY_S)
    assert confirmed == "all assets but the numeraire: 1 day after a purchase"


def test_listed_assets_are_held_for_the_duration_that_is_written() -> None:
    settings, confirmed = settings_of('hours = "90m"\nassets = ["WETH"]')
    assert settings == HoldingConfig((WETH_PRESET.address,), 5_400)
    assert confirmed == "WETH: 1 h 30 min after a purchase"


def test_without_the_table_the_layer_is_off() -> None:
    config = parse_config(config_text())
    portfolio = build_portfolio(config, tokens())
    assert build_layer_settings(LoadedConfig(config, Path("trimtab.toml"), ""), portfolio) == ()
    assert "holding" not in binding_parameters(config, portfolio, "0x")
    assert USDC_PRESET.address == portfolio.numeraire.address


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("", ("holding.hours", "missing")),
        ("hours = 24", ("holding.hours", "24", "not a duration")),
        ('hours = "24 hours"', ("holding.hours", "24 hours", "not a duration")),
        ('hours = "0s"', ("holding.hours", "above 0")),
        ('hours = "1d"\nassets = []', ("holding.assets", "at least 1")),
        ('hours = "1d"\nassets = ["WBTC"]', ("holding.assets", "WBTC is no asset of the portfolio", "choose from WETH")),
        ('hours = "1d"\nassets = ["USDC"]', ("holding.assets", "USDC is the numeraire", "choose from WETH")),
        ('hours = "1d"\nasset = ["WETH"]', ("holding.asset",)),
    ],
)
def test_a_mistake_in_the_table_is_named_with_its_remedy(table: str, words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(with_table(table))
    assert mentions(caught.value, *words), caught.value


def test_asset_just_bought__is_not_sold_and_the_hold_says_how_long() -> None:
    proposal = propose_rebalance(overweight(3_600))
    hold = proposal.decision_result.decision
    assert proposal.plan is None
    assert isinstance(hold, Hold)
    assert mentions(hold.reason, f"WETH, bought {format_time(NOW_S - 3_600)}, is kept until {format_time(NOW_S + 82_800)} (holding.hours)")
    assert hold.reason.count("bought") == 1
    assert hold.limiting_rule == "locked"
    assert decision_after_plan(overweight(3_600)).decision == hold


@pytest.mark.parametrize(("age_s", "sells"), [(DAY_S - 1, False), (DAY_S, True), (DAY_S + 1, True), (-60, False)])
def test_asset__is_sold_from_the_second_its_time_is_over(age_s: int, sells: bool) -> None:
    """A purchase after the head, by a block time that went back, is held too."""
    assert (propose_rebalance(overweight(age_s)).plan is not None) is sells


def test_layer_off_or_nothing_bought__leaves_a_plan_as_it_was() -> None:
    off = propose_rebalance(overweight(None))
    nothing_bought = overweight(None).with_config(HoldingConfig((WETH,), DAY_S))
    assert propose_rebalance(nothing_bought).plan == off.plan is not None
    not_listed = overweight(None).with_layer(HoldingState(((WETH, NOW_S),)))
    assert propose_rebalance(not_listed.with_config(HoldingConfig((WBTC,), DAY_S))).plan == off.plan


def test_other_assets__are_sold_and_the_kept_one_is_named() -> None:
    plan = proposed_plan(three_assets(3_600))
    assert set(plan.wallet_changes()) == {WBTC, USDC}
    assert [item.subject for item in plan.skipped if "holding.hours" in item.why] == ["WETH"]
    assert verdict("holding", three_assets(3_600), plan).passed


def test_an_asset_that_is_held_is_still_bought() -> None:
    step = step_after_purchase(step_input(values={"WETH": 4_000, "USDC": 6_000}), 3_600, WETH)
    plan = proposed_plan(step)
    assert plan.wallet_changes()[WETH] > 0
    assert verdict("holding", step, plan).passed


def test_year_limit_and_holding_time__bind_together() -> None:
    """A second limit plans again from the decision that the first has narrowed."""
    step = three_assets(3_600)
    lots = tuple(OpenLot(address, raw, Fraction(1, 10**20), 0) for address, raw in ((WETH, 10**19), (WBTC, 10**9)))
    free = propose_rebalance(step).plan
    taxed = proposed_plan(step.with_layer(TaxState(TaxInputs(LotMethod.FIFO, "", Fraction(1), lots, Fraction(0), Fraction(300 * 10**6)))))
    assert WETH not in taxed.wallet_changes()
    assert 0 < -taxed.wallet_changes()[WBTC] < -free.wallet_changes()[WBTC]


def test_a_transition_that_the_owner_asks_for_waits_too() -> None:
    hold = requests.rebalance_to_targets(overweight(3_600)).decision_result.decision
    assert isinstance(hold, Hold)
    assert mentions(hold.reason, "WETH, bought", "is kept until", "no other swap")


def test_exits_stops_and_manual_swaps_do_not_wait() -> None:
    step = overweight(3_600)
    everything = requests.propose_selling_everything(step).plan
    assert everything.wallet_changes()[WETH] < 0
    judged = verdict("holding", step, everything)
    assert judged.passed
    assert judged.measured_text == "sells WETH (not applied)"
    by_hand = swaps.plan_swap(step, WETH, USDC, 10**17)
    assert verdict("holding", step, by_hand).passed
    assert "holding.hours" not in everything.decision.reason


def test_guard__refuses_a_plan_that_sells_early() -> None:
    step = overweight(3_600)
    free = overweight(DAY_S)
    decision = decide(step).decision
    assert isinstance(decision, Rebalance)
    plan = planner.plan(step, decision)
    judged = verdict("holding", step, plan)
    assert (judged.passed, judged.measured_text) == (False, "sells WETH")
    assert judged.limit == f"no WETH before {format_time(NOW_S + 82_800)}"
    assert (verdict("holding", free, plan).passed, verdict("holding", free, plan).limit) == (True, "nothing was bought lately")
    assert verdict("holding", overweight(None), plan).limit == "off"


def test_an_exit_in_name_that_buys_another_asset_is_refused() -> None:
    weth = token("WETH")
    wbtc = token("WBTC")
    usdc = token("USDC")
    pools = (v2_pool(weth, usdc, 2_000), v2_pool(wbtc, usdc, 60_000), v2_pool(wbtc, weth, 30))
    step = step_after_purchase(step_input(THREE, {"WETH": 5_000, "WBTC": 1_700, "USDC": 3_300}, pools=pools), 3_600, WETH)
    decision = decide(step).decision
    assert isinstance(decision, Rebalance)
    plan = planner.plan(step, decision)
    assert not verdict("holding", step, replace(plan, decision=replace(decision, is_exit=True))).passed


def test_settings_and_purchases__survive_the_codec() -> None:
    step = overweight(3_600)
    assert codec.loads(StepInput, codec.dumps(step)) == step
    assert "Holding" not in codec.dumps(overweight(None).with_config(HoldingConfig()).with_layer(HoldingState()))


store = store_fixture(begins_step=True)


def book(store: Store, nonce: int, at_s: int, *transfers: Transfer, kind: IntentKind = IntentKind.SWAP, status: int = 1) -> None:
    store.budgets.book_intent(ended_intent(store, nonce, kind=kind, transfers=transfers, status=status), Fraction(0), Fraction(0), 0, at_s)


def came(of: str) -> Transfer:
    return Transfer(of, OTHER, WALLET, 5)


def outgoing_transfer(of: str) -> Transfer:
    return Transfer(of, WALLET, OTHER, 7)


def test_the_last_swap_that_raised_a_token_is_its_purchase(store: Store) -> None:
    book(store, 0, START_S, outgoing_transfer(TOKEN_A), came(TOKEN_B))
    book(store, 1, START_S + 10, outgoing_transfer(TOKEN_A), came(TOKEN_B))
    book(store, 2, START_S + 20, outgoing_transfer(TOKEN_B), came(TOKEN_A))
    purchases = store.layer_repository(HoldingStore)
    assert purchases.last_purchases_s(START_S - 1) == {TOKEN_B: START_S + 10, TOKEN_A: START_S + 20}
    assert purchases.last_purchases_s(START_S + 10) == {TOKEN_A: START_S + 20}


def test_what_came_without_a_swap_was_not_bought(store: Store) -> None:
    book(store, 0, START_S, came(TOKEN_A), kind=IntentKind.LIQUIDITY)
    assert store.layer_repository(HoldingStore).last_purchases_s(0) == {}


def external(tx_hash: str, at_s: int, turnover: int) -> ExternalTransaction:
    return ExternalTransaction(tx_hash, 5, at_s, Fraction(turnover), Fraction(0), 0, ((TOKEN_A, 5), (TOKEN_B, -5)), 0)


def test_a_trade_of_a_lost_store_holds_every_asset(store: Store) -> None:
    """A new store has no opening that it could be compared with, so what the trade bought is unknown."""
    store.balances.record_prior_day((external("0x01", START_S, 9), external("0x02", START_S + 5, 0)), 2)
    assert store.layer_repository(HoldingStore).last_purchases_s(0) == {ANY_TOKEN: START_S}


def test_holding__trade_whose_bought_token_is_unknown__holds_all(store: Store) -> None:
    """Its purchase is in the later opening of TOKEN_A, so that only the sale of TOKEN_B is recorded."""
    for block, address in ((1, TOKEN_B), (9, TOKEN_A)):
        assert store.balances.record(at(block).snapshot, {address: 1}, (), store.balances.expected().version)
    store.balances.record_prior_day((external("0x01", START_S, 9),), 2)
    assert store.layer_repository(HoldingStore).last_purchases_s(0) == {ANY_TOKEN: START_S}
    step = overweight(None).with_config(HoldingConfig((WETH, WBTC), NOW_S - START_S + 1))
    assert read_memory(step, store).bought_s_by_token == tuple(sorted(((WETH, START_S), (WBTC, START_S))))


def test_holding__trade_whose_bought_token_is_unknown__keeps_later_purchases(store: Store) -> None:
    book(store, 0, START_S + 5, outgoing_transfer(USDC), came(WETH))
    store.balances.record_prior_day((external("0x01", START_S, 9),), 2)
    step = overweight(None).with_config(HoldingConfig((WETH, WBTC), NOW_S - START_S + 1))
    assert dict(read_memory(step, store).bought_s_by_token) == {WETH: START_S + 5, WBTC: START_S}


def test_step__reads_purchases_of_its_settings_and_native_coin(store: Store) -> None:
    book(store, 0, NOW_S - 5, outgoing_transfer(USDC), came(WETH))
    book(store, 1, NOW_S - 4, outgoing_transfer(USDC), came(WBTC))
    book(store, 2, NOW_S - 3, outgoing_transfer(WETH), came(NATIVE))
    step = overweight(None)
    step = replace(step, portfolio=replace(step.portfolio, wrapped_native=WETH))
    assert read_memory(step, store) == HoldingState()
    assert read_memory(step.with_config(HoldingConfig((WETH,), DAY_S)), store) == HoldingState(((WETH, NOW_S - 3),))
