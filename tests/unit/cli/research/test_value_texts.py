"""Bands given by symbol: an asset's own, and that of all."""

from __future__ import annotations

import pytest

from agent.cli.research.value_texts import parse_bands
from agent.model import Threshold
from tests.support.text import raises_field


@pytest.mark.parametrize(
    ("bands_text", "common_band", "asset_band"),
    [
        pytest.param("A=10%rel,A=5%abs", None, Threshold(500, 1_000), id="both of an asset"),
        pytest.param("5%abs,A=10%rel", Threshold(500, None), Threshold(None, 1_000), id="all, then an asset"),
        pytest.param("5%abs,20%rel,A=10%rel", Threshold(500, 2_000), Threshold(None, 1_000), id="both of all, then an asset"),
    ],
)
def test_band_of_all__stands_before_those_of_assets(bands_text: str, common_band: Threshold | None, asset_band: Threshold) -> None:
    assert parse_bands(bands_text) == (common_band, {"A": asset_band})


@pytest.mark.parametrize(
    ("bands_text", "remedy"),
    [
        pytest.param("A=10%rel,5%abs", "write A=5%abs, or the band of all first", id="second width"),
        pytest.param("20%rel,A=10%rel,5%abs", "write A=5%abs, or the band of all first", id="between"),
        pytest.param("A=5%rel,B=10%rel,5%abs", "write B=5%abs, or the band of all first", id="after two assets"),
        pytest.param("A=10%rel,A=5%rel", "give one of each, such as A=10%rel,A=5%abs; the narrower applies", id="same kind of an asset"),
        pytest.param("10%rel,5%rel", "give one of each, such as 10%rel,5%abs; the narrower applies", id="same kind of all"),
    ],
)
def test_band_that_could_be_of_all_or_an_asset__is_refused(bands_text: str, remedy: str) -> None:
    with raises_field("--band", remedy):
        parse_bands(bands_text)
