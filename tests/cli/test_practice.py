"""The chain of practice beside the set-up page: started once, and anew with the next page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from agent.app.start import guide
from agent.config.load import load_config
from agent.errors import ConfigError, TrimtabError
from agent.fleet import practice
from agent.web.reading import ServingProcess
from tests.support.text import mentions


@pytest.fixture
def config(tmp_path: Path) -> Iterator[str]:
    yield str(tmp_path / "mine.toml")


def write_config(path: str, network: str) -> None:
    """Write a config with the answers that the page asks for."""
    guide.write_setup(path, {"network": network, "basket": "small", "cash": "5000"})


@pytest.mark.slow
def test_a_second_start_finds_the_first_and_a_later_one_begins_anew(config: str) -> None:
    first = ServingProcess(practice.serve_practice, config)
    chain_file = first.wait()
    url = load_config(chain_file).config.chain.rpc[0].read_url()
    second = ServingProcess(practice.serve_practice, config)
    try:
        assert second.wait() == chain_file
        assert load_config(chain_file).config.chain.rpc[0].read_url() == url
        assert max(int(basket.minimum_capital) for basket in guide.baskets(chain_file)) <= 500, "dollars suffice for each"
        write_config(config, chain_file)
        about = practice.practice_document(config)
        assert about == {"port": int(url.rpartition(":")[2]), "tokens": ["WETH", "cbBTC"], "ledger": "mine.paper.db"}
        assert practice.kept_ledger(config) == ""
        assert practice.move_price(config, "WETH", "+20%") == "3600.0"
        with pytest.raises(ConfigError, match="DOGE"):
            practice.move_price(config, "DOGE", "+20%")
    finally:
        second.stop()
        first.stop()
    with pytest.raises(OSError, match="refused"):
        urlopen(url)

    ledger = Path(config).with_name("mine.paper.db")
    ledger.write_bytes(b"a ledger of the first chain")
    later = ServingProcess(practice.serve_practice, config)
    try:
        later.wait()
        assert practice.practice_document(config) == about, "on the port that the config names"
        assert not ledger.exists()
        assert [file.read_bytes() for file in ledger.parent.glob("old-*-mine.paper.db")] == [b"a ledger of the first chain"]
        assert [practice.kept_ledger(config)] == [file.name for file in ledger.parent.glob("old-*.paper.db")]
    finally:
        later.stop()


def test_config_of_another_network__has_no_chain(config: str) -> None:
    assert practice.practice_document(config) is None, "not written"
    with pytest.raises(ConfigError, match="not one of practice"):
        practice.move_price(config, "WETH", "+20%")


def test_a_file_of_the_owner_is_never_replaced(config: str) -> None:
    practice.chain_file(config).write_text("[chain]\nchain_id = 1\n")
    with pytest.raises(ConfigError) as refused:
        practice.serve_practice(lambda _: None, config)
    assert mentions(refused.value.message, "nothing", "changed")


def test_without_anvil__the_remedy_is_named(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def miss() -> Path:
        raise ConfigError("anvil: not installed", "install the npm packages again")

    monkeypatch.setattr("agent.app.local.anvil_binary", miss)
    with pytest.raises(TrimtabError) as missing:
        practice.serve_practice(lambda _: None, config)
    assert "Practice needs anvil" in missing.value.message
    assert missing.value.remedy == "install the npm packages again"
