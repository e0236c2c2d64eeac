"""Storage of signing keys (version 3 keystores and keyring entries, readable only by their owner),
and loading of the key from its configured source without leaving a readable copy (T18).
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from agent.errors import ConfigError, ErrorCode
from agent.files import sync_folder
from agent.foreign_text import failure_words, read_json
from agent.model.rollups import LOCAL_CHAIN_IDS
from agent.ports import SigningKey
from agent.signing.secret import (
    BIP44_PATH,
    PrivateKey,
    Secret,
    disable_core_dumps,
    parse_private_key,
)

__all__ = [
    "KeyEnv",
    "KeyPrompt",
    "KeySource",
    "KeyringEntry",
    "KeystoreFile",
    "PrivateKey",
    "Secret",
    "SecretPrompt",
    "SuppliedKey",
    "TestAccountKey",
    "disable_core_dumps",
    "is_published",
    "load_key",
]


MAX_KEYSTORE_BYTES = 64 * 1024
SCRYPT_N = 2**18
"""Work factor of scrypt, as in geth: with r = 8 and p = 1 one password takes 256 MB and about a
second."""
SCRYPT_MEMORY_REMEDY = "scrypt needs 256 MB of free memory"
MIN_PASSWORD_LENGTH = 12
MIN_DISTINCT_CHARACTERS = 6
"""Minimum number of different characters in a password."""
_COMMON_PASSWORD_PARTS = (
    "password",
    "passwort",
    "qwertyuiop",
    "1234567890",
    "abcdefghij",
    "letmein",
    "iloveyou",
    "changeme",
    "trimtab",
)
_NO_HARD_LINK_ERRNOS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


def read_private_file(path: Path) -> bytes:
    """Return the file's bytes. Raises ConfigError if other users may use the opened file."""
    try:
        with path.open("rb") as file:
            file_status = os.fstat(file.fileno())
            if not stat.S_ISREG(file_status.st_mode):
                raise ConfigError(
                    f"wallet.keystore: {path} is not a regular file",
                    "use the path of the keystore file",
                )
            if file_status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise ConfigError(
                    f"wallet.keystore: users other than its owner can access {path} (mode"
                    f" {stat.S_IMODE(file_status.st_mode):04o})",
                    f"run: chmod 600 {path}",
                )
            if file_status.st_uid not in (os.geteuid(), 0):
                raise ConfigError(
                    f"wallet.keystore: {path} belongs to another user (uid {file_status.st_uid}), who can"
                    " read and change it",
                    "run as that user, or use a copy that you own",
                )
            return file.read(MAX_KEYSTORE_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"wallet.keystore: {path} cannot be read ({error.strerror})", "check the path"
        ) from None


def open_keystore(file_bytes: bytes, password: Secret, path: Path) -> PrivateKey | ConfigError:
    """Decrypt a keystore. Errors are returned, not raised, because the frames of a traceback would
    hold the key.
    """
    from eth_account import Account
    from eth_keyfile.keyfile import decode_keyfile_json

    try:
        keystore = read_json(file_bytes.decode()) if len(file_bytes) <= MAX_KEYSTORE_BYTES else None
    except ValueError:
        keystore = None
    if not isinstance(keystore, dict) or keystore.get("version") != 3:
        return ConfigError(
            f"wallet.keystore: {path} is not a version 3 keystore",
            "write one with: trimtab wallet create",
        )
    try:
        # eth-keyfile 0.8 is typed for text, which it would encode as Latin-1.
        password_bytes: Any = password.reveal().encode()
        return PrivateKey(Account.from_key(decode_keyfile_json(keystore, password_bytes)))
    except (ValueError, MemoryError) as error:
        if "MAC mismatch" in str(error):
            return ConfigError(
                f"wallet.keystore: wrong password for {path}",
                "type the password of this file",
            )
        if isinstance(error, MemoryError) or "while running scrypt" in str(error):
            return ConfigError(
                f"wallet.keystore: too little memory to decrypt {path}", SCRYPT_MEMORY_REMEDY
            )
    except Exception:  # noqa: S110 the library raises various errors for a malformed file; reported below without its frames
        pass
    return ConfigError(f"wallet.keystore: {path} is damaged", "restore it from its backup")


def require_strong_password(password: Secret) -> None:
    """Raise ConfigError if the password is empty or easy to guess; the message does not repeat
    it.
    """
    password_text = password.reveal()
    remedy = (
        f"use at least {MIN_PASSWORD_LENGTH} characters that are hard to guess: four random words,"
        " or a password from a password manager"
    )
    if not password_text.strip():
        raise ConfigError("the password is empty", remedy)
    if len(password_text) < MIN_PASSWORD_LENGTH:
        raise ConfigError(f"the password has fewer than {MIN_PASSWORD_LENGTH} characters", remedy)
    if len(set(password_text)) < MIN_DISTINCT_CHARACTERS:
        raise ConfigError(
            f"the password has fewer than {MIN_DISTINCT_CHARACTERS} different characters", remedy
        )
    uncommon_part = password_text.lower()
    for common_part in _COMMON_PASSWORD_PARTS:
        uncommon_part = uncommon_part.replace(common_part, "")
    if len(uncommon_part) < MIN_PASSWORD_LENGTH // 2:
        raise ConfigError("the password is a common one", remedy)


def require_free_path(path: Path) -> None:
    """Raise ConfigError if `path` exists, or its folder is missing."""
    if os.path.lexists(path):
        raise _path_exists_error(path)
    if not path.parent.is_dir():
        raise ConfigError(
            f"{path}: folder {path.parent} does not exist",
            "create it, or name another file",
            code=ErrorCode.FOLDER,
        )


def _path_exists_error(path: Path) -> ConfigError:
    return ConfigError(
        f"{path} exists already; nothing was changed",
        "use another path, or move that file away",
        code=ErrorCode.EXISTS,
    )


def write_keystore(path: Path, key: PrivateKey, password: Secret) -> None:
    """Write a new keystore at `path`, with mode 0600, atomically and never over an existing file,
    and verify it by decrypting it. Raises ConfigError.
    """
    require_strong_password(password)
    require_free_path(path)
    with _verified_draft(path, key, password) as draft:
        try:
            _link_into_place(draft, path)
        except FileExistsError:
            raise _path_exists_error(path) from None
    sync_folder(path.parent)


def change_password(path: Path, old_password: Secret, new_password: Secret) -> PrivateKey:
    """Re-encrypt the keystore at `path` and return its key. The old file stays until the new one is
    complete and verified. Raises ConfigError, which leaves the old file unchanged.
    """
    key = open_keystore(read_private_file(path), old_password, path)
    if isinstance(key, ConfigError):
        raise key
    require_strong_password(new_password)
    if new_password.reveal() == old_password.reveal():
        raise ConfigError("the new password is the old one", "choose another password")
    real_path = path.resolve()  # keep a symbolic link as a link
    with _verified_draft(real_path, key, new_password) as draft:
        draft.replace(real_path)
    sync_folder(real_path.parent)
    return key


@contextmanager
def _verified_draft(path: Path, key: PrivateKey, password: Secret) -> Iterator[Path]:
    """Yield an encrypted draft beside `path`, synced, and verified by decrypting it; remove it on
    exit, unless it was moved. Raises ConfigError if `path` cannot be written privately.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(6)}.draft")
    encrypted_key = _encrypted_key(key, password)
    if isinstance(encrypted_key, ConfigError):
        raise encrypted_key
    try:
        _write_new_file(draft, encrypted_key)
        if draft.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConfigError(
                f"{path}: its file system lets other users read what only its owner may",
                "choose a folder on a file system with permissions, such as ext4",
                code=ErrorCode.FILE,
            )
        decrypted_key = open_keystore(read_private_file(draft), password, draft)
        if isinstance(decrypted_key, ConfigError) or decrypted_key.address != key.address:
            raise ConfigError(
                f"{path}: the written file cannot be decrypted; nothing was changed",
                "check this disk first",
                code=ErrorCode.FILE,
            )
        yield draft
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written ({error.strerror})",
            "choose a folder that you may write to",
            code=ErrorCode.FILE,
        ) from None
    finally:
        with suppress(FileNotFoundError):
            draft.unlink()


def _encrypted_key(key: PrivateKey, password: Secret) -> bytes | ConfigError:
    """Return the encrypted key. An error, such as too little memory, is returned, not raised, as in
    `open_keystore`.
    """
    from eth_account import Account

    try:
        keystore = Account.encrypt(  # type: ignore[no-untyped-call,unused-ignore]  # untyped in 0.11
            key.reveal(), password.reveal(), kdf="scrypt", iterations=SCRYPT_N
        )
    except Exception as error:  # the frames of any error hold the key
        return ConfigError(
            f"the key cannot be encrypted: {failure_words(error)}",
            SCRYPT_MEMORY_REMEDY,
        )
    return (json.dumps(keystore, indent=1) + "\n").encode()


def _link_into_place(draft: Path, path: Path) -> None:
    """Link the draft to its final name, which must be free. Raises FileExistsError."""
    try:
        os.link(draft, path)
    except OSError as error:
        if error.errno not in _NO_HARD_LINK_ERRNOS:
            raise
        _write_new_file(path, draft.read_bytes())


def _write_new_file(path: Path, file_bytes: bytes) -> None:
    """Write and sync a file with mode 0600; remove it if that fails."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(file_bytes)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink()
        raise


_KEYRING_ALTERNATIVES = (
    "use a keystore file (trimtab wallet create --keystore wallet.json), or install a keyring"
    " service"
)
_INSECURE_BACKEND_PARTS = ("null", "plaintext", "alt.file", "uncrypted")
"""Parts of the names of backends that store nothing, or store secrets in readable form or, as all of
keyrings.alt.file, in a file."""


def load_from_keyring(keyring_entry: tuple[str, str]) -> PrivateKey:
    """Return the key under (service, name). Raises ConfigError if there is no keyring or no such
    entry, or it is not a key.
    """
    key_text = _read_entry(keyring_entry)
    if key_text is None:
        raise ConfigError(
            f"wallet.keyring: {_entry_text(keyring_entry)} is not in the keyring",
            f"trimtab wallet create --keyring {_entry_text(keyring_entry)}",
        )
    key = parse_private_key(key_text, f"wallet.keyring: {_entry_text(keyring_entry)}")
    del key_text  # the traceback of a raised error keeps this frame
    if isinstance(key, ConfigError):
        raise key
    return key


def is_in_keyring(keyring_entry: tuple[str, str]) -> bool:
    """True if the entry exists. Raises ConfigError if there is no keyring."""
    return _read_entry(keyring_entry) is not None


def require_free_keyring_entry(keyring_entry: tuple[str, str]) -> None:
    """Raise ConfigError if there is no keyring, or the entry exists: a key is never overwritten."""
    if is_in_keyring(keyring_entry):
        raise ConfigError(
            f"keyring: {_entry_text(keyring_entry)} exists already; nothing was changed",
            "choose another name, such as trimtab/second",
        )


def save_to_keyring(keyring_entry: tuple[str, str], key: PrivateKey) -> None:
    """Store the key under (service, name), which must be free, and read it back. Raises
    ConfigError.
    """
    require_free_keyring_entry(keyring_entry)
    error = _write_entry(keyring_entry, key)
    if error is not None:
        raise error
    if load_from_keyring(keyring_entry).address != key.address:
        raise ConfigError(
            f"keyring: {_entry_text(keyring_entry)} does not return the key that was stored",
            "use a keystore file",
        )


def require_keyring() -> str:
    """Return the name of the active keyring. Raises ConfigError if none stores secrets."""
    import keyring
    from keyring.backends import fail

    try:
        backend = keyring.get_keyring()
    except Exception as error:  # a backend may raise any error while it is loaded
        raise ConfigError(
            f"keyring: none can be opened: {failure_words(error)}", _KEYRING_ALTERNATIVES
        ) from None
    chained_backends = getattr(backend, "backends", [backend])
    if isinstance(backend, fail.Keyring) or not chained_backends:
        raise ConfigError("keyring: this system has none", _KEYRING_ALTERNATIVES)
    for chained_backend in chained_backends:
        backend_name = f"{type(chained_backend).__module__}.{type(chained_backend).__name__}"
        if any(insecure_part in backend_name.lower() for insecure_part in _INSECURE_BACKEND_PARTS):
            raise ConfigError(
                f"keyring: {backend_name} stores secrets in a file, in readable form, or not at all",
                _KEYRING_ALTERNATIVES,
            )
    return f"{type(backend).__module__}.{type(backend).__name__}"


def _read_entry(keyring_entry: tuple[str, str]) -> Secret | None:
    import keyring

    require_keyring()
    try:
        key_text = keyring.get_password(*keyring_entry)
    except Exception as error:  # each backend raises its own errors
        keyring_error = _keyring_error("read", keyring_entry, error)
    else:
        return None if key_text is None else Secret(key_text)
    raise keyring_error


def _write_entry(keyring_entry: tuple[str, str], key: PrivateKey) -> ConfigError | None:
    """Store the key. An error is returned, not raised, because the frames of a backend hold it."""
    import keyring

    try:
        keyring.set_password(*keyring_entry, key.reveal().hex())
    except Exception as error:
        return _keyring_error("write", keyring_entry, error)
    return None


def _keyring_error(action: str, keyring_entry: tuple[str, str], error: Exception) -> ConfigError:
    return ConfigError(
        f"keyring: cannot {action} {_entry_text(keyring_entry)}: {failure_words(error)}",
        f"unlock the keyring and try again, or {_KEYRING_ALTERNATIVES}",
    )


def _entry_text(keyring_entry: tuple[str, str]) -> str:
    return "/".join(keyring_entry)


TEST_MNEMONIC = "test test test test test test test test test test test junk"
"""Published mnemonic of anvil and hardhat: money sent to its accounts is stolen within seconds."""
TEST_ACCOUNT_COUNT = 20
PUBLISHED_ADDRESSES = frozenset({
    "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266", "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
    "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC", "0x90F79bf6EB2c4f870365E785982E1f101E93b906",
    "0x15d34AAf54267DB7D7c367839AAf71A00a2C6A65", "0x9965507D1a55bcC2695C58ba16FB37d819B0A4dc",
    "0x976EA74026E726554dB657fA54763abd0C3a0aa9", "0x14dC79964da2C08b23698B3D3cc7Ca32193d9955",
    "0x23618e81E3f5cdF7f54C3d65f7FBc0aBf5B21E8f", "0xa0Ee7A142d267C1f36714E4a8F75612F20a79720",
    "0xBcd4042DE499D14e55001CcbB24a551F3b954096", "0x71bE63f3384f5fb98995898A86B02Fb2426c5788",
    "0xFABB0ac9d68B0B445fB7357272Ff202C5651694a", "0x1CBd3b2770909D4e10f157cABC84C7264073C9Ec",
    "0xdF3e18d64BC6A983f673Ab319CCaE4f1a57C7097", "0xcd3B766CCDd6AE721141F452C550Ca635964ce71",
    "0x2546BcD3c84621e976D8185a91A922aE77ECEc30", "0xbDA5747bFD65F08deb54cb465eB87D40e51B197E",
    "0xdD2FD4581271e230360230F9337D5c0430Bf44C0", "0x8626f6940E2eb28930eFb4CeF49B2d1F2C9C1199",
    "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf", "0x2B5AD5c4795c026514f8317c7a215E218DcCD6cF",
    "0x6813Eb9362372EEF6200f3b1dbC3f819671cBA69", "0x1efF47bc3a10a45D4B230B5d10E37751FE6AA718",
    "0xe1AB8145F7E55DC933d51a18c793F901A3A0b276", "0xE57bFE9F44b819898F47BF37E5AF72a0783e1141",
    "0xd41c057fd1c78805AAC12B0A94a405c0461A6FBb", "0xF1F6619B38A98d6De0800F1DefC0a6399eB6d30C",
    "0xF7Edc8FA1eCc32967F827C9043FcAe6ba73afA5c", "0x4CCeBa2d7D2B4fdcE4304d3e09a1fea9fbEb1528",
    "0x3DA8D322CB2435dA26E9C9fEE670f9fB7Fe74E49", "0xDbc23AE43a150ff8884B02Cea117b22D1c3b9796",
    "0x68E527780872cda0216Ba0d8fBD58b67a5D5e351", "0x5A83529ff76Ac5723A87008c4D9B436AD4CA7d28",
    "0x8735015837bD10e05d9cf5EA43A2486Bf4Be156F", "0xfaE394561e33e242c551d15D4625309EA4c0B97f",
    "0x252Dae0A4b9d9b80F504F6418acd2d364C0c59cD", "0x79196B90D1E952C5A43d4847CAA08d50b967c34A",
    "0x4bd1280852Cadb002734647305AFC1db7ddD6Acb", "0x811da72aCA31e56F770Fc33DF0e45fD08720E157",
})  # fmt: skip
"""Addresses of published keys: accounts of the test mnemonic, and eth-tester's keys (the numbers
from 1).
"""


@dataclass(frozen=True, slots=True)
class KeystoreFile:
    """An encrypted keystore (version 3). The password comes from the variable `password_env` if
    it is among `variables`, else from a prompt.
    """

    path: Path
    password_env: str = ""
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class KeyEnv:
    """A private key in the variable `name` of `variables`."""

    name: str
    variables: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeyPrompt:
    """A private key typed at a prompt."""


@dataclass(frozen=True, slots=True)
class TestAccountKey:
    """Account `index` of the published test mnemonic; on local chains only."""

    __test__ = False

    index: int


@dataclass(frozen=True, slots=True)
class KeyringEntry:
    """A key in the keyring of the operating system, under a service and a name."""

    service: str
    name: str


@dataclass(frozen=True, slots=True)
class SuppliedKey:
    """A key held by the calling program, such as one in a key service."""

    key: SigningKey


KeySource = KeystoreFile | KeyEnv | KeyPrompt | KeyringEntry | TestAccountKey | SuppliedKey

SecretPrompt = Callable[[str], str]
"""Function that shows a prompt and returns the hidden input (getpass.getpass)."""


def load_key(
    source: KeySource, chain_id: int, *, ask: SecretPrompt | None, is_fork: bool = False
) -> SigningKey:
    """Return the key of `source`, checked against its chain.

    `ask` is None if no prompt is possible. With `is_fork` (a copy of a live chain with its chain id)
    only published test keys are accepted; otherwise they are accepted on local chain ids only.
    Raises ConfigError with the field and the remedy, whose message and traceback do not hold the
    key.
    """
    disable_core_dumps()
    is_live = chain_id not in LOCAL_CHAIN_IDS and not is_fork
    if isinstance(source, TestAccountKey):
        return _published_key(source.index, chain_id, is_live)
    key = _read_key(source, ask)
    if isinstance(key, ConfigError):
        raise key
    has_published_key = is_published(key.address)
    if has_published_key and is_live:
        raise ConfigError(
            f"the key of {key.address} is published, and chain {chain_id} is not local",
            "use your own private key",
        )
    if is_fork and not has_published_key:
        raise ConfigError(
            f"the key of {key.address} is not a test key, and this is a fork: its signatures are"
            f" valid on chain {chain_id}",
            "use wallet.test_account",
        )
    return key


def _published_key(index: int, chain_id: int, is_live: bool) -> SigningKey:
    if is_live:
        raise ConfigError(
            f"wallet.test_account: its key is published, and chain {chain_id} is not local",
            "use wallet.keystore or wallet.key_env",
        )
    if not 0 <= index < TEST_ACCOUNT_COUNT:
        raise ConfigError(
            f"wallet.test_account: {index} is not between 0 and {TEST_ACCOUNT_COUNT - 1}",
            "write the number of one of the published test accounts",
        )
    return _test_account(index)


def _read_key(
    source: SuppliedKey | KeystoreFile | KeyEnv | KeyringEntry | KeyPrompt, ask: SecretPrompt | None
) -> SigningKey | ConfigError:
    """Return the key, or the error of decrypting or parsing it. If that were raised here, its
    traceback would keep the frames that read the key.
    """
    match source:
        case SuppliedKey(key):
            return key
        case KeystoreFile(path):
            return open_keystore(read_private_file(path), _read_password(source, ask), path)
        case KeyEnv(name, variables):
            return parse_private_key(_key_from_variable(name, variables), f"wallet.key_env {name}")
        case KeyringEntry(service, name):
            return load_from_keyring((service, name))
        case KeyPrompt():
            if ask is None:
                raise ConfigError(
                    "the key must be typed, and there is no terminal",
                    "run in a terminal, or set wallet.keystore",
                )
            return parse_private_key(Secret(ask("Private key: ")), "the typed key")


def _key_from_variable(name: str, variables: Mapping[str, str]) -> Secret:
    if not variables.get(name):
        raise ConfigError(
            f"wallet.key_env: the environment variable {name} is not set",
            f"export {name} before starting",
        )
    return Secret(variables[name])


def _read_password(source: KeystoreFile, ask: SecretPrompt | None) -> Secret:
    path = source.path
    password_env = source.password_env
    if password := source.variables.get(password_env):
        return Secret(password)
    if ask is None:
        remedy = "run in a terminal and type its password"
        if password_env:
            remedy = f"export {password_env} with its password"
        raise ConfigError(
            f"wallet.keystore: {path} is locked, and there is no terminal for its password",
            remedy,
        )
    return Secret(ask(f"Password of {path}: "))


def is_published(address: str) -> bool:
    """True if the key of `address` is published."""
    return address in PUBLISHED_ADDRESSES


@cache
def _test_account(index: int) -> PrivateKey:
    """Return a test account; cached, since its derivation takes milliseconds."""
    return _key_of(_test_key(index))


def _key_of(key_bytes: bytes) -> PrivateKey:
    from eth_account import Account

    return PrivateKey(Account.from_key(key_bytes))


def _test_key(index: int) -> bytes:
    """Return the private key of BIP-44 path m/44'/60'/0'/0/index; the seed is that of BIP-39
    (PBKDF2-HMAC-SHA512, salt "mnemonic", 2048 rounds).
    """
    from eth_account.hdaccount import key_from_seed

    return bytes(key_from_seed(_test_seed(), f"{BIP44_PATH}{index}"))


@cache
def _test_seed() -> bytes:
    return hashlib.pbkdf2_hmac("sha512", TEST_MNEMONIC.encode(), b"mnemonic", 2048)
