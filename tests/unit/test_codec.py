"""Whatever the model can say survives the way through JSON; whatever does not fit is refused with its path."""

import json
from dataclasses import fields, replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from agent import codec
from agent.amm import POOL_KINDS
from agent.errors import ConfigError
from agent.layers.states import LIQUIDITY_ACTIONS, PARTS
from agent.model import (
    Cron,
    Decision,
    Destination,
    Every,
    Evidence,
    ExitFailures,
    FuturesReading,
    Goal,
    GoalWeight,
    Halt,
    Head,
    Hold,
    HybridTrigger,
    Intent,
    LayerAction,
    Plan,
    Pool,
    Rebalance,
    SignedTx,
    SkippedItem,
    Snapshot,
    StepInput,
    Threshold,
    Trigger,
)
from agent.policy.decide import decide
from agent.policy.decision import DecisionResult
from tests.support.builders import step_input, token, v3_pool
from tests.support.samples import examples

ANY_SIZE = examples(8, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def _written_and_read(cls: Any, value: object) -> None:
    text = codec.dumps(value)
    again = codec.loads(cls, text)
    assert again == value
    assert codec.dumps(again) == text
    assert codec.from_jsonable(cls, codec.to_jsonable(value)) == value


for base, kinds in PARTS.items():
    st.register_type_strategy(base, st.one_of([st.from_type(kind) for kind in kinds]))
st.register_type_strategy(LayerAction, st.from_type(LIQUIDITY_ACTIONS))
st.register_type_strategy(Pool, st.one_of([st.from_type(kind) for kind in POOL_KINDS.values()]))


@ANY_SIZE
@given(st.deferred(lambda: st.from_type(StepInput)))
def test_every_step_input_survives_the_round_trip(value: StepInput) -> None:
    _written_and_read(StepInput, value)


@ANY_SIZE
@given(st.deferred(lambda: st.from_type(Plan)))
def test_every_plan_survives_the_round_trip(value: Plan) -> None:
    _written_and_read(Plan, value)


@ANY_SIZE
@given(st.deferred(lambda: st.from_type(DecisionResult)))
def test_decision__survives_the_round_trip_with_its_evidence(value: DecisionResult) -> None:
    _written_and_read(DecisionResult, value)


@ANY_SIZE
@given(st.deferred(lambda: st.from_type(Intent)))
def test_every_intent_survives_the_round_trip(value: Intent) -> None:
    _written_and_read(Intent, value)


@ANY_SIZE
@given(st.deferred(lambda: st.from_type(Evidence)))
def test_all_evidence_survives_the_round_trip(value: Evidence) -> None:
    _written_and_read(Evidence, value)


@pytest.mark.parametrize(
    ("union", "value"),
    [
        (Decision, Hold("within the bands", "policy.cooldown")),
        (Decision, Halt("price unknown")),
        (Decision, Rebalance("outside", Goal((GoalWeight("0x1", Fraction(1, 3), Fraction(1, 2)),)))),
        (Trigger, Threshold(500, None)),
        (Trigger, Every(1_800)),
        (Trigger, Cron("0 9 * * 1", "Europe/Berlin")),
        (Trigger, HybridTrigger(Threshold(None, 1_000), Every(86_400))),
        (Pool, v3_pool(token("WETH"), token("USDC"), 2_000)),
    ],
)
def test_union_member__is_read_back_as_itself_and_as_the_union(union: Any, value: object) -> None:
    assert codec.loads(union, codec.dumps(value)) == value
    assert codec.loads(type(value), codec.dumps(value)) == value


def test_a_decided_step_reads_back_from_text() -> None:
    decided = decide(step_input(values={"WETH": 6_000, "USDC": 4_000}))
    assert codec.loads(DecisionResult, codec.dumps(decided)) == decided


def test_canonical_text__has_sorted_keys_and_exact_numbers() -> None:
    head = Head(chain_id=1, number=2**53, hash="0x", timestamp_s=2**53 - 1, base_fee_wei=-(2**53))
    assert codec.dumps(head) == (
        '{"base_fee_wei":"-9007199254740992","chain_id":1,"hash":"0x","number":"9007199254740992","timestamp_s":9007199254740991}'
    )
    assert codec.dumps(GoalWeight("t", Fraction(3), Fraction(-1, 7))) == '{"high":"-1/7","low":"3/1","token":"t"}'
    assert codec.dumps(Destination.BAND) == '"band"'
    assert codec.dumps(Hold("a")) == '{"limiting_rule":"","reason":"a","type":"Hold"}'


def test_a_rebalance_written_before_exits_were_known_is_none() -> None:
    assert codec.loads(Decision, '{"goal":{"risk":null,"weights":[]},"reason":"x","type":"Rebalance"}') == Rebalance("x", Goal(()))


def test_signed_bytes_and_floats_are_never_written() -> None:
    with pytest.raises(TypeError, match="bytes"):
        codec.to_jsonable(SignedTx(b"\x01", "0x"))
    with pytest.raises(TypeError, match="float"):
        codec.to_jsonable(0.5)


def _changed(path: str, value: object) -> Any:
    data = json.loads(codec.dumps(step_input()))
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place = data
    for part in parents:
        place = place[part]
    place[last] = value
    return data


ALL_TRIGGERS = "is none of AnsweredTrigger, AnyOf, Cron, Drawdown, Every, HybridTrigger, NoTradeZone, StagedTrigger, Threshold"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        pytest.param("snapshot.pools.0.reserve0", 1.5, "1.5 is not an integer @ $.snapshot.pools[0].reserve0", id="float"),
        pytest.param("snapshot.pools.0.reserve0", True, "True is not an integer", id="boolean"),
        pytest.param("snapshot.pools.0.reserve0", "1e6", "'1e6' is not an integer", id="power of ten"),
        pytest.param("snapshot.pools.0.reserve0", "9" * 5_000, "is not an integer", id="too many digits"),
        pytest.param(
            "snapshot.pools.0.type",
            "V9Pool",
            "'V9Pool' is none of PancakeV3Pool, SlipstreamPool, V2Pool, V3Pool, V4NativePool, V4Pool @ $.snapshot.pools[0]",
            id="unknown type",
        ),
        pytest.param(
            "snapshot.pools.0", 7, "7 is none of PancakeV3Pool, SlipstreamPool, V2Pool, V3Pool, V4NativePool, V4Pool", id="number as a pool"
        ),
        pytest.param("snapshot.owner", 7, "7 is not text @ $.snapshot.owner", id="number as text"),
        pytest.param("snapshot.head", [], "[] is not an object @ $.snapshot.head", id="list as an object"),
        pytest.param("snapshot.holdings", "0xabc", "'0xabc' is not a list @ $.snapshot.holdings", id="text as a list"),
        pytest.param("snapshot.surprise", 1, "unknown field 'surprise' @ $.snapshot", id="unknown field"),
        pytest.param("policy.trigger.type", "Every", "@ $.policy.trigger", id="trigger without its fields"),
        pytest.param("policy.trigger.type", ["Every"], ALL_TRIGGERS, id="list as a type"),
        pytest.param(
            "policy.destination",
            "moon",
            "'moon' is none of 'band', 'halfway', 'target', 'zone' @ $.policy.destination",
            id="unknown destination",
        ),
        pytest.param("policy.destination", 7, "7 is none of 'band', 'halfway', 'target', 'zone'", id="number as a destination"),
        pytest.param(
            "reference.sources",
            ["feed", "rumour"],
            "'rumour' is none of 'feed', 'spot', 'twap' @ $.reference.sources[1]",
            id="unknown source",
        ),
        pytest.param("limits.min_trade", "1.5", "'1.5' is not a fraction such as 3/2 @ $.limits.min_trade", id="decimal as a fraction"),
        pytest.param("limits.min_trade", "1/0", "'1/0' is not a fraction", id="division by zero"),
        pytest.param("limits.min_trade", 1, "1 is not a fraction", id="number as a fraction"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_path(path: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        codec.from_jsonable(StepInput, _changed(path, value))
    assert message in str(caught.value)
    assert len(str(caught.value)) < 300


def test_renamed_field__keeps_its_key_in_stored_text() -> None:
    exit_failures = ExitFailures("WETH", 3, 2, 7, 1)
    text = codec.dumps(exit_failures)
    assert json.loads(text)["approval_step_count"] == 2
    assert codec.loads(ExitFailures, text) == exit_failures


def test_reason_below_the_floor__leaves_stored_plans_as_they_were() -> None:
    item = SkippedItem("WETH", "its only pool is below its floor", is_below_floor=True)
    text = codec.dumps(item)
    assert json.loads(text).keys() == {"subject", "why", "limiting_rule", "is_too_costly"}
    assert codec.loads(SkippedItem, text) == item


def test_a_missing_field_is_named() -> None:
    data = json.loads(codec.dumps(step_input()))
    del data["history"]["budgets"]["turnover_24h"]
    with pytest.raises(ConfigError, match=r"required.*\$\.history\.budgets\.turnover_24h"):
        codec.from_jsonable(StepInput, data)


def test_several_faults_are_counted() -> None:
    data = json.loads(codec.dumps(step_input()))
    data["history"]["budgets"]["gas_24h_wei"] = None
    data["history"]["budgets"]["loss_24h"] = None
    with pytest.raises(ConfigError, match="and 1 more"):
        codec.from_jsonable(StepInput, data)


def test_pairs_have_two_entries() -> None:
    evidence = json.loads(codec.dumps(Evidence(None, "", (("0x1", "0x2"),), (), True, 1)))
    evidence["pinned_code_hashes"][0].append("0x3")
    with pytest.raises(ConfigError, match=r"3 entries.*\$\.pinned_code_hashes\[0\]"):
        codec.from_jsonable(Evidence, evidence)


def test_only_true_and_false_are_booleans() -> None:
    evidence = json.loads(codec.dumps(Evidence(False, "", (), (), True, 1)))
    evidence["has_quorum"] = 1
    with pytest.raises(ConfigError, match=r"1 is.*\$\.has_quorum"):
        codec.from_jsonable(Evidence, evidence)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not readable as JSON"),
        ('{"reason":"a","reason":"b","type":"Hold"}', "key 'reason' appears twice"),
        ("[" * 100_000, "nested more than 32 deep"),
        ('{"reason":"' + "[" * 50 + '"}', "none of AdjustFutures, AdjustLiquidity, Halt, Hold, Rebalance"),
    ],
)
def test_broken_text_is_a_config_error(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        codec.loads(Decision, text)


def test_field__is_always_written_so_defaults_change_no_record() -> None:
    written = codec.to_jsonable(step_input())
    assert written["layer_configs"] == []
    assert written.keys() == {field.name for field in fields(StepInput)}
    assert written["snapshot"].keys() == {field.name for field in fields(Snapshot)}


def test_a_step_with_an_unknown_margin_account_says_so() -> None:
    plain = step_input()
    unknown = replace(plain, snapshot=plain.snapshot.with_layer(FuturesReading(unknown_reason="it could not be read")))
    written = codec.to_jsonable(unknown)["snapshot"]
    [reading] = written["layers"]
    assert (reading["unknown_reason"], reading["account"]) == ("it could not be read", None)
    _written_and_read(StepInput, unknown)
