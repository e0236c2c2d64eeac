"""Tests sign by tables of multiples: with the same signatures and public keys as by eth_keys alone."""

from __future__ import annotations

import random

from eth_keys.backends.native import ecdsa, jacobian
from eth_keys.constants import SECPK1_G, SECPK1_N


def test_multiples_of_the_generator_are_those_of_eth_keys() -> None:
    dice = random.Random(1)
    assert ecdsa.fast_multiply is not jacobian.fast_multiply
    for factor in (*range(1, 20), SECPK1_N - 1, SECPK1_N + 1, *(dice.randrange(1, SECPK1_N) for _ in range(50))):
        assert ecdsa.fast_multiply(SECPK1_G, factor) == jacobian.fast_multiply(SECPK1_G, factor)
    assert ecdsa.jacobian_multiply((*SECPK1_G, 1), 0) == jacobian.jacobian_multiply((*SECPK1_G, 1), 0)
    point = jacobian.fast_multiply(SECPK1_G, 5)
    assert ecdsa.fast_multiply(point, 7) == jacobian.fast_multiply(SECPK1_G, 35)
