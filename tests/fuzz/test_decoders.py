"""What endpoints, files and calldata say, changed in every way: a decoder fails in our own words or not at all."""

from __future__ import annotations

import pickle
import random
from pathlib import Path

import pytest

from agent.localchain import LocalChain
from tests.fuzz.decoders import QUESTIONS, crashes, mutations, survives, targets
from tests.fuzz.seeds import UNANSWERED, record

SLOW = ("second_quote",)
"""Half a second for each answer: real ones only."""
SEED = 7


@pytest.mark.parametrize("tries", [15, pytest.param(40, marks=pytest.mark.slow)])
def test_answer_file_or_calldata__raises_only_our_errors(anvil_chain: LocalChain, tmp_path: Path, tries: int) -> None:
    """Real answers, what once broke a decoder, and seeded mutations of both; `make fuzz` goes on with atheris."""
    scene, seeds = record(anvil_chain, tmp_path)
    scene = pickle.loads(pickle.dumps(scene))
    for name, target in targets(scene).items():
        assert name in seeds
        draw = random.Random(SEED)
        for data in seeds[name][:1] if name in SLOW else (*seeds[name], *crashes(name)):
            survives(target, data)
            if name in SLOW:
                continue
            for _, changed in zip(range(tries), mutations(data, draw), strict=False):
                survives(target, changed)
        if name in QUESTIONS and name not in UNANSWERED:
            target(seeds[name][0])  # understood as it was when it was recorded


def test_an_error_that_is_not_ours_is_found() -> None:
    def broken(data: bytes) -> object:
        return data.decode("ascii")

    survives(broken, b"abc")
    with pytest.raises(UnicodeDecodeError):
        survives(broken, b"\xff")
