"""Keys in the keyring of the operating system: never over another, never into one that is readable, errors without the key."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest
from keyring.backend import KeyringBackend
from keyring.backends import fail, null

from agent import app as api
from agent.errors import ConfigError
from agent.signing import keys
from agent.signing.keys import KeyringEntry, load_from_keyring, load_key, require_keyring
from agent.signing.secret import Secret
from tests.support.foreign_text import shown_of
from tests.support.keyrings import FailingKeyring, MemoryKeyring, using
from tests.support.records.wallet_files import ADDRESS, GOOD, KEY, address_in_file, typist
from tests.support.text import raises_field


class ReadOnlyKeyring(MemoryKeyring):
    """Can be read but not written."""

    def set_password(self, service: str, username: str, password: str) -> None:
        raise RuntimeError(f"cannot store {password}")


class PlaintextKeyring(MemoryKeyring):
    """Named like a backend of keyrings.alt that writes into a readable file."""


NONE = api.PasswordSource()


def test_a_key_in_the_keyring_signs_for_its_wallet() -> None:
    with using(MemoryKeyring()):
        new_key_document = api.create_wallet(None, "trimtab/main", NONE, None)
        assert load_key(KeyringEntry("trimtab", "main"), 1, ask=None).address == new_key_document["address"]
        assert "this keyring" in new_key_document["warnings"][0]
        assert api.wallet_address(None, "trimtab/main", None, NONE, None, False)["address"] == new_key_document["address"]


def test_a_key_is_taken_over_into_both_keyring_and_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "SCRYPT_N", 2**4)
    with using(MemoryKeyring()):
        new_key_document = api.import_wallet(tmp_path / "w.json", "trimtab/main", NONE, typist(KEY, GOOD, GOOD))
        assert new_key_document["address"] == ADDRESS == address_in_file(tmp_path / "w.json", GOOD)
        assert load_key(KeyringEntry("trimtab", "main"), 1, ask=None).address == ADDRESS


def test_an_entry_is_never_written_over() -> None:
    backend = MemoryKeyring()
    with using(backend):
        api.create_wallet(None, "trimtab/main", NONE, None)
        before = dict(backend.kept)
        with raises_field("keyring", "exists already"):
            api.create_wallet(None, "trimtab/main", NONE, None)
        assert backend.kept == before


@pytest.mark.parametrize(
    ("backend", "why"),
    [
        (fail.Keyring(), "has none"),
        (null.Keyring(), "in readable form, or not at all"),
        (PlaintextKeyring(), "in readable form, or not at all"),
        (type("EncryptedKeyring", (MemoryKeyring,), {"__module__": "keyrings.alt.file"})(), "stores secrets in a file"),
    ],
)
def test_a_system_without_a_keyring_that_keeps_secrets_is_told(backend: KeyringBackend, why: str) -> None:
    with using(backend):
        for act in (
            lambda: api.create_wallet(None, "trimtab/main", NONE, None),
            lambda: load_key(KeyringEntry("trimtab", "main"), 1, ask=None),
            require_keyring,
        ):
            with pytest.raises(ConfigError, match=why) as caught:
                act()
            assert "keystore file" in caught.value.remedy


@pytest.mark.parametrize("backend", [FailingKeyring(), ReadOnlyKeyring()])
def test_a_keyring_that_fails_shows_neither_key_nor_message(backend: MemoryKeyring) -> None:
    with using(backend), raises_field("keyring", "unexpected error") as caught:
        api.import_wallet(None, "trimtab/main", NONE, typist(KEY))
    assert KEY not in shown_of(caught.value.with_traceback(caught.tb.tb_next and caught.tb.tb_next.tb_next))
    assert not backend.kept


@pytest.mark.parametrize("entry_text", ["", "no key", KEY[:-2], "00" * 32])
def test_an_entry_that_is_no_key_is_told_without_showing_it(entry_text: str) -> None:
    backend = MemoryKeyring()
    backend.kept["trimtab", "main"] = entry_text
    with using(backend), raises_field("wallet.keyring", "private key") as caught:
        load_key(KeyringEntry("trimtab", "main"), 1, ask=None)
    assert not entry_text or entry_text not in shown_of(caught.value.with_traceback(None))


def test_entry_error__keeps_no_frame_with_what_was_read() -> None:
    backend = MemoryKeyring()
    backend.kept["trimtab", "main"] = KEY[:-1]
    with using(backend), pytest.raises(ConfigError) as caught:
        load_from_keyring(("trimtab", "main"))
    frames = [frame for frame, _ in traceback.walk_tb(caught.value.__traceback__)]
    assert not [value for frame in frames for value in frame.f_locals.values() if isinstance(value, Secret)]


def test_a_missing_entry_names_the_command_that_makes_it() -> None:
    with using(MemoryKeyring()), raises_field("wallet.keyring", "keyring") as caught:
        load_key(KeyringEntry("trimtab", "main"), 1, ask=None)
    assert caught.value.remedy == "trimtab wallet create --keyring trimtab/main"


@pytest.mark.parametrize("name", ["", "trimtab", "/main", "trimtab/", "a/b/c", "a b/c", f"trimtab/{KEY}", "../x", "a/\x1b[2J"])
def test_a_name_that_is_no_entry_is_refused_and_not_repeated(name: str) -> None:
    with using(MemoryKeyring()), raises_field("--keyring", "service/name") as caught:
        api.create_wallet(None, name, NONE, None)
    assert not name or KEY not in str(caught.value)


def test_a_password_beside_a_keyring_alone_is_refused() -> None:
    with using(MemoryKeyring()), raises_field("--password-env", "--keystore names"):
        api.create_wallet(None, "trimtab/main", api.PasswordSource(env="PW"), None)
