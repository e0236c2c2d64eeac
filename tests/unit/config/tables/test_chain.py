"""Keys of [chain], [[chain.rpc]] and private submission: what they mean, and mistakes that name field, value and remedy."""

from __future__ import annotations

from pathlib import Path

import pytest
import tomlkit

from agent.app.describe import EITHER_PATH, PRIVATE_PATH, PUBLIC_PATH, submission_text
from agent.app.start.doctor.checks import doctor
from agent.config import load
from agent.config.networks.presets import ETHEREUM_PRESET, TemplateAsset
from agent.config.schema import Config
from agent.config.writing.template import render_config
from agent.errors import ConfigError, Retryable
from agent.fleet.chains import SharedConnections
from agent.wiring import SystemClock, open_transports
from tests.support.fakes.transport import ScriptedTransport
from tests.support.text import mentions, raises_field

SECRET = "ftp://relay.example/s3cr3t"


def template(operators: str) -> tomlkit.TOMLDocument:
    assets = [TemplateAsset(t.symbol, t.address, "50%", t.feed) for t in (ETHEREUM_PRESET.tokens[0], ETHEREUM_PRESET.tokens[2])]
    return tomlkit.parse(
        render_config(ETHEREUM_PRESET, ETHEREUM_PRESET.wrapped_native, assets, [], "USDC", [(f"RPC_{who}", who) for who in operators])
    )


def parsed(chain: dict[str, object] | None = None, execution: dict[str, object] | None = None, operators: str = "abc") -> Config:
    document = template(operators)
    for table, changes in (("chain", chain), ("execution", execution)):
        for key, value in (changes or {}).items():
            document[table][key] = value  # type: ignore[index]  # tomlkit's tables are typed as items
    return load.parse_config(tomlkit.dumps(document))


def test_two_operators__must_agree_unless_configured() -> None:
    assert parsed().chain.min_operators == 2
    assert parsed({"quorum": 3}).chain.min_operators == 3
    assert parsed({"single_operator": "a"}, operators="a").chain.min_operators == 1
    assert parsed({"quorum": 2}, operators="ab").chain.min_operators == 2


@pytest.mark.parametrize(("key", "address"), [("url_env", "RPC_a"), ("url", "https://rpc.example/s3cr3t")])
def test_two_operators__of_one_endpoint_are_refused(key: str, address: str) -> None:
    def of(operators: str, chain_id: int) -> Config:
        document = template(operators)
        document["chain"]["chain_id"] = chain_id  # type: ignore[index]  # as above
        for endpoint in document["chain"]["rpc"]:  # type: ignore[index, union-attr]
            endpoint.pop("url_env")
            endpoint[key] = address
        return load.parse_config(tomlkit.dumps(document))

    with pytest.raises(ConfigError) as caught:
        of("ab", 1)
    assert mentions(str(caught.value), "chain", "rpc: a and b have the same URL or variable", "give each operator its own")
    assert "s3cr3t" not in str(caught.value)
    assert of("a", 1).chain.min_operators == 2
    assert of("ab", 31337).chain.min_operators == 1, "on a local chain none has to agree"


@pytest.mark.parametrize("second_url", ["https://rpc.example/s3cr3t", "https://rpc.example/s3cr3t/"], ids=["same", "slash"])
def test_two_variables__of_one_url_are_refused_before_a_connection(second_url: str, tmp_path: Path) -> None:
    def with_second_url(url: str) -> Config:
        (tmp_path / ".env").write_text(f"RPC_a=https://rpc.example/s3cr3t\nRPC_b={url}\n")
        (tmp_path / ".env").chmod(0o600)
        return load.load_config(config_path).config

    config_path = tmp_path / "trimtab.toml"
    config_path.write_text(tomlkit.dumps(template("ab")))
    for connect in (open_transports, SharedConnections(SystemClock()).chain):
        with pytest.raises(ConfigError) as caught:
            connect(with_second_url(second_url))
        assert mentions(str(caught.value), "chain.rpc", "a and b have the same URL")
        assert "s3cr3t" not in str(caught.value)
    different = open_transports(with_second_url("https://rpc.example/another"))
    assert [transport.operator for transport in different] == ["a", "b"]


@pytest.mark.parametrize("url", ["http://127.0.0.1:8545", "http://localhost:8545"])
def test_two_variables__of_an_own_node_are_taken(url: str, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"RPC_a={url}\nRPC_b={url}\n")
    (tmp_path / ".env").chmod(0o600)
    config_path = tmp_path / "trimtab.toml"
    config_path.write_text(tomlkit.dumps(template("ab")))
    assert len(open_transports(load.load_config(config_path).config)) == 2


def test_an_explorer_is_an_address_with_or_without_a_path() -> None:
    assert parsed().chain.explorer == ""
    for address in ("https://etherscan.io", "http://127.0.0.1:4000/main/"):
        assert parsed({"explorer": address}).chain.explorer == address


@pytest.mark.parametrize(
    ("chain", "execution", "words"),
    [
        pytest.param({"quorum": 1}, {}, ("quorum: 1", "single_operator"), id="quorum of one"),
        pytest.param({"single_operator": "a"}, {}, ("single_operator: a", "names a, b, c"), id="one operator of three"),
        pytest.param({"single_operator": "A"}, {}, ("single_operator: A", "correct the name"), id="an operator that there is not"),
        pytest.param({"quorum": 4}, {}, ("quorum: 4", "names 3", "add endpoints"), id="quorum above the endpoints"),
        pytest.param({"max_lag_blocks": -1}, {}, ("max_lag_blocks", "-1"), id="negative lag"),
        pytest.param({"max_lag_blocks": 65}, {}, ("max_lag_blocks", "65"), id="lag too large"),
        *(
            ({"explorer": bad}, {}, ("explorer", "https://NAME"))
            for bad in ("javascript:alert(1)", "https://a@b.example", "https://x/?a=", "//x", "https://x\n")
        ),
        pytest.param(
            {}, {"submit_public_fallback": True}, ("submit_public_fallback", "submit_url", "remove it"), id="public without private"
        ),
        pytest.param({}, {"submit_url": SECRET}, ("submit_url", "https://"), id="secret as an address"),
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
    with raises_field("chain.rpc.a", "1s", "60s", "10s"):
        parsed({"rpc": rpc})


def test_the_template_never_goes_public_by_itself() -> None:
    assert template("ab")["execution"]["submit_public_fallback"] is False  # type: ignore[index]  # tomlkit's tables are typed as items
    assert parsed(execution={"submit_url": "https://relay.example"}).execution.submit_public_fallback is False


def test_public_transaction_s_cost__is_confirmed_on_a_live_chain() -> None:
    relay: dict[str, object] = {"submit_url": "https://relay.example"}
    assert mentions(submission_text(parsed()), "public mempool", "1.8 %")
    assert submission_text(parsed(execution=relay)) == PRIVATE_PATH
    either = submission_text(parsed(execution={**relay, "submit_public_fallback": True}))
    assert mentions(either, f"{EITHER_PATH}", "1.8 %")
    assert "relay.example" not in either
    for public in (submission_text(parsed()), either):
        assert mentions(public, "approval", "public")
    assert submission_text(parsed({"fork": True})) == PUBLIC_PATH, "on a fork nobody else is there"


def test_doctor__warns_before_public_submission_alone(tmp_path: Path) -> None:
    def row(execution: dict[str, object] | None = None) -> dict[str, str]:
        config = parsed({"single_operator": "a"}, execution, operators="a")
        (tmp_path / "trimtab.toml").write_text("")
        loaded = load.LoadedConfig(config, tmp_path / "trimtab.toml", "0" * 64)
        doctor_document = doctor(loaded, [ScriptedTransport("a", eth_chainId=Retryable("down"))], lambda: 0.0)
        return next(check for check in doctor_document["checks"] if check["check"] == "submission")

    public = row()
    assert public["state"] == "warn"
    assert "0.54 %" in public["finding"]
    assert "execution.submit_url" in public["remedy"]
    assert row({"submit_url": "https://relay.example"})["state"] == "ok"
