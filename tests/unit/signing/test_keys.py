"""Keys are loaded from where the config says, refused where they do not belong, and shown nowhere (threat T18)."""

from __future__ import annotations

import base64
import copy
import json
import pickle
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from eth_account import Account
from eth_keyfile import create_keyfile_json

from agent.config.tables.chain import ChainTable
from agent.config.variables import Variables
from agent.errors import ConfigError, OperatorNeeded
from agent.model.rollups import LOCAL_OP_STACK_ID
from agent.signing.keys import (
    PUBLISHED_ADDRESSES,
    TEST_ACCOUNT_COUNT,
    TEST_MNEMONIC,
    KeyEnv,
    KeyPrompt,
    KeySource,
    KeystoreFile,
    PrivateKey,
    Secret,
    TestAccountKey,
    disable_core_dumps,
    load_key,
)
from tests.support.foreign_text import shown_of
from tests.support.text import mentions
from tests.support.transactions import tx

CANARY = bytes.fromhex("c0ffee" + "5eed" * 14 + "42")
CANARY_ADDRESS = Account.from_key(CANARY).address
PASSWORD = "correct horse canary staple"
MAINNET = 1
LOCAL = 31337
TESTER = 131277322940537


def text_forms(secret: bytes) -> list[str]:
    """Every way in which bytes might come out as text."""
    return [
        secret.hex(),
        secret.hex().upper(),
        str(int.from_bytes(secret, "big")),
        repr(secret)[2:-1],
        base64.b64encode(secret).decode(),
        str(list(secret))[1:-1],
    ]


def leaks(text: str) -> bool:
    return any(form in text for form in (*text_forms(CANARY), PASSWORD))


def keystore_file(tmp_path: Path, secret: bytes = CANARY, mode: int = 0o600) -> Path:
    path = tmp_path / "wallet.json"
    path.write_text(json.dumps(create_keyfile_json(secret, PASSWORD.encode(), kdf="pbkdf2", iterations=10)))
    path.chmod(mode)
    return path


def refusal(load: Callable[[], object]) -> ConfigError:
    """The ConfigError that `load` raises, proven not to show the key or the password."""
    with pytest.raises(ConfigError) as raised:
        load()
    # The frame of the test itself is left out: it is ours, and holds the canary.
    error = raised.value.with_traceback(raised.tb.tb_next.tb_next if raised.tb.tb_next else None)
    assert not leaks(shown_of(error))
    return raised.value


def write_keystore(path: Path, document: object) -> Path:
    """Write a keystore that only its owner may read."""
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    path.chmod(0o600)
    return path


def ask_password(prompt: str) -> str:
    return PASSWORD


# --- Keystore files.


def test_keystore_file_opens_with_its_password(tmp_path: Path) -> None:
    path = keystore_file(tmp_path)

    assert load_key(KeystoreFile(path), MAINNET, ask=ask_password).address == CANARY_ADDRESS
    assert load_key(KeystoreFile(path, "PW", Variables(PW=PASSWORD)), MAINNET, ask=None).address == CANARY_ADDRESS


def test_scrypt_keystore_of_eth_account_opens_too(tmp_path: Path) -> None:
    path = write_keystore(tmp_path / "wallet.json", Account.encrypt(CANARY, PASSWORD, kdf="scrypt", iterations=2))

    assert load_key(KeystoreFile(path), MAINNET, ask=ask_password).address == CANARY_ADDRESS


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o601], ids=oct)
def test_keystore_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = keystore_file(tmp_path, mode=mode)

    assert mentions(refusal(lambda: load_key(KeystoreFile(path), MAINNET, ask=ask_password)), f"chmod 600 {path}", f"{mode:04o}")


def test_wrong_password_is_refused_without_showing_it(tmp_path: Path) -> None:
    path = keystore_file(tmp_path)

    assert "wrong password" in str(refusal(lambda: load_key(KeystoreFile(path), MAINNET, ask=lambda prompt: "wrong " + PASSWORD)))


@pytest.mark.parametrize("error", [ValueError("Error 2 while running scrypt"), MemoryError()], ids=["scrypt", "memory"])
def test_sound_keystore_is_not_called_damaged_if_memory_is_short(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = keystore_file(tmp_path)

    def run_out_of_memory(keystore: object, password: bytes) -> bytes:
        raise error

    monkeypatch.setattr("eth_keyfile.keyfile.decode_keyfile_json", run_out_of_memory)

    text = str(refusal(lambda: load_key(KeystoreFile(path), MAINNET, ask=ask_password)))
    assert mentions(text, str(path), "too little memory", "256 MB")
    assert "damaged" not in text


@pytest.mark.parametrize(("variable", "reason"), [(None, "locked"), ("PW", "export PW")], ids=["no variable", "variable not set"])
def test_locked_keystore_is_refused_when_nobody_can_be_asked(tmp_path: Path, variable: str | None, reason: str) -> None:
    path = keystore_file(tmp_path)
    source = KeystoreFile(path) if variable is None else KeystoreFile(path, variable)

    assert reason in str(refusal(lambda: load_key(source, MAINNET, ask=None)))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("{", id="no JSON"),
        pytest.param("[]", id="a list"),
        pytest.param('{"version": 1}', id="version 1"),
        pytest.param('{"version": 3}', id="no key"),
        pytest.param('{"version": 3, "crypto": {"kdf": "none"}}', id="unknown kdf"),
        pytest.param("x" * 70_000, id="too long"),
    ],
)
def test_file_that_is_no_keystore_is_refused(tmp_path: Path, text: str) -> None:
    path = write_keystore(tmp_path / "wallet.json", text)

    assert str(path) in str(refusal(lambda: load_key(KeystoreFile(path), MAINNET, ask=ask_password)))


def test_missing_keystore_and_a_folder_are_refused(tmp_path: Path) -> None:
    assert "such file" in str(refusal(lambda: load_key(KeystoreFile(tmp_path / "none.json"), MAINNET, ask=None)))
    assert "be read" in str(refusal(lambda: load_key(KeystoreFile(tmp_path), MAINNET, ask=None)))


# --- The environment and a prompt.


@pytest.mark.parametrize(
    "text", [CANARY.hex(), "0x" + CANARY.hex(), f"  0x{CANARY.hex().upper()}\n"], ids=["bare", "with 0x", "upper case with spaces"]
)
def test_key_is_read_from_the_environment_and_from_a_prompt(text: str) -> None:
    assert load_key(KeyEnv("K", Variables(K=text)), MAINNET, ask=None).address == CANARY_ADDRESS
    assert load_key(KeyPrompt(), MAINNET, ask=lambda prompt: text).address == CANARY_ADDRESS


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(CANARY.hex()[:-1], id="a digit short"),
        pytest.param(CANARY.hex() + "0", id="a digit more"),
        pytest.param(CANARY.hex() + "00", id="a byte more"),
        pytest.param(f"key={CANARY.hex()}", id="a name before"),
        pytest.param("0x0x" + CANARY.hex(), id="0x twice"),
        pytest.param(CANARY.hex()[:-1] + "g", id="no hex"),
        pytest.param("00" * 32, id="zero"),
        pytest.param("ff" * 32, id="beyond the order"),
    ],
)
def test_what_is_not_quite_a_key_is_refused_without_showing_it(text: str) -> None:
    assert mentions(refusal(lambda: load_key(KeyEnv("K", Variables(K=text)), MAINNET, ask=None)), "private key", "K")
    assert "64 hex digits" in str(refusal(lambda: load_key(KeyPrompt(), MAINNET, ask=lambda prompt: text)))


@pytest.mark.parametrize(
    ("source", "reasons"), [(KeyEnv("K", Variables()), ["not set", "K"]), (KeyPrompt(), ["terminal"])], ids=["variable", "prompt"]
)
def test_unset_variable_and_prompt_without_terminal_are_refused(source: KeySource, reasons: list[str]) -> None:
    assert mentions(refusal(lambda: load_key(source, MAINNET, ask=None)), *reasons)


# --- Published keys.


def test_published_addresses_are_of_the_mnemonic_and_small_keys() -> None:
    Account.enable_unaudited_hdwallet_features()
    paths = [f"m/44'/60'/0'/0/{index}" for index in range(TEST_ACCOUNT_COUNT)]
    addresses = {Account.from_mnemonic(TEST_MNEMONIC, account_path=path).address for path in paths}
    addresses |= {Account.from_key(number.to_bytes(32, "big")).address for number in range(1, TEST_ACCOUNT_COUNT + 1)}

    assert addresses == PUBLISHED_ADDRESSES


@pytest.mark.parametrize(
    ("index", "chain_id", "address"),
    [
        pytest.param(0, LOCAL, "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266", id="the first on anvil"),
        pytest.param(9, TESTER, "0xa0Ee7A142d267C1f36714E4a8F75612F20a79720", id="the tenth on eth-tester"),
        pytest.param(19, LOCAL, "0x8626f6940E2eb28930eFb4CeF49B2d1F2C9C1199", id="the last"),
    ],
)
def test_test_account_is_a_published_one(index: int, chain_id: int, address: str) -> None:
    assert load_key(TestAccountKey(index), chain_id, ask=None).address == address


@pytest.mark.parametrize("chain_id", [1337, LOCAL, TESTER, LOCAL_OP_STACK_ID])
def test_test_account_signs_on_each_chain_that_the_config_calls_local(chain_id: int) -> None:
    chain = ChainTable.model_construct(chain_id=chain_id)

    assert chain.is_local
    assert load_key(TestAccountKey(0), chain_id, ask=None).address


def test_test_account_is_local_and_one_of_twenty() -> None:
    assert "published" in str(refusal(lambda: load_key(TestAccountKey(0), MAINNET, ask=None)))
    assert "between 0 and 19" in str(refusal(lambda: load_key(TestAccountKey(20), LOCAL, ask=None)))


@pytest.mark.parametrize(
    "key",
    ["ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80", "00" * 31 + "01"],
    ids=["of the mnemonic", "the number one"],
)
def test_published_key_is_refused_on_a_live_chain(tmp_path: Path, key: str) -> None:
    source = KeyEnv("K", Variables(K=key))
    path = keystore_file(tmp_path, bytes.fromhex(key))

    assert "published" in str(refusal(lambda: load_key(source, MAINNET, ask=None)))
    assert "published" in str(refusal(lambda: load_key(KeystoreFile(path), 42161, ask=ask_password)))
    assert load_key(source, LOCAL, ask=None).address


def test_fork_takes_test_keys_only() -> None:
    source = KeyEnv("K", Variables(K=CANARY.hex()))

    assert load_key(TestAccountKey(1), MAINNET, ask=None, is_fork=True).address
    assert "fork" in str(refusal(lambda: load_key(source, MAINNET, ask=None, is_fork=True)))


# --- Keys are shown nowhere.


CANARY_KEY = load_key(KeyPrompt(), MAINNET, ask=lambda prompt: CANARY.hex())


@pytest.mark.parametrize("source", [KeyEnv("K", Variables(K=CANARY.hex())), KeyPrompt()], ids=["environment", "prompt"])
def test_key_shows_its_address_and_nothing_else(source: KeySource) -> None:
    key = load_key(source, MAINNET, ask=lambda prompt: CANARY.hex())

    assert not any(leaks(text) for text in (repr(key), str(key), f"{key}", f"{[key]!r}", f"{key!a}"))
    assert repr(key) == f"PrivateKey({CANARY_ADDRESS})"
    with pytest.raises(TypeError):
        vars(key)


@pytest.mark.parametrize("secret", [CANARY_KEY, Secret(PASSWORD)], ids=["key", "password"])
@pytest.mark.parametrize("copy_of", [pickle.dumps, copy.copy, copy.deepcopy, json.dumps])
def test_key_and_secret_cannot_be_pickled_or_copied(secret: PrivateKey | Secret, copy_of: Callable[[object], object]) -> None:
    with pytest.raises(TypeError) as raised:
        copy_of(secret)

    assert not leaks(shown_of(raised.value))
    assert not leaks(repr(secret) + str(secret) + f"{secret}")


@pytest.mark.parametrize("changes", [{"chain_id": "x"}, {"nonce": -1}, {"to": "0x12"}], ids=["no chain", "no number", "no address"])
def test_failed_signature_does_not_show_the_key(changes: dict[str, object]) -> None:
    with pytest.raises(OperatorNeeded) as raised:
        CANARY_KEY.sign_transaction(replace(tx(0), **changes))  # type: ignore[arg-type]  # keywords are field names

    assert not leaks(shown_of(raised.value))


def test_core_dumps_are_off_in_this_process_and_its_children() -> None:
    disable_core_dumps()
    assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)
    child_code = "import resource; print(resource.getrlimit(resource.RLIMIT_CORE))"
    assert subprocess.run([sys.executable, "-c", child_code], capture_output=True, text=True, check=True).stdout.strip() == "(0, 0)"


FOREIGN_KEYSTORES = {
    "scrypt": {
        "crypto": {
            "cipher": "aes-128-ctr",
            "cipherparams": {"iv": "78d0095560cf0762b02373cb7bdcc048"},
            "ciphertext": "4def3ba3fa91e1f76a5a2dc4979a66294c7bd5aab8b8099503e19c65e51bc81b",
            "kdf": "scrypt",
            "kdfparams": {"dklen": 32, "n": 2, "r": 8, "p": 1, "salt": "03373d9d83a74b72630f2a1cccee9bab"},
            "mac": "bdeee143972196592e9c94fd92319254a1169fcb589cf75ca6e87746461ffd5e",
        },
        "version": 3,
    },
    "pbkdf2": {
        "crypto": {
            "cipher": "aes-128-ctr",
            "cipherparams": {"iv": "a06e69687a4dd2b302597cb15586bf91"},
            "ciphertext": "eabd40d971a8df383a7d0c7fe6ce0a793424ee985f7070537aec4e512396b461",
            "kdf": "pbkdf2",
            "kdfparams": {"c": 2, "dklen": 32, "prf": "hmac-sha256", "salt": "dd80f36ece568bbb0806ee6c80668151"},
            "mac": "021ac2706c996d76d49f67f8deaf0fea28bb8eca339c4b9e2348d6e1eb9731d1",
        },
        "version": 3,
    },
}
"""Made by eth-keyfile 0.10.0 from the password in UTF-8."""


@pytest.mark.parametrize("kdf", ["scrypt", "pbkdf2"])
def test_keystore_opens_with_a_password_beyond_ascii(tmp_path: Path, kdf: str) -> None:
    path = write_keystore(tmp_path / "wallet.json", FOREIGN_KEYSTORES[kdf])

    assert load_key(KeystoreFile(path), MAINNET, ask=lambda prompt: "Größe 量 пароль").address == CANARY_ADDRESS
