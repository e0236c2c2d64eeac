"""Shortcuts of tests: they sign by tables of multiples, with the same signatures and keys as by eth_keys alone, unless a run turns
them off.
"""

from __future__ import annotations

import random

import pytest
import sqlalchemy
from eth_keys.backends.native import ecdsa, jacobian
from eth_keys.constants import SECPK1_G, SECPK1_N
from web3._utils import validation
from web3.utils import abi as abis

from agent.store import opening
from tests.support.worlds import SHORTCUTS


@pytest.mark.skipif(not SHORTCUTS, reason="eth_keys multiplies by itself")
def test_multiples_of_the_generator_are_those_of_eth_keys() -> None:
    dice = random.Random(1)
    assert ecdsa.fast_multiply is not jacobian.fast_multiply
    for factor in (*range(1, 20), SECPK1_N - 1, SECPK1_N + 1, *(dice.randrange(1, SECPK1_N) for _ in range(50))):
        assert ecdsa.fast_multiply(SECPK1_G, factor) == jacobian.fast_multiply(SECPK1_G, factor)
    assert ecdsa.jacobian_multiply((*SECPK1_G, 1), 0) == jacobian.jacobian_multiply((*SECPK1_G, 1), 0)
    point = jacobian.fast_multiply(SECPK1_G, 5)
    assert ecdsa.fast_multiply(point, 7) == jacobian.fast_multiply(SECPK1_G, 35)


def test_each_shortcut_is_taken_or_none() -> None:
    """`make slow` runs a part of the tests without any."""
    replaced = {
        "points": ecdsa.jacobian_multiply is not jacobian.jacobian_multiply,
        "statements": opening.create_engine is not sqlalchemy.create_engine,
        "ABIs": abis.validate_abi is not validation.validate_abi,
    }
    assert set(replaced.values()) == {SHORTCUTS}, replaced
