"""`trimtab wallet` as a user meets it: typed unseen, on standard input, by named variables; never as an argument."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.signing import keys
from tests.cli.terminal import typed
from tests.cli.tools import CommandResult
from tests.support.keyrings import MemoryKeyring, using
from tests.support.records.wallet_files import ADDRESS, GOOD, KEY, OTHER, address_in_file

Bare = Callable[..., CommandResult]


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(keys, "SCRYPT_N", 2**4)
    monkeypatch.chdir(tmp_path)


def test_key_and_password__are_typed_unseen_and_not_listed(tmp_path: Path) -> None:
    """The whole way by hand, with the work factor of real wallets."""
    replies = [("recovery phrase: ", KEY), ("New password: ", GOOD), ("Again: ", GOOD)]
    import_result = typed(replies, "wallet", "import", cwd=tmp_path, program=subprocess.Popen)
    assert import_result.code == 0, import_result.screen_text
    assert ADDRESS in import_result.screen_text
    assert address_in_file(tmp_path / "wallet.json", GOOD) == ADDRESS
    assert import_result.command_line
    assert KEY not in import_result.screen_text
    assert GOOD not in import_result.screen_text
    assert KEY.encode() not in import_result.command_line
    assert GOOD.encode() not in import_result.command_line


def test_a_new_wallet_by_a_named_variable(bare: Bare, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PW", GOOD)
    result = bare("wallet", "create", "--password-env", "PW", "--json")
    assert result.code == 0, result.why
    assert address_in_file(tmp_path / "wallet.json", GOOD) == result.json["address"]
    assert bare("wallet", "address", "--json").json == {"address": result.json["address"], "keystore": "wallet.json", "verified": False}
    assert bare("wallet", "address", "--verify", "--password-env", "PW", "--json").json["verified"] is True
    again = bare("wallet", "create", "--password-env", "PW", "--json")
    assert again.code == 2
    assert "exists already" in again.error["message"]


def test_key__comes_on_standard_input_without_a_terminal(bare: Bare, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PW", GOOD)
    reader, writer = os.pipe()
    os.write(writer, f"0x{KEY}\n".encode())
    os.close(writer)
    with os.fdopen(reader) as piped:
        monkeypatch.setattr(sys, "stdin", piped)
        result = bare("wallet", "import", "--password-env", "PW", "--json")
    assert result.code == 0
    assert result.json["address"] == ADDRESS
    assert KEY not in result.out + result.err


def test_a_changed_password_is_the_one_that_opens(bare: Bare, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PW", GOOD)
    monkeypatch.setenv("NEW", OTHER)
    address = bare("wallet", "create", "--password-env", "PW", "--json").json["address"]
    result = bare("wallet", "change-password", "--password-env", "PW", "--new-password-env", "NEW")
    assert result.code == 0
    assert "password" in result.out
    assert address_in_file(tmp_path / "wallet.json", OTHER) == address
    refused = bare("wallet", "change-password", "--password-env", "PW", "--new-password-env", "NEW", "--json")
    assert refused.code == 2
    assert "wrong password" in refused.error["message"]


def test_a_key_in_the_keyring_needs_no_file_and_no_password(bare: Bare, tmp_path: Path) -> None:
    with using(MemoryKeyring()):
        result = bare("wallet", "create", "--keyring", "trimtab/main", "--json")
        assert result.code == 0
        assert result.json["keystore"] is None
        assert result.json["config"] == [f'address = "{result.json["address"]}"', 'keyring = "trimtab/main"']
        assert bare("wallet", "address", "--keyring", "trimtab/main").out.strip() == result.json["address"]
    assert not list(tmp_path.iterdir())


def test_without_a_terminal_and_a_named_password_nothing_is_made(bare: Bare, tmp_path: Path) -> None:
    for command in ("create", "change-password"):
        result = bare("wallet", command, "--json")
        assert result.code == 2
        assert result.error["remedy"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "args",
    [
        pytest.param(("wallet", "import", KEY), id="key"),
        pytest.param(("wallet", "import", f"0x{KEY}", "more"), id="prefixed key and a word"),
        pytest.param(("wallet", "create", GOOD, KEY), id="password and key"),
        ("wallet", KEY),
        pytest.param(("wallet", "import", "--index", KEY), id="key as an index"),
        pytest.param(("wallet", "import", f"--{KEY}"), id="key as an option"),
        pytest.param(("wallet", "import", "--password-env", KEY), id="key as a variable"),
        pytest.param(("wallet", "import", "--password-fd", f"0x{KEY}"), id="key as a descriptor"),
        pytest.param(("wallet", "import", "--keyring", KEY), id="key as a keyring"),
        ("wallet", " ".join(["canary"] * 12)),
        pytest.param(("wallet", "import", *["canary"] * 12), id="phrase"),
    ],
)
@pytest.mark.parametrize("form", [(), ("--json",)], ids=["people", "json"])
def test_secret_as_an_argument__is_refused_and_not_repeated(bare: Bare, args: tuple[str, ...], form: tuple[str, ...]) -> None:
    result = bare(*args, *form)
    assert result.code == 2
    for secret in (KEY, GOOD, "canary canary"):
        assert secret not in result.out + result.err
