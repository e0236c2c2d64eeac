"""Keys of [chain], [[chain.rpc]] and private submission: what they mean, and mistakes that name field, value and remedy."""

from __future__ import annotations

import pytest
import tomlkit

from agent.config import load
from agent.config.presets import ETHEREUM
from agent.config.schema import Config
from agent.config.template import TemplateAsset, render
from agent.errors import ConfigError

SECRET = "ftp://relay.example/s3cr3t"


def template(operators: str) -> tomlkit.TOMLDocument:
    assets = [TemplateAsset(t.symbol, t.address, "50%", t.feed) for t in (ETHEREUM.tokens[0], ETHEREUM.tokens[2])]
    return tomlkit.parse(render(ETHEREUM, ETHEREUM.wrapped_native, assets, [], "USDC", [(f"RPC_{who}", who) for who in operators]))


def parsed(chain: dict[str, object] | None = None, execution: dict[str, object] | None = None, operators: str = "abc") -> Config:
    document = template(operators)
    for table, changes in (("chain", chain), ("execution", execution)):
        for key, value in (changes or {}).items():
            document[table][key] = value  # type: ignore[index]  # tomlkit's tables are typed as items
    return load.parse_config(tomlkit.dumps(document))


def test_two_operators_must_agree_unless_one_is_named_or_more_are_asked_for() -> None:
    assert parsed().chain.min_operators == 2
    assert parsed({"quorum": 3}).chain.min_operators == 3
    assert parsed({"single_operator": "a"}, operators="a").chain.min_operators == 1
    assert parsed({"quorum": 2}, operators="ab").chain.min_operators == 2


@pytest.mark.parametrize(
    ("chain", "execution", "words"),
    [
        ({"quorum": 1}, {}, ("quorum: 1", "single_operator")),
        ({"quorum": 4}, {}, ("quorum: 4", "names 3", "add endpoints")),
        ({"max_lag_blocks": -1}, {}, ("max_lag_blocks", "-1")),
        ({"max_lag_blocks": 65}, {}, ("max_lag_blocks", "65")),
        ({}, {"submit_public_fallback": True}, ("submit_public_fallback", "submit_url", "remove it")),
        ({}, {"submit_url": SECRET}, ("submit_url", "https://")),
    ],
)
def test_a_mistake_names_the_field_and_what_to_do(chain: dict[str, object], execution: dict[str, object], words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        parsed(chain, execution)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("timeout", ["0s", "61s", "1h"])
def test_a_timeout_is_between_a_second_and_a_minute(timeout: str) -> None:
    rpc = [{"url_env": "RPC_A", "operator": "a", "timeout": timeout}, {"url_env": "RPC_B", "operator": "b", "timeout": "5s"}]
    with pytest.raises(ConfigError, match="from 1s to 60s, write for example 10s"):
        parsed({"rpc": rpc})


def test_the_template_never_goes_public_by_itself() -> None:
    assert template("ab")["execution"]["submit_public_fallback"] is False  # type: ignore[index]  # tomlkit's tables are typed as items
    assert parsed(execution={"submit_url": "https://relay.example"}).execution.submit_public_fallback is False
