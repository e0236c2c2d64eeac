"""A mistake in the config names the field by its asset, the value and what to write, in our words alone."""

from __future__ import annotations

from copy import deepcopy
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from agent.config.load import load_config, parse_config
from agent.errors import ConfigError
from tests.support.configs.keys import BASES, PLACES
from tests.support.configs.lp_targets import POOL
from tests.support.configs.samples import config_text
from tests.support.text import mentions

PYDANTIC = (
    *("Input should", "String should", "List should", "Dictionary should", "Value error", "Field required", "Extra inputs", "Unable to"),
    *("should have", "valid string", "valid integer", "valid dictionary", "validation error", "discriminator", "pydantic"),
)
"""Words of its messages."""
WRONG: tuple[Any, ...] = (1, -1, 10**30, 1.5, "x", "", True, [], ["x"], [1], {}, {"x": 1}, date(2026, 1, 1), [{}], [[]], "a" * 1_000)


def error(*changes: tuple[str, str]) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(config_text(*changes))
    return caught.value.message


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (('slippage = "0.3%"', 'slippige = "0.3%"'), "limits.slippige: unknown key; did you mean slippage?"),
        (('cooldown = "1h"', 'cooldwn = "1h"'), "policy.cooldwn: unknown key; did you mean cooldown?"),
        (("[execution]", "[exection]"), "exection: unknown key; did you mean execution?"),
        (("confirmations = 2", "confirmation = 2"), "chain.confirmation: unknown key; did you mean confirmations?"),
        (('operator = "two"', 'operater = "two"'), "operater: unknown key; did you mean operator?"),
        (('reserve = "0" ', 'reserv = "0" '), "portfolio.assets.WETH.reserv: unknown key; did you mean reserve?"),
        (('kind = "threshold", relative', 'kind = "threshold", relativ'), "policy.trigger.relativ: unknown key; did you mean relative?"),
        (('cooldown = "1h"', 'cooldown = "1h"\ndaily_turnover = "1%"'), "policy.daily_turnover: unknown key; it belongs in [limits]"),
        (("[store]", "[nonsense]\nx = 1\n[store]"), "nonsense: unknown key; remove it or check its spelling"),
    ],
)
def test_a_misspelt_key_is_told_what_was_meant(change: tuple[str, str], reason: str) -> None:
    assert reason in error(change)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (('target = "50%"', "target = []"), "portfolio.assets.WETH.target"),
        (('reserve = "0" ', "reserve = -1 "), "portfolio.assets.WETH.reserve: -1 is not an amount"),
        (('operator = "two"', 'operator = "two"\ntimeout = 5'), "chain.rpc.two.timeout: 5 is not a duration"),
        (
            ('destination = "target"', 'destination = "moon"'),
            "destination: choose from 'target', 'band', 'halfway' or 'zone' (got 'moon')",
        ),
        (("confirmations = 2", "confirmations = 0"), "chain.confirmations: write at least 1 (got 0)"),
        (("confirmations = 2", 'confirmations = "two"'), "chain.confirmations: write a whole number (got 'two')"),
        (("confirmations = 2", "confirmations = 99"), "chain.confirmations: write at most 64 (got 99)"),
        (("chain_id = 1\n", "chain_id = 0\n"), "chain.chain_id: write above 0 (got 0)"),
        (("submit_public_fallback = false", 'submit_public_fallback = "maybe"'), "write true or false (got 'maybe')"),
        (("fee_tiers = [100, 500, 3000, 10000]", "fee_tiers = []"), "venues.uniswap_v3.fee_tiers: 0 entries; write at least 1"),
        (("fee_tiers = [100, 500, 3000, 10000]", 'fee_tiers = "100"'), "write a list such as [100] (got '100')"),
        (("payout_addresses = []", 'payout_addresses = "0x12"'), "payout_addresses: write a list such as [\"0x12\"] (got '0x12')"),
        (("payout_addresses = []", f'payout_addresses = ["0x{"0" * 40}"]'), "is the zero address, which nobody owns; write another"),
        (("fee_tiers = [100, 500, 3000, 10000]", "fee_tiers = 100"), "write a list such as [1, 2] (got 100)"),
        (('kind = "threshold", relative = "10%"', 'kind = "moon"'), "policy.trigger: 'moon' is not a kind; choose from 'threshold'"),
        (('kind = "threshold", relative = "10%"', 'relative = "10%"'), "policy.trigger: kind is missing"),
        (("confirmations = 2", "confirmations = 2.5"), "chain.confirmations: write a whole number (got 2.5)"),
        (('symbol = "WETH"', 'symbol = "a b"'), "portfolio.assets.0.symbol: write 1 to 16 letters, digits, . _ or - (got 'a b')"),
    ],
)
def test_wrong_value__is_named_by_its_asset_with_what_to_write(change: tuple[str, str], reason: str) -> None:
    assert reason in error(change)


@pytest.mark.parametrize(
    ("section", "reason"),
    [
        ('[signals.trend]\ntimeout = "10s"\nfile = "trend.py"', "signals.trend.file: write FILE.py:FUNCTION (got 'trend.py')"),
        ('[signals.trend]\ntimeout = "10s"\nfile = "trend:best"', "signals.trend.file: write FILE.py:FUNCTION (got 'trend:best')"),
        (
            '[signals.trend]\ntimeout = "10s"\nfile = "trend.py:best"\nsha256 = "12ab"',
            "signals.trend.sha256: write 64 hexadecimal digits in lower case, as sha256sum prints them (got '12ab')",
        ),
        (
            '[data.daily]\nsource = "closes.csv"\nsha256 = "ABC"',
            "data.daily.sha256: write 64 hexadecimal digits in lower case, as sha256sum prints them (got 'ABC')",
        ),
        (
            '[portfolio.weights]\ncap = "50%"',
            "portfolio.weights.kind: missing; a config of trimtab init shows it with a value",
        ),
    ],
    ids=["file without function", "file without suffix", "hash of a signal", "hash of data", "missing key"],
)
def test_value_of_a_pattern__is_described_by_its_form(section: str, reason: str) -> None:
    assert reason in error(("# Only positions", f"{section}\n# Only positions"))


@pytest.mark.parametrize(
    "section",
    [
        pytest.param('[telegram]\ntoken_env = "SECRET-1:AAH"\nchats = [7]\npoll = "1s"', id="token of a bot"),
        pytest.param('[second_opinions]\nservices = ["0x"]\nzero_x_env = "SECRET-1.eyJ"', id="key of a service"),
        pytest.param('[service]\nheartbeat_url_env = "SECRET-1/ping"', id="address of a heartbeat"),
        pytest.param('[telegram]\ntoken_env = ["SECRET-1:AAH"]\nchats = [7]', id="list with a token"),
        pytest.param('[telegram]\ntoken_env = "BOT"\nchats = "https://SECRET-1.example"', id="URL in another key"),
        pytest.param('[data.daily]\nsource = "x.csv"\nsha256 = "x"\ncolumns = "https://SECRET-1"', id="URL in an unknown key"),
        pytest.param('[execution.pace]\nstyle = "twap"\nduration = "https://SECRET-1.example"', id="URL that is no duration"),
    ],
)
def test_value_in_place_of_a_variable_s_name_is_not_repeated(section: str) -> None:
    message = error(("# Only positions", f"{section}\n# Only positions"))

    assert section.partition("]")[0].removeprefix("[") in message
    assert "SECRET" not in message


@pytest.mark.parametrize(
    ("old", "new", "remedy"),
    [
        pytest.param('target = "50%"', "target = 50%", 'put the value in quotes: "50%"', id="percentage"),
        pytest.param(
            'kind = "threshold", relative = "10%"',
            'kind = "threshold", relative = 10%',
            'put the value in quotes: "10%"',
            id="percentage in a table",
        ),
        pytest.param('cooldown = "1h"', "cooldown = 1h", 'put the value in quotes: "1h"', id="duration"),
        pytest.param(
            "confirmations = 2", "confirmations = 2\nconfirmations = 3", "confirmations is set twice: keep one line", id="key twice"
        ),
        pytest.param("confirmations = 2", "confirmations = 2\nrpc = 3", "chain.rpc is set twice: keep one line", id="key and table"),
        pytest.param(
            "# Only positions",
            '[policy]\ntrigger = { kind = "tracking" }\n# Only positions',
            "the file has a table [policy] already: write these keys there, each once",
            id="table twice",
        ),
        pytest.param("confirmations = 2", "confirmations = 2 = 3", "correct it; trimtab init writes a valid config", id="two equal signs"),
    ],
)
def test_invalid_toml__names_the_remedy_of_common_mistakes(old: str, new: str, remedy: str) -> None:
    with pytest.raises(ConfigError, match="not valid TOML") as raised:
        parse_config(config_text((old, new)))
    assert raised.value.remedy == remedy


def test_a_pool_is_told_by_its_address() -> None:
    target = f'[[lp.targets]]\nkind = "uniswap_v3"\npool = "{POOL}"\nshare = "ten"\nwidth = "20%"\ncompound_above = "off"\n'
    assert mentions(error(("# Only positions", f"{target}# Only positions")), f"lp.targets.{POOL}.share", "'ten'")


@pytest.mark.parametrize("secret", ["0x4c08" + "83a6" * 15, "canyon " * 11 + "sausage"], ids=["key", "recovery phrase"])
@pytest.mark.parametrize(
    "trigger",
    [
        'kind = "time", cron = "0 9 * * mon", timezone = "{}"',
        'kind = "time", cron = "{}"',
        'kind = "{}"',
    ],
    ids=["time zone", "cron", "kind"],
)
def test_secret_in_a_wrong_key__is_never_repeated(trigger: str, secret: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(config_text(('kind = "threshold", relative = "10%"', trigger.format(secret))), "my.toml")
    assert caught.value.message.startswith("my.toml: ")
    assert secret[20:] not in str(caught.value)


WALLET_KEY = "4c08" + "83a6" * 15


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            ("[wallet]\naddress = ", f"[wallet]\naddress = 0x{WALLET_KEY}\nother = "),
            "wallet.address: (secret) is a number, not an address",
            id="without quotes",
        ),
        pytest.param(("[wallet]\n", f'[wallet]\n"{WALLET_KEY}" = 1\n'), "wallet.(a key that cannot be shown): unknown key", id="as a key"),
        pytest.param(
            ("[wallet]\n", f'[wallet]\n"https://eth.example/v2/{WALLET_KEY[:9]}" = 1\n'),
            "wallet.(a key that cannot be shown): unknown key",
            id="address of an endpoint as a key",
        ),
    ],
)
def test_secret_in_another_place__is_never_repeated(change: tuple[str, str], message: str) -> None:
    text = error(change)
    assert message in text
    assert WALLET_KEY[:9] not in text
    assert str(int(WALLET_KEY, 16)) not in text


def test_key_of_its_own_table_s_name__is_not_suggested() -> None:
    assert mentions(error(("[limits]", "[limits]\nlimits = 1")), "limits.limits: unknown key; remove it or check its spelling")


@given(st.sampled_from(PLACES), st.sampled_from(WRONG))
def test_pydantic_s_own_wording_is_never_shown(where: tuple[dict[str, Any], tuple[str | int, ...]], value: object) -> None:
    base, place = where
    changed = deepcopy(base)
    at: Any = changed
    for part in place[:-1]:
        at = at[part]
    at[place[-1]] = value
    try:
        parse_config(tomlkit.dumps(changed))
    except ConfigError as caught:
        assert not [words for words in PYDANTIC if words in caught.message], caught.message
        assert "None" not in caught.message


@pytest.mark.parametrize("base", range(len(BASES)))
def test_wrong_value__never_names_an_asset_by_its_number(base: int) -> None:
    for symbol in ("WETH", "USDC"):
        changed = deepcopy(BASES[base])
        asset = next(asset for asset in changed["portfolio"]["assets"] if asset["symbol"] == symbol)
        asset["reserve"] = "many"
        with pytest.raises(ConfigError, match=rf"portfolio\.assets\.{symbol}\.reserve.*'many'"):
            parse_config(tomlkit.dumps(changed))


def test_missing_config__is_written_in_a_terminal_or_a_browser(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "none.toml")
    assert mentions(caught.value.remedy, "trimtab init", "trimtab serve --setup", "trimtab localchain")
