"""Tests of agent/layers/questions.py: what the answers of several layers are together."""

from __future__ import annotations

from fractions import Fraction

import pytest

from agent.layers import questions
from agent.layers.questions import LayerAnswers, OutsideHoldings
from tests.support.builders import step_input, token

WETH = token("WETH").address
PRICES = {WETH: Fraction(2)}


def account(place: str, raw: int, unweighted_raw: int) -> LayerAnswers:
    """Return a layer with WETH at a place, of which some counts in no weight."""
    return LayerAnswers(holdings=OutsideHoldings(place, lambda step, prices: {WETH: raw}, lambda step: {WETH: unweighted_raw}))


@pytest.mark.parametrize(("skipped_places", "value"), [((), 4_422), (("a",), 4_400), (("a", "b"), 0)])
def test_value_outside_the_wallet_leaves_out_all_of_a_skipped_place(
    monkeypatch: pytest.MonkeyPatch, skipped_places: tuple[str, ...], value: int
) -> None:
    monkeypatch.setattr(questions, "LAYERS", (account("a", 1, 10), account("b", 200, 2_000)))

    assert questions.value_outside_wallet(step_input(), PRICES, skipped_places) == value


def test_weights_and_taxes_of_layers_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = LayerAnswers(sale_taxes=lambda step, prices: {WETH: Fraction(1, 10)}, held_weights=lambda step: {"ETH": Fraction(-1, 4)})
    monkeypatch.setattr(questions, "LAYERS", (layer, layer))

    assert questions.sale_taxes(step_input(), PRICES) == {WETH: Fraction(1, 5)}
    assert questions.held_weights(step_input()) == {"ETH": Fraction(-1, 2)}
