"""What whole steps repeat, beside what every test does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.worlds import opened_once


@pytest.fixture(scope="module", autouse=True)
def libraries() -> Iterator[None]:
    """uniswap-python takes longer to be set up than to quote; its own tests set it up each time."""
    with opened_once():
        yield
