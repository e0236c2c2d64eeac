"""Keystores are made, taken over and locked anew: whole or not at all, never over a file, weak passwords refused (R6.1, T18)."""

from __future__ import annotations

import errno
import json
import os
import stat
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import app as api
from agent.errors import ConfigError
from agent.signing import keys
from agent.signing.keys import TEST_MNEMONIC, Secret, TestAccountKey, load_key
from tests.support.records.wallet_files import ADDRESS, GOOD, KEY, OTHER, address_in_file, typist
from tests.support.text import raises_code, raises_field


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "SCRYPT_N", 2**4)


def create(path: Path, *typed: str) -> str:
    """Create a wallet by what is typed, by default a good password twice; return its address."""
    return str(api.create_wallet(path, None, api.PasswordSource(), typist(*(typed or (GOOD, GOOD))))["address"])


def change(path: Path, *typed: str) -> dict[str, Any]:
    """Change the password by what is typed, by default from GOOD to OTHER."""
    return api.change_password(path, api.PasswordSource(), api.PasswordSource(), typist(*(typed or (GOOD, OTHER, OTHER))))


def names(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()]


@pytest.fixture
def wallet(tmp_path: Path) -> Path:
    """The file of a new wallet with the password GOOD."""
    path = tmp_path / "w.json"
    create(path)
    return path


def failing(error: BaseException) -> Callable[..., None]:
    """Return a function that raises this."""

    def fail(*_: object) -> None:
        raise error

    return fail


NO_LINKS = OSError(errno.EPERM, "no links here")


@pytest.mark.parametrize("has_links", [True, False], ids=["with hard links", "without hard links"])
def test_new_wallet__is_a_private_version_3_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool) -> None:
    if not has_links:
        monkeypatch.setattr(os, "link", failing(NO_LINKS))
    path = tmp_path / "wallet.json"
    address = create(path)
    assert address_in_file(path, GOOD) == address
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    sheet = json.loads(path.read_text())
    assert (sheet["version"], sheet["crypto"]["kdf"]) == (3, "scrypt")
    assert names(tmp_path) == ["wallet.json"]


def test_two_new_wallets_have_nothing_in_common(tmp_path: Path) -> None:
    addresses = [create(tmp_path / f"{n}.json") for n in range(4)]
    assert len(set(addresses)) == 4


def test_the_work_factor_is_that_of_geth(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    create(tmp_path / "wallet.json")
    params = json.loads((tmp_path / "wallet.json").read_text())["crypto"]["kdfparams"]
    assert (params["n"], params["r"], params["p"]) == (262_144, 8, 1)


@pytest.mark.parametrize("text", [KEY, "0x" + KEY, f"  {KEY.upper()} \n"])
def test_a_key_is_taken_over_as_it_is_written_anywhere(tmp_path: Path, text: str) -> None:
    assert api.import_wallet(tmp_path / "w.json", None, api.PasswordSource(), typist(text, GOOD, GOOD))["address"] == ADDRESS
    assert address_in_file(tmp_path / "w.json", GOOD) == ADDRESS


def test_a_recovery_phrase_gives_the_account_of_its_number(tmp_path: Path) -> None:
    for index in (0, 7):
        new_key_document = api.import_wallet(
            tmp_path / f"{index}.json", None, api.PasswordSource(), typist(TEST_MNEMONIC, GOOD, GOOD), index
        )
        assert new_key_document["address"] == load_key(TestAccountKey(index), 31337, ask=None).address
        assert any("published" in warning for warning in new_key_document["warnings"])


@pytest.mark.parametrize("text", ["", "0x", KEY[:-1], KEY + "0", "00" * 32, "ff" * 32, "test " * 12, TEST_MNEMONIC + "s", "zoo " * 24])
def test_neither_key_nor_phrase__is_refused_and_writes_nothing(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        api.import_wallet(tmp_path / "w.json", None, api.PasswordSource(), typist(text, GOOD, GOOD))
    assert caught.value.remedy
    assert not list(tmp_path.iterdir())
    assert not text.strip() or text.strip() not in str(caught.value)


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("", "empty"),
        (" " * 20, "empty"),
        ("short", "fewer than 12 characters"),
        ("elevenchars", "fewer than 12 characters"),
        ("a" * 40, "different characters"),
        ("ababababababab", "different characters"),
        ("password1234", "the password is a common one"),
        ("Trimtab1234567890", "the password is a common one"),
    ],
)
def test_a_weak_password_is_refused_before_anything_is_written(tmp_path: Path, password: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        create(tmp_path / "w.json", password, password)
    assert why in str(caught.value)
    assert "at least 12" in caught.value.remedy
    assert not list(tmp_path.iterdir())


@given(text=st.text(st.characters(codec="utf-8"), max_size=11))
def test_no_password_under_twelve_characters_is_taken(text: str) -> None:
    with pytest.raises(ConfigError, match=r"the password (is empty|has fewer than 12 characters)"):
        keys.require_strong_password(Secret(text))


def test_passwords_that_differ_write_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="differ"):
        create(tmp_path / "w.json", GOOD, GOOD + " ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["file", "folder", "dangling link"])
def test_nothing_is_ever_written_over(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "wallet.json"
    match kind:
        case "file":
            path.write_text("somebody's only key")
        case "folder":
            path.mkdir()
        case _:
            path.symlink_to(tmp_path / "elsewhere.json")
    with raises_code(ConfigError, "exists"):
        api.create_wallet(path, None, api.PasswordSource(), typist())  # nobody is asked for a password first
    assert names(tmp_path) == ["wallet.json"]
    assert kind != "file" or path.read_text() == "somebody's only key"


@pytest.mark.parametrize("links", [True, False], ids=["with hard links", "without hard links"])
def test_a_file_that_appears_meanwhile_is_not_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    path = tmp_path / "wallet.json"
    real = os.link

    def late(source: Path, target: Path) -> None:
        target.write_text("somebody's only key")
        if not links:
            raise NO_LINKS
        real(source, target)

    monkeypatch.setattr(os, "link", late)
    with raises_code(ConfigError, "exists"):
        create(path)
    assert path.read_text() == "somebody's only key"
    assert names(tmp_path) == ["wallet.json"]


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", failing(OSError(errno.ENOSPC, "No space left on device")))
    with raises_code(ConfigError, "file", "No space left"):
        create(tmp_path / "w.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("write", [create, change])
@pytest.mark.parametrize("fault", [KeyboardInterrupt, OSError(errno.EIO, "Input/output error")], ids=["interrupted", "unreadable"])
def test_keystore_that_is_not_verified__leaves_no_draft(
    write: Callable[[Path], object], fault: BaseException | type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.json"
    if write is change:
        create(path)
    files = {file: file.read_bytes() for file in tmp_path.iterdir()}
    read = keys.read_private_file

    def fail(read_path: Path) -> bytes:
        if read_path == path:
            return read(read_path)
        raise fault

    monkeypatch.setattr(keys, "read_private_file", fail)
    with pytest.raises((KeyboardInterrupt, ConfigError)):
        write(path)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == files


@pytest.mark.parametrize("write", [create, change])
def test_file_system_without_permissions__is_refused_by_name(
    write: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On exFAT a file reads as mode 0755, whatever it was made with."""
    path = tmp_path / "w.json"
    if write is change:
        create(path)
    open_file = os.open
    monkeypatch.setattr(os, "open", lambda name, flags, mode=0o777, **more: open_file(name, flags, mode | 0o755, **more))
    with raises_code(ConfigError, "file", str(path), "file system") as caught:
        write(path)
    assert "chmod" not in caught.value.remedy
    assert names(tmp_path) == (["w.json"] if write is change else [])


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with raises_code(ConfigError, "folder"):
        create(tmp_path / "none" / "w.json")


def test_a_file_that_does_not_open_again_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "open_keystore", lambda raw, password, path: ConfigError("damaged"))
    with raises_code(ConfigError, "file", "decrypted"):
        create(tmp_path / "w.json")
    assert not list(tmp_path.iterdir())


def test_a_changed_password_opens_and_the_old_one_does_not(tmp_path: Path) -> None:
    path = tmp_path / "w.json"
    address = create(path)
    changed = change(path)
    assert changed["address"] == address == address_in_file(path, OTHER)
    assert "old password" in changed["warnings"][0]
    with raises_field("wallet.keystore", "wrong password"):
        address_in_file(path, GOOD)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert names(tmp_path) == ["w.json"]


def test_keystore_link__stays_a_link_when_its_password_changes(wallet: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.json"
    link.symlink_to(wallet)
    change(link)
    assert link.is_symlink()
    assert address_in_file(wallet, OTHER)


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        pytest.param(("wrong " + GOOD, OTHER, OTHER), "wrong password for", id="wrong password"),
        pytest.param((GOOD, OTHER, OTHER + "."), "the two passwords differ", id="other repetition"),
        pytest.param((GOOD, "short"), "fewer than 12 characters", id="short password"),
        pytest.param((GOOD, GOOD, GOOD), "the new password is the old one", id="same password"),
    ],
)
def test_unchangeable_password__leaves_the_file_as_it_was(wallet: Path, tmp_path: Path, typed: tuple[str, ...], reason: str) -> None:
    before = wallet.read_bytes()
    with pytest.raises(ConfigError, match=reason):
        change(wallet, *typed)
    assert wallet.read_bytes() == before
    assert names(tmp_path) == ["w.json"]


def test_key__is_never_encrypted_with_a_weak_password(wallet: Path) -> None:
    with pytest.raises(ConfigError, match="password"):
        keys.change_password(wallet, Secret(GOOD), Secret("short"))
    assert address_in_file(wallet, GOOD)


def test_crash_before_the_new_file__leaves_the_old_one(wallet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = wallet.read_bytes()
    monkeypatch.setattr(Path, "replace", failing(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        change(wallet)
    assert wallet.read_bytes() == before


def test_a_password_comes_from_a_named_variable_or_a_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PW", GOOD)
    first = api.create_wallet(tmp_path / "1.json", None, api.PasswordSource(env="PW"), None)
    assert address_in_file(tmp_path / "1.json", GOOD) == first["address"]
    for number, line in enumerate((GOOD, GOOD + "\n", GOOD + "\r\nmore")):
        read, write = os.pipe()
        os.write(write, line.encode())
        os.close(write)
        api.create_wallet(tmp_path / f"fd{number}.json", None, api.PasswordSource(fd=read), None)
        assert address_in_file(tmp_path / f"fd{number}.json", GOOD)
        os.close(read)


@pytest.mark.parametrize(
    ("password", "why"),
    [
        (api.PasswordSource(env="NOT_SET"), "NOT_SET is not set"),
        (api.PasswordSource(env=KEY), "not the name of an environment variable"),
        (api.PasswordSource(env="PW", fd=3), "both given"),
        (api.PasswordSource(fd=0), "standard stream"),
        (api.PasswordSource(fd=-1), "standard stream"),
        (api.PasswordSource(fd=9999), "cannot be read"),
        (api.PasswordSource(), "no terminal"),
    ],
)
def test_a_password_that_cannot_be_had_is_told_by_its_option(tmp_path: Path, password: api.PasswordSource, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        api.create_wallet(tmp_path / "w.json", None, password, None)
    assert KEY not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("keyring", "config_name", "password", "option"),
    [
        pytest.param("trimtab/main", None, api.PasswordSource("PW"), "--password-env", id="keyring"),
        pytest.param(None, "a.toml", api.PasswordSource("PW"), "--password-env", id="config"),
        pytest.param("trimtab/main", None, api.PasswordSource(fd=3), "--password-fd", id="descriptor"),
    ],
)
def test_address__refuses_a_password_that_it_would_not_use(
    tmp_path: Path, keyring: str | None, config_name: str | None, password: api.PasswordSource, option: str
) -> None:
    config_path = None if config_name is None else tmp_path / config_name
    with pytest.raises(ConfigError, match=f"^{option}: only the file that --keystore names has a password"):
        api.wallet_address(None, keyring, config_path, password, None, True)


def test_address__is_read_without_the_password_and_proven_with_it(tmp_path: Path) -> None:
    path = tmp_path / "w.json"
    address = create(path)
    assert api.wallet_address(path, None, None, api.PasswordSource(), None, False) == {
        "address": address,
        "keystore": str(path),
        "verified": False,
    }
    assert api.wallet_address(path, None, None, api.PasswordSource(), typist(GOOD), True)["verified"] is True
    sheet = json.loads(path.read_text())
    del sheet["address"]
    path.write_text(json.dumps(sheet))
    with raises_code(ConfigError, "unknown", "w.json") as caught:
        api.wallet_address(path, None, None, api.PasswordSource(), None, False)
    assert "--verify" in caught.value.remedy
    path.chmod(0o640)
    with raises_field("wallet.keystore", "0640"):
        api.wallet_address(path, None, None, api.PasswordSource(), None, False)


def test_address__is_refused_if_the_file_states_another(tmp_path: Path) -> None:
    """Somebody changed the file: its owner would fund the stated address."""
    path = tmp_path / "w.json"
    address = create(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"address": "11" * 20}))
    with pytest.raises(ConfigError, match=f"states the address 0x{'11' * 20}, but its key has {address}"):
        api.wallet_address(path, None, None, api.PasswordSource(), typist(GOOD), True)


def test_new_wallet__is_named_in_toml_whatever_its_path(tmp_path: Path) -> None:
    path = tmp_path / 'my "own" \\ key.json'
    lines = api.create_wallet(path, None, api.PasswordSource(), typist(GOOD, GOOD))["config"]
    assert tomllib.loads("\n".join(lines))["keystore"] == str(path)


def keystore_of(uid: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a private file of this user, read by user 1000."""
    path = folder / "w.json"
    path.write_bytes(b"{}")
    path.chmod(0o600)
    status = path.stat()
    monkeypatch.setattr(os, "geteuid", lambda: 1_000)
    monkeypatch.setattr(os, "fstat", lambda _: os.stat_result((*status[:4], uid, *status[5:])))
    return path


@pytest.mark.parametrize("uid", [1_000, 0], ids=["its reader", "root"])
def test_a_keystore_belongs_to_its_reader_or_to_root(uid: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert keys.read_private_file(keystore_of(uid, tmp_path, monkeypatch)) == b"{}"


def test_a_keystore_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = keystore_of(1_001, tmp_path, monkeypatch)
    with raises_field("wallet.keystore", "another user"):
        keys.read_private_file(path)
