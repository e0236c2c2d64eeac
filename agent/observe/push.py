"""Web push: alerts to browsers, encrypted for each (RFC 8291) and signed with the agent's key
(VAPID, RFC 8292).
"""

from __future__ import annotations

import json
import os
import re
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from agent.chain.providers.sessions import RedirectFreeSession
from agent.errors import ConfigError
from agent.foreign_text import failure_words
from agent.model import AlertDevice, AlertMessage, Delivery
from agent.observe.notify import FIRST_RETRY_S, AlertChannel
from agent.store.alerts import AlertStore

SERVICE_HOST_PATTERN = re.compile(
    r"fcm\.googleapis\.com|([a-z0-9-]+\.)*(push\.services\.mozilla|notify\.windows|push\.apple)\.com"
)
"""Hosts of the push services of browsers. Messages go nowhere else, whatever a device names."""
PRIVATE_KEY_PATTERN = re.compile("[0-9a-fA-F]{64}")
ENDED_STATUSES = (404, 410)
"""Answers that end a subscription (RFC 8030, section 7.3)."""
MESSAGE_LIFETIME_S = 86_400
"""Time for which a push service keeps a message for a device that is off."""
TOKEN_LIFETIME_S = 43_200
RECORD_BYTES = 4_096
NEWEST_ALERTS_ANCHOR = "#t-last"
"""Heading on the page Alerts below which the newest alert is first."""
NO_DEVICE = "no device receives alerts; turn them on on its page Alerts"
DEVICES_REMOVED = "the devices of this alert were removed before it reached them"


def decode_base64(base64_text: str) -> bytes:
    """Decode unpadded base64url."""
    return urlsafe_b64decode(base64_text + "=" * (-len(base64_text) % 4))


def encode_base64(raw_bytes: bytes) -> str:
    """Encode as unpadded base64url."""
    return urlsafe_b64encode(raw_bytes).rstrip(b"=").decode()


def encrypt(
    plaintext: bytes,
    device_public_key: bytes,
    auth_secret: bytes,
    ephemeral_key: ec.EllipticCurvePrivateKey,
    salt: bytes,
) -> bytes:
    """Return the body of a message to the device with this public key and secret, as one record
    (RFC 8291, RFC 8188). `ephemeral_key` and `salt` (16 bytes) are used for one message. Raises
    ValueError if the key is not a point of P-256.
    """
    device_key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), device_public_key)
    shared_secret = ephemeral_key.exchange(ec.ECDH(), device_key)
    sender_key = _public_point(ephemeral_key)
    key_material = _derived_key(
        auth_secret, shared_secret, b"WebPush: info\0" + device_public_key + sender_key, 32
    )
    cipher = AESGCM(_derived_key(salt, key_material, b"Content-Encoding: aes128gcm\0", 16))
    nonce = _derived_key(salt, key_material, b"Content-Encoding: nonce\0", 12)
    header = salt + RECORD_BYTES.to_bytes(4, "big") + bytes([len(sender_key)]) + sender_key
    return header + cipher.encrypt(nonce, plaintext + b"\x02", None)


def _derived_key(salt: bytes, secret: bytes, info: bytes, length: int) -> bytes:
    return HKDF(hashes.SHA256(), length, salt, info).derive(secret)


def _public_point(private_key: ec.EllipticCurvePrivateKey) -> bytes:
    return private_key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


@dataclass(frozen=True, slots=True)
class PushSender:
    """Sends messages in the name of `contact`, a mail address, with the agent's private key.
    `further_service` is the host, with a port unless 443, of a push service besides those of
    SERVICE_HOST_PATTERN.
    """

    contact: str
    private_key: ec.EllipticCurvePrivateKey
    further_service: str = ""

    @classmethod
    def from_url(cls, url: str, env_name: str) -> PushSender:
        """Parse webpush://USER:KEY@HOST, with ?service=HOST for a further push service. Raises
        ConfigError, without the address, if it is malformed.
        """
        try:
            split_url = urlsplit(url)
            if not (
                split_url.username
                and split_url.hostname
                and PRIVATE_KEY_PATTERN.fullmatch(split_url.password or "")
            ):
                raise ValueError
            private_key = ec.derive_private_key(int(split_url.password or "", 16), ec.SECP256R1())
            further_service = parse_qs(split_url.query).get("service", [""])[0]
        except ValueError:
            raise ConfigError(
                f"alerts.targets.url_env: environment variable {env_name} is not"
                " webpush://USER:KEY@HOST",
                "write your mail address with a key between, the 64 digits that openssl rand -hex 32"
                " prints: webpush://me:KEY@example.org",
            ) from None
        return cls(f"{split_url.username}@{split_url.hostname}", private_key, further_service)

    @property
    def public_key(self) -> str:
        """Return the public key, by which browsers subscribe."""
        return encode_base64(_public_point(self.private_key))

    def accepts(self, device: AlertDevice) -> bool:
        """Return whether the device's push service is a known one."""
        host = device.service_host
        return bool(host) and (
            host == self.further_service or bool(SERVICE_HOST_PATTERN.fullmatch(host))
        )

    def require_valid_device(self, device: AlertDevice) -> None:
        """Raise ConfigError for an unknown push service or a key that is none."""
        if not self.accepts(device):
            raise ConfigError(
                f"endpoint: {device.service_host} is not a known push service",
                "name it in the target's address: webpush://…?service=HOST",
            )
        try:
            self.encrypted_body(device, {})
        except ValueError:
            raise ConfigError("key: not a point of P-256", "subscribe again") from None

    def encrypted_body(self, device: AlertDevice, content: dict[str, str]) -> bytes:
        """Return an encrypted message."""
        ephemeral_key = ec.generate_private_key(ec.SECP256R1())
        device_public_key = decode_base64(device.public_key)
        auth_secret = decode_base64(device.auth)
        return encrypt(
            json.dumps(content).encode(),
            device_public_key,
            auth_secret,
            ephemeral_key,
            os.urandom(16),
        )

    def authorization(self, origin: str, now_s: int) -> str:
        """Return the header that proves the key to a push service (RFC 8292)."""
        claims = {"aud": origin, "exp": now_s + TOKEN_LIFETIME_S, "sub": f"mailto:{self.contact}"}
        unsigned_jwt = ".".join(
            encode_base64(json.dumps(jwt_part).encode())
            for jwt_part in ({"typ": "JWT", "alg": "ES256"}, claims)
        )
        signature = self.private_key.sign(unsigned_jwt.encode(), ec.ECDSA(hashes.SHA256()))
        raw_signature = b"".join(
            ecdsa_scalar.to_bytes(32, "big") for ecdsa_scalar in decode_dss_signature(signature)
        )
        return f"vapid t={unsigned_jwt}.{encode_base64(raw_signature)}, k={self.public_key}"

    def send(self, device: AlertDevice, content: dict[str, str], timeout_s: float) -> int | str:
        """Send a message; return the status of the answer, or the kind of error without one."""
        if not self.accepts(device):
            return "unknown push service"
        headers = {
            "TTL": str(MESSAGE_LIFETIME_S),
            "Urgency": "high",
            "Content-Encoding": "aes128gcm",
            "Content-Type": "application/octet-stream",
            "Authorization": self.authorization(f"https://{device.service_host}", int(time.time())),
        }
        try:
            with (
                RedirectFreeSession() as session,
                session.post(
                    device.endpoint,
                    self.encrypted_body(device, content),
                    headers=headers,
                    timeout=timeout_s,
                    allow_redirects=False,
                    stream=True,
                ) as response,
            ):
                return response.status_code
        except Exception as error:  # one device must not keep the others from their messages
            return failure_words(error)


class PushChannel(AlertChannel):
    """An alert target that sends each message to every device. The thread of the run reads the
    devices, and removes those whose subscription has ended.
    """

    def __init__(
        self,
        name: str,
        sender: PushSender,
        store: AlertStore,
        timeout_s: float,
        attempts: int,
        agent_label: str,
        first_retry_s: float = FIRST_RETRY_S,
    ) -> None:
        super().__init__(name, self._push, attempts, agent_label, first_retry_s)
        self.sender = sender
        self._store = store
        self._timeout_s = timeout_s
        self._devices = store.devices()
        self._ended_ids: list[str] = []
        self._message: AlertMessage | None = None
        self._unreached_devices: tuple[AlertDevice, ...] = ()
        self._device_count = 0
        self._has_arrived = False

    def take_results(self) -> list[Delivery]:
        """Return the results of deliveries since the last call, and bring the devices up to
        date.
        """
        ended_ids = self._ended_ids
        self._ended_ids = []
        if ended_ids:
            self._store.remove_devices(ended_ids)
        self._devices = self._store.devices()
        return super().take_results()

    def _send_once(self, message: AlertMessage) -> str:
        """Send one message to each device that an earlier attempt did not reach and that was not
        removed since.
        """
        if message is not self._message:
            self._message = message
            self._unreached_devices = self._devices
            self._device_count = len(self._devices)
            self._has_arrived = False
        return super()._send_once(message)

    def _push(self, title: str, text: str) -> str:
        failed_devices = []
        last_failure = ""
        device_ids = {device.id for device in self._devices}
        for device in self._unreached_devices:
            if device.id not in device_ids:
                continue
            content = {"title": title, "text": text, "page": device.page + NEWEST_ALERTS_ANCHOR}
            status_or_error = self.sender.send(device, content, self._timeout_s)
            if status_or_error in ENDED_STATUSES:
                self._ended_ids.append(device.id)
            elif isinstance(status_or_error, int) and status_or_error < 300:
                self._has_arrived = True
            else:
                failed_devices.append(device)
                last_failure = (
                    f"HTTP {status_or_error}"
                    if isinstance(status_or_error, int)
                    else status_or_error
                )
        self._unreached_devices = tuple(failed_devices)
        if failed_devices:
            return f"not accepted for {len(failed_devices)} of {self._device_count} devices: {last_failure}"
        if self._has_arrived:
            return ""
        has_device = any(device.id not in self._ended_ids for device in self._devices)
        return DEVICES_REMOVED if has_device else NO_DEVICE
