"""A running bot is changed with its transition shown: written whole or not at all, kept in versions, refused where it breaks a limit."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from stat import S_IMODE
from typing import Any

import pytest

from agent import app as api
from agent import wiring
from agent.app import config_versions
from agent.app.agent import Agent
from agent.app.settings import editing
from agent.app.settings.editing import Confirm, EditReport
from agent.app.start import trust
from agent.config.load import load_config
from agent.config.tables.chain import ChainTable
from agent.config.tables.fields import parse_address
from agent.config.writing.edits import ConfigChanges, apply_changes
from agent.errors import PassingFault, Refused, Retryable
from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from agent.store.store import ConfigChanged, ConfigVersionStore
from tests.support.agents import reopened_agent, yes
from tests.support.on_chain.editing import EditedRun
from tests.support.text import mentions, raises_code, raises_field

PAYEE = (("wallet.payout_addresses", "0x00000000000000000000000000000000000B0b00"),)


def weights(**shares: str) -> ConfigChanges:
    return ConfigChanges(targets=tuple(shares.items()))


def test_edit__shows_its_transition_and_keeps_backup_and_version(anvil_chain: LocalChain, tmp_path: Path) -> None:
    bot = EditedRun(anvil_chain, tmp_path)
    edit_report = bot.edit(weights(WETH="30%", WBTC="40%"), answer=False)
    assert (edit_report.state, edit_report.rebalance_count, bot.file.read_text()) == ("declined", 1, bot.text)
    assert edit_report.transition is not None
    assert edit_report.transition.plan is not None
    assert abs(int(edit_report.transition.plan.turnover) - 2_000 * 10**6) < 20 * 10**6
    assert edit_report.transition.plan.cost.total > 0
    done = bot.edit(weights(WETH="30%", WBTC="40%"))
    assert done.state == "written"
    assert done.backup is not None
    assert Path(done.backup).read_text() == bot.text
    assert {S_IMODE(path.stat().st_mode) for path in (bot.file, Path(done.backup))} == {0o600}
    assert set(done.changes) == {
        '- portfolio.assets.WETH.target = "50%"', '+ portfolio.assets.WETH.target = "30%"',
        '- portfolio.assets.WBTC.target = "20%"', '+ portfolio.assets.WBTC.target = "40%"',
    }  # fmt: skip
    document = config_versions.list_versions(bot.file)
    assert [config["how"] for config in document["configs"]] == ["edit", "first"]
    assert document["confirmed"] == document["present"]
    assert config_versions.show_version(bot.file, document["configs"][0]["number"])["changes"] == list(done.changes)
    assert bot.edit(weights(WETH="30%")).state == "unchanged"


@pytest.mark.parametrize(
    "key_setting",
    [
        pytest.param(("policy.destination", '"band"'), id="back to the edge"),
        pytest.param(("limits.turnover", '"5%"'), id="within the limits"),
        pytest.param(("limits.min_trade", '"2500"'), id="below the least trade"),
    ],
)
def test_edit__shows_what_a_cycle_then_does(anvil_chain: LocalChain, tmp_path: Path, key_setting: tuple[str, str]) -> None:
    bot = EditedRun(anvil_chain, tmp_path)
    done = bot.edit(ConfigChanges(targets=(("WETH", "30%"), ("WBTC", "40%")), key_settings=(key_setting,)))
    assert done.transition is not None
    assert done.next_cycle is not None
    with reopened_agent(bot.chain, load_config(bot.file)) as agent:
        outcome = agent.plan()
    assert (done.next_cycle.kind, done.next_cycle.reason) == (outcome.kind, outcome.reason)
    shown_plan = done.next_cycle.plan
    whole_plan = done.transition.plan
    assert (shown_plan is None) is (outcome.plan is None)
    if shown_plan is not None and outcome.plan is not None and whole_plan is not None:
        assert shown_plan.holdings_after == outcome.plan.holdings_after != whole_plan.holdings_after


def test_transition_beyond_the_day_s_loss__may_go_in_rounds(anvil_chain: LocalChain, tmp_path: Path) -> None:
    bot = EditedRun(anvil_chain, tmp_path, daily_loss="0.1%", turnover="10%")
    refusal = bot.refused(weights(WETH="10%", WBTC="60%"))
    assert [v.guard for v in refusal.verdicts] == ["daily_loss"]
    assert refusal.verdicts[0].limit == "10 bps"
    assert "--in-slices" in refusal.remedy
    done = bot.edit(weights(WETH="10%", WBTC="60%"), in_slices=True)
    assert done.state == "written"
    assert done.rebalance_count == 4
    assert done.first_rebalance is not None
    assert done.first_rebalance.kind is OutcomeKind.PLANNED


def test_edit_while_prices_halt_the_agent_anyway__says_to_wait(anvil_chain: LocalChain, tmp_path: Path) -> None:
    bot = EditedRun(anvil_chain, tmp_path)
    anvil_chain.move_market({"WETH": anvil_chain.deployed_world.prices_usd["WETH"] * 2}, twap_follows=False)
    refusal = bot.refused(ConfigChanges(key_settings=(("policy.cooldown", '"2h"'),)))
    assert mentions(refusal.remedy, "without it too", "wait until it ends")


def test_edit_that_would_halt_or_leave_behind__is_refused(anvil_chain: LocalChain, tmp_path: Path) -> None:
    bot = EditedRun(anvil_chain, tmp_path)
    refusal = bot.refused(ConfigChanges(removed_symbols=("WBTC",), targets=(("WETH", "70%"),)))
    assert "unmanaged" in refusal.message
    assert "WBTC=0%" in refusal.remedy
    assert (
        "halt"
        in bot.refused(
            ConfigChanges(key_settings=(("portfolio.assets.WBTC.feed", "0x" + "13" * 20), ("reference.kind", '["feed"]')))
        ).message
    )
    stop = "portfolio.assets.WETH.stop_loss"
    trail = "portfolio.assets.WETH.trailing_stop"
    assert (
        "halt: stop_loss of WETH at 999,999.00 USDC contradicts the price"
        in bot.refused(ConfigChanges(key_settings=((stop, '"999999"'),))).message
    )
    edit_report = bot.edit(ConfigChanges(key_settings=((stop, '"20%"'),)), answer=False)
    assert [warning.split(", ")[1] for warning in edit_report.warnings if warning.startswith("stop_loss of WETH: at ")] == [
        "20 % below the present price"
    ]
    portfolio_report = bot.edit(
        ConfigChanges(
            key_settings=(
                ("portfolio.orders.stop_loss", '"20%"'),
                ("portfolio.assets.WETH.entry", '"5%"'),
                ("portfolio.assets.WETH.take_profit", '"2970"'),
                (trail, '"9%"'),
            )
        ),
        answer=False,
    )
    assert "take_profit of WETH: at 2,970.00 USDC, 1 % below the present price" in portfolio_report.warnings, "it waits for its entry"
    assert "stop_loss of the portfolio: at 0.800000 per share, 20 % below the present value" in portfolio_report.warnings
    assert "trailing_stop of WETH: its level is set when a cycle arms it" in portfolio_report.warnings
    assert any("watches no price until a cycle arms it" in command for command in edit_report.next_commands)
    assert not any("no alert target" in warning for warning in edit_report.warnings)
    alert = bot.edit(ConfigChanges(key_settings=(("portfolio.assets.WETH.alert_above", '"999999"'),)), answer=False)
    assert any("no alert target" in warning for warning in alert.warnings)
    assert [level.split(",")[0] for level in alert.implausible_levels] == ["alert_above of WETH: at 999"]
    reached_alert = bot.edit(ConfigChanges(key_settings=(("portfolio.assets.WETH.alert_below", '"4000"'),)), answer=False)
    assert reached_alert.implausible_levels == ()
    assert any("above the present price, reached already: it fires at once" in warning for warning in reached_alert.warnings)
    with raises_field("wallet.address", "old value"):
        bot.edit(ConfigChanges(key_settings=(("wallet.address", "0x" + "12" * 20), ("wallet.test_account", "1"))))
    with raises_field("portfolio.assets", "sum to 110 %"):
        bot.edit(weights(WETH="60%"))
    assert bot.file.read_text() == bot.text
    done = bot.edit(ConfigChanges(removed_symbols=("WBTC",), targets=(("WETH", "70%"),)), keep_holdings=True)
    assert done.state == "written"
    assert any("WBTC stay" in warning for warning in done.warnings)


def test_balance_that_leaves__is_no_loss_and_comes_back_no_gain(anvil_chain: LocalChain, tmp_path: Path) -> None:
    bot = EditedRun(anvil_chain, tmp_path)
    bot.value()
    bot.edit(ConfigChanges(removed_symbols=("WBTC",), targets=(("WETH", "70%"),)), keep_holdings=True)
    value_left = bot.value()
    assert (value_left["profit"], value_left["withdrawals"], value_left["end_value"]) == ("0", "1999.9998", "8000")
    bot.edit(ConfigChanges(added_assets=(("WBTC", anvil_chain.tokens["WBTC"].address, "20%"),), targets=(("WETH", "50%"),)))
    back = bot.value()
    assert back["profit"] == "0"
    assert Decimal(back["end_value"]) - 8_000 == Decimal(back["deposits"]) > 1_999


def test_a_token_is_added_planned_and_traded_once_it_is_trusted(chain: LocalChain, tmp_path: Path) -> None:
    bot = EditedRun(chain, tmp_path)
    link = chain.tokens["LINK"].address
    done = bot.edit(
        ConfigChanges(
            added_assets=(("LINK", link, "10%"),),
            targets=(("WETH", "40%"),),
            key_settings=(("reference.kind", '["feed", "twap", "spot"]'),),
        )
    )
    assert done.state == "written"
    assert "trimtab trust" in done.next_commands[0]
    assert done.transition is not None
    assert done.transition.plan is not None
    assert link in {leg.token_out for leg in done.transition.plan.legs}


def test_hand_edited_file__is_confirmed_live_by_no_machine(chain: LocalChain, tmp_path: Path) -> None:
    bot = EditedRun(chain, tmp_path)
    with reopened_agent(chain, bot.loaded) as agent:
        assert config_versions.confirm_without_asking(agent.context)
        assert config_versions.unconfirmed_changes(bot.loaded, agent.context.store.configs) is None
    bot.file.write_text(bot.text.replace('slippage = "0.3%"', 'slippage = "3%"'))
    loaded = load_config(bot.file)
    lines = ('- limits.slippage = "0.3%"', '+ limits.slippage = "3%"')
    with reopened_agent(chain, loaded) as agent:
        assert config_versions.unconfirmed_changes(loaded, agent.context.store.configs) == lines
        live = Agent(
            replace(
                agent.context, loaded_config=replace(loaded, config=loaded.config.model_copy(update={"chain": _live(loaded.config.chain)}))
            )
        )
        with raises_code(Refused, "config", "not confirmed") as refused:
            config_versions.confirm_without_asking(live.context)
        assert "slippage" in refused.value.verdicts[0].measured_text
        earlier_edits: list[tuple[str, ...]] = []
        assert not config_versions.confirm_changes(live.context, lambda edits: bool(earlier_edits.append(edits)))
        assert earlier_edits == [lines]
        with raises_code(Refused, "config", "the edit is not confirmed"):
            config_versions.confirm_without_asking(live.context)
        assert config_versions.confirm_changes(live.context, lambda edits: edits == lines)
        assert config_versions.confirm_without_asking(live.context)
        assert [config.origin for config in agent.context.store.configs.newest()] == ["confirmed", "noticed", "first"]
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD


def test_edit__confirms_nothing_another_wrote_into_the_file(chain: LocalChain, tmp_path: Path) -> None:
    """Who can write the config, and has no key, waits for the owner's next yes to something else."""
    bot = EditedRun(chain, tmp_path)
    assert bot.edit(ConfigChanges(key_settings=(("policy.cooldown", "2h"),))).earlier_edits == ()
    stolen = bot.file.read_text().replace('payout_per_day = "100000"', 'payout_per_day = "off"')
    assert stolen != bot.file.read_text()
    bot.file.write_text(stolen)
    lines = ('- limits.payout_per_day = "100000"', '+ limits.payout_per_day = "off"')
    edit_reports: list[EditReport] = []

    def machine(edit_report: EditReport, agent: Agent) -> bool:
        edit_reports.append(edit_report)
        config = agent.context.loaded_config.config
        live = replace(agent.context.loaded_config, config=config.model_copy(update={"chain": _live(config.chain)}))
        return editing.accept_edit(edit_report, Agent(replace(agent.context, loaded_config=live)))

    def edit(confirm: Confirm) -> EditReport:
        return editing.edit(
            bot.file,
            editing.TextEdit(lambda text: text.replace("2h", "3h")),
            confirm=confirm,
            transports=[chain.transport],
            clock=chain.clock,
        )

    with raises_code(Refused, "config", "not confirmed"):
        edit(machine)
    assert edit_reports[0].earlier_edits == lines
    assert bot.file.read_text() == stolen
    with raises_code(Refused, "config", "not confirmed"):
        editing.edit(bot.file, editing.TextEdit(lambda text: text), confirm=machine, transports=[chain.transport], clock=chain.clock)
    assert (edit_reports[1].changes, edit_reports[1].earlier_edits) == ((), lines), "an edit that changes nothing is no --confirm"
    edit_report = edit(lambda report, _agent: report.earlier_edits == lines)
    assert edit_report.state == "written"
    assert edit_report.changes == ('- policy.cooldown = "2h"', '+ policy.cooldown = "3h"')
    assert edit(machine).state == "unchanged"


def test_address_another_wrote__is_confirmed_by_no_machine(
    anvil_chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bot = EditedRun(anvil_chain, tmp_path)
    thief = "0x00000000000000000000000000000000000B0b00"
    bot.edit(ConfigChanges(key_settings=(("policy.cooldown", "2h"),)))
    bot.file.write_text(bot.file.read_text().replace("payout_addresses = []", f'payout_addresses = ["{thief}"]'))
    loaded = load_config(bot.file)
    line = anvil_chain.transport
    chain = loaded.config.chain.model_copy(update={"single_operator": line.operator})
    loaded = replace(loaded, config=loaded.config.model_copy(update={"chain": chain}))
    monkeypatch.setattr(ChainTable, "is_local", property(lambda _: False))
    with raises_code(Refused, "config", "not confirmed"):
        trust.trust(loaded, lambda _: True, [line], is_unreviewed=True)
    with wiring.open_store_offline(loaded) as (store, _):
        assert store.requests.payout_addresses() == ()
    trust_document = trust.trust(loaded, lambda _: True, [line])  # its owner was shown it, and asked
    assert [row["address"] for row in trust_document["contracts"] if row["role"] == "payout address"] == [parse_address(thief, "")]


def test_address_set_by_command__is_confirmed_without_a_terminal(
    anvil_chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An edit by hand names this way, since no machine confirms it."""
    bot = EditedRun(anvil_chain, tmp_path)
    home = parse_address("0x00000000000000000000000000000000000B0b00", "")
    bot.edit(ConfigChanges(key_settings=(("policy.cooldown", "2h"),)), is_unreviewed=True)
    text = bot.file.read_text()
    bot.file.write_text(text.replace("payout_addresses = []", f'payout_addresses = ["{home}"]'))
    line = anvil_chain.transport

    def trusted() -> bool:
        loaded = load_config(bot.file)
        chain = loaded.config.chain.model_copy(update={"single_operator": line.operator})
        loaded = replace(loaded, config=loaded.config.model_copy(update={"chain": chain}))
        with monkeypatch.context() as patch:
            patch.setattr(ChainTable, "is_local", property(lambda _: False))
            return trust.trust(loaded, lambda _: True, [line], is_unreviewed=True)["pinned"]

    with pytest.raises(Refused) as refused:
        trusted()
    assert mentions(refused.value.remedy, "undo it in the file", "trimtab edit --set KEY=VALUE --yes")
    bot.file.write_text(text)
    bot.edit(ConfigChanges(key_settings=(("wallet.payout_addresses", home),)), is_unreviewed=True)
    assert trusted()
    with wiring.open_store_offline(load_config(bot.file)) as (store, _):
        assert store.requests.payout_addresses() == (home,)


@pytest.mark.parametrize(
    ("settings", "plans"),
    [
        pytest.param(PAYEE, False, id="payout address"),
        pytest.param((*PAYEE, ("alerts.attempts", "5")), False, id="payout address and alerts"),
        pytest.param((*PAYEE, ("policy.cooldown", "2h")), True, id="payout address and cooldown"),
    ],
)
def test_edit__of_what_no_plan_depends_on__shows_no_transition(
    anvil_chain: LocalChain, tmp_path: Path, settings: tuple[tuple[str, str], ...], plans: bool
) -> None:
    report = EditedRun(anvil_chain, tmp_path).edit(ConfigChanges(key_settings=settings))
    assert (report.state, report.transition is not None) == ("written", plans)
    assert mentions(" ".join(report.next_commands), "trimtab trust: contracts or payout addresses", "it reads [wallet] only at start")


def _live(table: object) -> object:
    return table.model_copy(update={"chain_id": 1})  # type: ignore[attr-defined]  # a pydantic table


@pytest.mark.parametrize("failing_record", [1, 2])
@pytest.mark.parametrize("error", [PassingFault("store: disk full"), KeyboardInterrupt()], ids=["fault", "interrupt"])
def test_edit_that_cannot_be_recorded__is_taken_back(
    anvil_chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing_record: int, error: BaseException
) -> None:
    bot = EditedRun(anvil_chain, tmp_path)
    records = list[str]()
    record = ConfigVersionStore.record

    def failing(store: ConfigVersionStore, digest: str, *rest: Any) -> None:
        records.append(digest)
        if len(records) == failing_record:
            raise error
        record(store, digest, *rest)

    monkeypatch.setattr(ConfigVersionStore, "record", failing)
    with pytest.raises(type(error)):
        bot.edit(ConfigChanges(targets=(("WETH", "60%"), ("WBTC", "10%"))))
    assert len(records) == failing_record
    assert bot.file.read_text() == bot.text
    with reopened_agent(anvil_chain, load_config(bot.file)) as agent:
        assert config_versions.unconfirmed_changes(load_config(bot.file), agent.context.store.configs) is None


def test_edit_that_cannot_be_taken_back__says_how_to_confirm_it(
    anvil_chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bot = EditedRun(anvil_chain, tmp_path)

    def failing(_store: ConfigVersionStore, *_: Any) -> None:
        bot.file.chmod(0o666)  # no trusted writer any more: it is not read again
        raise PassingFault("store: disk full")

    monkeypatch.setattr(ConfigVersionStore, "record", failing)
    with pytest.raises(PassingFault, match=r"written.*not confirmed") as raised:
        bot.edit(ConfigChanges(targets=(("WETH", "60%"), ("WBTC", "10%"))))
    assert mentions(str(raised.value), "trimtab edit --confirm", "disk full")


def test_another_numeraire_takes_no_cap_along_unconverted(anvil_chain: LocalChain, tmp_path: Path) -> None:
    bot = EditedRun(anvil_chain, tmp_path)
    with raises_field("portfolio.numeraire", "portfolio.max_live_value", "limits.min_trade") as caught:
        bot.edit(ConfigChanges(key_settings=(("portfolio.numeraire", "WETH"),)))
    assert "--set portfolio.max_live_value" in caught.value.remedy
    converted = {
        "portfolio.max_live_value": "40",
        "limits.min_trade": "0.004",
        "limits.pool_min_value": "20",
        "limits.payout_per_day": "40",
    }
    assert bot.edit(ConfigChanges(key_settings=(("portfolio.numeraire", "WETH"), *converted.items()))).state == "written"


def test_a_run_takes_up_a_confirmed_edit_without_ending(chain: LocalChain, tmp_path: Path) -> None:
    bot = EditedRun(chain, tmp_path)
    with reopened_agent(chain, bot.loaded) as agent:
        looks = agent.run(send=True, confirm=yes, every="28d")
        assert next(looks).kind is OutcomeKind.HOLD  # type: ignore[union-attr]  # an outcome
        link = chain.tokens["LINK"].address
        more = (("policy.cooldown", "0s"), ("reference.kind", '["feed", "twap", "spot"]'))
        bot.edit(ConfigChanges(added_assets=(("LINK", link, "10%"),), targets=(("WBTC", "10%"),), key_settings=more), pins_new=True)
        began_s = chain.clock.now_s()
        look = next(looks)
        assert look.kind is OutcomeKind.DONE, look  # type: ignore[union-attr]  # an outcome
        assert chain.clock.now_s() - began_s < 600, "its rest of 28 days has ended"
        assert chain.balance("LINK") > 0
        assert agent.context.config.policy.cooldown == 0
        assert agent.context.loaded_config.digest == load_config(bot.file).digest == agent.context.store.configs.confirmed_digest()


def test_a_file_alone_changes_nothing_in_a_run_with_a_key(chain: LocalChain, tmp_path: Path) -> None:
    """Who can write the config, and has no key, waits for a run to read it again."""
    bot = EditedRun(chain, tmp_path)
    with reopened_agent(chain, bot.loaded) as agent:
        looks = agent.run(send=True, confirm=yes, every="1s")
        assert next(looks).kind is OutcomeKind.HOLD  # type: ignore[union-attr]  # an outcome
        bot.file.write_text(apply_changes(bot.text, weights(WETH="30%", WBTC="40%")).replace('slippage = "0.3%"', 'slippage = "1%"'))
        assert next(looks).kind is OutcomeKind.HOLD  # type: ignore[union-attr]  # an outcome
        assert agent.context.loaded_config == bot.loaded
        agent.context.store.configs.record("another", 0, origin="edit")  # a confirmed version that the file is not
        with raises_code(ConfigChanged, "config"):
            next(looks)
        assert agent.context.loaded_config == bot.loaded


def test_an_edit_of_what_a_run_is_set_up_with_ends_it_by_name(chain: LocalChain, tmp_path: Path) -> None:
    bot = EditedRun(chain, tmp_path)
    with reopened_agent(chain, bot.loaded) as agent:
        looks = agent.run(send=True, confirm=yes, every="1s")
        next(looks)
        bot.edit(ConfigChanges(key_settings=(("execution.deadline", "3m"), ("policy.cooldown", "2h"))))
        with raises_code(ConfigChanged, "config", "[execution]"):
            next(looks)


def test_a_run_waits_for_an_endpoint_before_it_takes_up_an_edit(chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bot = EditedRun(chain, tmp_path)
    with reopened_agent(chain, bot.loaded) as agent:
        looks = agent.run(send=True, confirm=yes, every="1s")
        next(looks)
        bot.edit(weights(WETH="51%", WBTC="19%"))
        with monkeypatch.context() as patch:
            patch.setattr(wiring, "reopen_context", lambda *_: (_ for _ in ()).throw(Retryable("away")))
            for _ in range(2):
                assert isinstance(next(looks), Retryable)
                assert agent.context.loaded_config == bot.loaded
        assert next(looks).kind is OutcomeKind.HOLD  # type: ignore[union-attr]  # an outcome
        assert agent.context.loaded_config.digest == load_config(bot.file).digest


def test_edit_during_a_profile_s_trial__is_kept(anvil_chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bot = EditedRun(anvil_chain, tmp_path)
    file = tmp_path / "mine.profile"
    api.export_profile(bot.file, file)

    def meanwhile(_: object) -> tuple[None, str]:
        bot.file.write_text(bot.text.replace('turnover = "30%"', 'turnover = "3%"', 1))
        return None, ""

    monkeypatch.setattr("agent.app.research.past_results.past_result_or_reason", meanwhile)
    with pytest.raises(Refused, match="changed during the import"):
        api.import_profile(
            bot.file,
            api.ProfileSource(file),
            lambda *_: True,
            past_prices=api.PastResultPrices(with_packaged=True),
            transports=[anvil_chain.transport],
        )
    assert 'turnover = "3%"' in bot.file.read_text()
