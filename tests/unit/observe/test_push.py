"""Web push: encrypted as RFC 8291 says, signed, to push services alone, once for each device, and to none that is gone."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from agent import wiring
from agent.app import alert_channels
from agent.app.settings.devices import change_devices, devices_document
from agent.config.load import load_config
from agent.config.tables.alerts import AlertsTable
from agent.config.variables import VARIABLES_KEY, Variables
from agent.errors import ConfigError, OperatorNeeded
from agent.model import Alert, AlertDevice, AlertKind, AlertMessage, Control, ControlKind, ControlOrigin, Delivery
from agent.observe.notify import AlertNotifier, ChannelSubscription
from agent.observe.push import DEVICES_REMOVED, NO_DEVICE, PushChannel, PushSender, decode_base64, encode_base64, encrypt
from agent.store.alerts import MAX_DEVICES, PUSH_DEVICES
from agent.store.database.facts import fact_text, write_facts
from agent.store.store import Store
from agent.web.reach import PublicOptions
from tests.support import agents
from tests.support.fakes.http_server import LoopbackHandler, listening
from tests.support.pages.certificates import certificate  # noqa: F401
from tests.support.records.alerts import KINDS, NOON, RULES
from tests.support.stores import store_fixture
from tests.support.text import raises_field

KEY = "5eed" * 16
URL = f"webpush://me:{KEY}@example.org"
PAGE = "/p/main/alerts"


store = store_fixture()


@dataclass
class Browser:
    """A browser that subscribed: its key pair and secret. It reads what a push service got for it."""

    path: str
    private_key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    auth: bytes = b"secret of device"

    @property
    def public_key(self) -> bytes:
        return self.private_key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    def device(self, service: str, user: str = "ann") -> AlertDevice:
        return AlertDevice(f"https://{service}{self.path}", encode_base64(self.public_key), encode_base64(self.auth), PAGE, user, NOON)

    def read(self, body: bytes) -> dict[str, str]:
        """Decrypt a message of one record (RFC 8188, RFC 8291)."""
        salt = body[:16]
        size = int.from_bytes(body[16:20], "big")
        sender = body[21 : 21 + body[20]]
        record = body[21 + body[20] :]
        assert len(body) <= 4_096 == size
        shared = self.private_key.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), sender))

        def derived(salt: bytes, secret: bytes, info: bytes, length: int) -> bytes:
            return HKDF(hashes.SHA256(), length, salt, info).derive(secret)

        secret = derived(self.auth, shared, b"WebPush: info\0" + self.public_key + sender, 32)
        cipher = AESGCM(derived(salt, secret, b"Content-Encoding: aes128gcm\0", 16))
        text = cipher.decrypt(derived(salt, secret, b"Content-Encoding: nonce\0", 12), record, None)
        assert text.endswith(b"\x02")
        document: dict[str, str] = json.loads(text[:-1])
        return document


@dataclass
class PushService:
    """What a push service got, by path, and the statuses of its next answers; then 201."""

    host: str = ""
    got: dict[str, list[tuple[dict[str, str], bytes]]] = field(default_factory=dict)
    statuses: dict[str, list[int]] = field(default_factory=dict)


@pytest.fixture
def service(certificate: PublicOptions, monkeypatch: pytest.MonkeyPatch) -> Iterator[PushService]:  # noqa: F811
    """A push service by HTTPS, whose certificate this process trusts."""
    push_service = PushService()

    class Handler(LoopbackHandler):
        def do_POST(self) -> None:
            push_service.got.setdefault(self.path, []).append((dict(self.headers), self.body()))
            status = next(iter(push_service.statuses.get(self.path, [])), 201)
            if self.path in push_service.statuses:
                push_service.statuses[self.path] = push_service.statuses[self.path][1:]
            self.reply(status, Location="/elsewhere")

    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate.tls_cert))
    with listening(Handler, certificate) as port:
        push_service.host = f"localhost:{port}"
        yield push_service


@contextmanager
def notifier(store: Store, service: PushService) -> Iterator[tuple[AlertNotifier, list[Delivery]]]:
    """A notifier with a target of web push, whose failures are kept."""
    sender = PushSender.from_url(f"{URL}?service={service.host}", "P")
    failures = list[Delivery]()
    channel = PushChannel("phone", sender, store.alerts, 15, 3, "mine", first_retry_s=0.01)
    opened = AlertNotifier(store.alerts, [ChannelSubscription(channel, KINDS)], RULES, failures.append)
    yield opened, failures
    opened.close(60)


def rebalance_alert(number: int) -> Alert:
    return Alert(AlertKind.REBALANCE, f"rebalance {number}", f"event {number}")


def test_a_message_is_encrypted_as_in_the_example_of_rfc_8291() -> None:
    """Section 5 and appendix A."""
    sender = ec.derive_private_key(int.from_bytes(decode_base64("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw")), ec.SECP256R1())
    body = encrypt(
        b"When I grow up, I want to be a watermelon",
        decode_base64("BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"),
        decode_base64("BTBZMqHH6r4Tts7J_aSIgg"),
        sender,
        decode_base64("DGv6ra1nlYgDCS1FRnbzlw"),
    )
    assert encode_base64(body) == (
        "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6"
        "cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
    )


def test_device__gets_each_alert_once_and_goes_when_gone(store: Store, service: PushService) -> None:
    jwt = pytest.importorskip("jwt")
    browsers = {path: Browser(path) for path in ("/busy", "/good", "/gone")}
    for browser in browsers.values():
        store.alerts.add_device(browser.device(service.host))
    service.statuses = {"/busy": [503, 429], "/gone": [410]}
    with notifier(store, service) as (opened, failures):
        opened.process_cycle_alerts([rebalance_alert(1)], KINDS, NOON)
    assert {path: len(messages) for path, messages in service.got.items()} == {"/busy": 3, "/good": 1, "/gone": 1}
    assert failures == []
    assert [device.endpoint for device in store.alerts.devices()] == [f"https://{service.host}{path}" for path in ("/busy", "/good")]
    for path, messages in service.got.items():
        headers, body = messages[-1]
        assert browsers[path].read(body) == {"title": "mine: rebalanced", "text": "event 1", "page": f"{PAGE}#t-last"}
        token, _, key = headers["Authorization"].removeprefix("vapid t=").partition(", k=")
        point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), decode_base64(key))
        claims = jwt.decode(token, point, algorithms=["ES256"], audience=f"https://{service.host}")
        assert claims["sub"] == "mailto:me@example.org"
        assert time.time() < claims["exp"] <= time.time() + 86_400
        assert (headers["Content-Encoding"], int(headers["TTL"]) > 0) == ("aes128gcm", True)
    bodies = [body for messages in service.got.values() for _, body in messages]
    assert len({body[:86] for body in bodies}) == len(bodies), "no salt and no key is used twice"


def test_refusing_device__is_reported_without_its_address(store: Store, service: PushService) -> None:
    store.alerts.add_device(Browser("/secret-moved").device(service.host))
    store.alerts.add_device(Browser("/good").device(service.host))
    service.statuses = {"/secret-moved": [307] * 3}
    with notifier(store, service) as (opened, failures):
        opened.process_cycle_alerts([rebalance_alert(1)], KINDS, NOON)
    assert [failure.failure_reason for failure in failures] == ["not accepted for 1 of 2 devices: HTTP 307"]
    assert {path: len(messages) for path, messages in service.got.items()} == {"/secret-moved": 3, "/good": 1}
    assert len(store.alerts.devices()) == 2


@contextmanager
def refused_channel(store: Store, service: PushService) -> Iterator[Callable[[], str]]:
    """A channel that sends a message once a call; two devices, /a and /b, have refused the first two."""
    for path in ("/a", "/b"):
        store.alerts.add_device(Browser(path).device(service.host))
    service.statuses = {"/a": [503, 503], "/b": [503, 503]}
    channel = PushChannel("phone", PushSender.from_url(f"{URL}?service={service.host}", "P"), store.alerts, 15, 3, "mine")
    message = AlertMessage(1, "phone", AlertKind.REBALANCE, "event 1", NOON)

    def send_again() -> str:
        channel.take_results()
        return channel._send_once(message)

    assert send_again() == "not accepted for 2 of 2 devices: HTTP 503"
    yield send_again
    channel.close(60)


def remove_devices(store: Store, path: str) -> None:
    store.alerts.remove_devices([device.id for device in store.alerts.devices() if device.endpoint.endswith(path)])


def test_device_that_stays__is_sent_a_retry(store: Store, service: PushService) -> None:
    with refused_channel(store, service) as send_again:
        assert send_again() == "not accepted for 2 of 2 devices: HTTP 503"
    assert {path: len(messages) for path, messages in service.got.items()} == {"/a": 2, "/b": 2}


def test_device_that_was_removed__is_sent_no_retry(store: Store, service: PushService) -> None:
    with refused_channel(store, service) as send_again:
        remove_devices(store, "/a")
        assert send_again() == "not accepted for 1 of 2 devices: HTTP 503"
    assert {path: len(messages) for path, messages in service.got.items()} == {"/a": 1, "/b": 2}


def test_retry_for_devices_that_were_all_removed__has_failed(store: Store, service: PushService) -> None:
    with refused_channel(store, service) as send_again:
        remove_devices(store, "/a")
        remove_devices(store, "/b")
        assert send_again() == NO_DEVICE
    assert {path: len(messages) for path, messages in service.got.items()} == {"/a": 1, "/b": 1}


def test_retry_beside_a_device_added_since__names_those_removed(store: Store, service: PushService) -> None:
    with refused_channel(store, service) as send_again:
        remove_devices(store, "/a")
        remove_devices(store, "/b")
        store.alerts.add_device(Browser("/new").device(service.host))
        assert send_again() == DEVICES_REMOVED


@pytest.mark.parametrize("paths", [pytest.param((), id="none"), pytest.param(("/gone",), id="gone")])
def test_an_alert_that_reaches_no_device_has_failed(store: Store, service: PushService, paths: tuple[str, ...]) -> None:
    for path in paths:
        store.alerts.add_device(Browser(path).device(service.host))
    service.statuses = {"/gone": [404]}
    with notifier(store, service) as (opened, failures):
        opened.process_cycle_alerts([rebalance_alert(1)], KINDS, NOON)
    assert [failure.failure_reason for failure in failures] == [NO_DEVICE]
    assert store.alerts.devices() == ()


def test_a_device_that_was_added_gets_the_alert_about_it(store: Store, service: PushService) -> None:
    browser = Browser("/new")
    with notifier(store, service) as (opened, _):
        store.alerts.add_device(browser.device(service.host))
        opened.process_cycle_alerts([rebalance_alert(1)], KINDS, NOON)
    assert [browser.read(body)["text"] for _, body in service.got["/new"]] == ["event 1"]


def test_the_last_word_of_a_process_needs_no_store(store: Store, service: PushService, monkeypatch: pytest.MonkeyPatch) -> None:
    """The watchdog sends it, and ends the process after it: it must not ask the store, which may hang."""
    browser = Browser("/a")
    store.alerts.add_device(browser.device(service.host))
    operations: list[str] = []

    def refuses(operation: str, *_: object, **_options: object) -> NoReturn:
        operations.append(operation)
        raise OperatorNeeded("the store is locked", "wait")

    with monkeypatch.context() as patch, notifier(store, service) as (opened, _):
        for access in ("read", "write", "write_later"):
            patch.setattr(store.db, access, refuses)
        opened.send_now(Alert(AlertKind.ERROR, "hung", "hung"), NOON, 60)
        patch.undo()
    assert [browser.read(body)["text"] for _, body in service.got["/a"]] == ["hung"]
    assert operations == []


def test_foreign_service_s_device__is_sent_nothing(store: Store, service: PushService) -> None:
    store.alerts.add_device(Browser("/inside").device(service.host))
    other = replace(service, host="localhost:1")
    with notifier(store, other) as (opened, failures):
        opened.process_cycle_alerts([rebalance_alert(1)], KINDS, NOON)
    assert [failure.failure_reason for failure in failures] == ["not accepted for 1 of 1 devices: unknown push service"]
    assert service.got == {}


@pytest.mark.parametrize(
    "service_host",
    [
        "fcm.googleapis.com", "updates.push.services.mozilla.com", "wns2-par02p.notify.windows.com", "web.push.apple.com",
        "push.example.org",
    ],
)  # fmt: skip
def test_push_service__of_a_browser_or_the_config_is_accepted(service_host: str) -> None:
    sender = PushSender.from_url(f"{URL}?service=push.example.org", "P")
    device = Browser("/a").device(service_host)
    assert sender.accepts(device)
    sender.require_valid_device(device)


@pytest.mark.parametrize(
    "service_host",
    [
        "", "fcm.googleapis.com:1", "fcm.googleapis.com.evil", "evilpush.apple.com", "127.0.0.1", "169.254.169.254", "push.example.org:8",
    ],
)  # fmt: skip
def test_push_service__that_is_unknown_is_refused(service_host: str) -> None:
    sender = PushSender.from_url(f"{URL}?service=push.example.org", "P")
    device = Browser("/a").device(service_host)
    assert not sender.accepts(device)
    assert not PushSender.from_url(URL, "P").accepts(device)
    with raises_field("endpoint", service_host):
        sender.require_valid_device(device)


def test_a_key_that_is_no_point_is_refused() -> None:
    device = replace(Browser("/a").device("web.push.apple.com"), public_key="B" + "A" * 86)
    with raises_field("key", "P-256"):
        PushSender.from_url(URL, "P").require_valid_device(device)


@pytest.mark.parametrize(
    "url", ["webpush://", f"webpush://{KEY}", f"webpush://me:{KEY}", "webpush://me:canary@example.org", f"webpush://me:{'0' * 64}@h",
            f"webpush://me:{'f' * 64}@h", f"webpush://me:{KEY}00@h", f"webpush://me:{KEY}@[canary"],
)  # fmt: skip
def test_a_malformed_address_names_its_variable_and_not_itself(store: Store, url: str) -> None:
    with pytest.raises(ConfigError) as error:
        alert_channels.open_notifier(table(PUSH=url), store.alerts, lambda _: None)
    assert "PUSH" in error.value.message
    assert not any(part in str(error.value) for part in ("canary", KEY))


def table(**url_by_variable: str) -> AlertsTable:
    """Return a table with one target for each variable, whose name is the variable's."""
    targets = [{"name": name.lower(), "url_env": name} for name in url_by_variable]
    return AlertsTable.model_validate({"targets": targets}, context={VARIABLES_KEY: Variables(url_by_variable)})


def open_table(store: Store, url: str) -> None:
    """Open the notifier of a run whose target of web push has this address."""
    alert_channels.open_notifier(table(PUSH=url), store.alerts, lambda _: None)


def test_run__offers_the_public_key_of_a_present_target(store: Store) -> None:
    assert devices_document(table(PUSH=""), store.alerts) == {"key": "", "devices": []}
    open_table(store, URL)
    assert devices_document(table(PUSH=URL), store.alerts)["key"] == PushSender.from_url(URL, "P").public_key
    assert devices_document(table(OTHER=""), store.alerts)["key"] == "", "the target is gone"


def test_devices__are_listed_without_their_addresses(store: Store) -> None:
    device = Browser("/a").device("web.push.apple.com")
    store.alerts.add_device(device)
    document = devices_document(table(PUSH=URL), store.alerts)
    assert document["devices"] == [{"id": device.id, "service": "web.push.apple.com", "user": "ann", "added": "2026-03-02 12:00:00"}]
    assert not {device.endpoint, device.auth, device.public_key} & set(json.dumps(document).split('"'))


@pytest.mark.parametrize(
    ("next_url", "is_kept"),
    [
        pytest.param(URL, True, id="the same key"),
        pytest.param(URL.replace("me:", "you:"), True, id="the same key, another contact"),
        pytest.param(URL.replace("5eed", "feed"), False, id="another key"),
    ],
)
def test_devices__end_with_the_key_that_they_subscribed_to(store: Store, next_url: str, is_kept: bool) -> None:
    open_table(store, URL)
    device = Browser("/a").device("web.push.apple.com")
    store.alerts.add_device(device)
    open_table(store, next_url)
    assert store.alerts.devices() == (device,) * is_kept


def test_second_target_of_web_push__is_refused(store: Store) -> None:
    with pytest.raises(ConfigError, match="push and second are both webpush://"):
        alert_channels.open_notifier(table(PUSH=URL, SECOND=URL), store.alerts, lambda _: None)


def test_devices_are_bounded_replaced_and_removed(store: Store) -> None:
    devices = [Browser(f"/{number}").device("web.push.apple.com", "ann" if number % 2 else "bob") for number in range(MAX_DEVICES + 1)]
    for device in devices[:-1]:
        store.alerts.add_device(device)
    with raises_field("endpoint", str(MAX_DEVICES)):
        store.alerts.add_device(devices[-1])
    renewed = replace(devices[0], auth="B" * 22)
    store.alerts.add_device(renewed)
    assert store.alerts.devices() == (*devices[1:-1], renewed)
    assert store.alerts.remove_devices({renewed.id, "unknown"}) == 1
    assert store.alerts.remove_devices([device.id for device in devices if device.user == "ann"]) == MAX_DEVICES // 2
    assert {device.user for device in store.alerts.devices()} == {"bob"}
    assert store.alerts.remove_devices(()) == 0


DEVICE = Browser("/a").device("web.push.apple.com")


@pytest.mark.parametrize(
    "attempt",
    [
        pytest.param(lambda store: store.alerts.devices(), id="read"),
        pytest.param(lambda store: store.alerts.add_device(DEVICE), id="add"),
        pytest.param(lambda store: store.alerts.remove_devices({"id"}), id="remove"),
    ],
)
@pytest.mark.parametrize("damage", ['[{"endpoint": 1}]', "[", "[1]", "{}{}"])
def test_devices__damaged_row_needs_an_operator_and_stays(store: Store, damage: str, attempt: Callable[[Store], object]) -> None:
    with store.db.write("damage a row") as db:
        write_facts(db, {PUSH_DEVICES: damage})
    with pytest.raises(OperatorNeeded, match="a row is damaged: the devices of web push"):
        attempt(store)
    with store.db.read("read the row") as db:
        assert fact_text(db, PUSH_DEVICES) == damage


ADDED = {"endpoint": DEVICE.endpoint, "key": DEVICE.public_key, "auth": DEVICE.auth, "page": DEVICE.page}
"""Arguments of a control that adds the device."""


def change(store: Store, arguments: dict[str, str], targets: AlertsTable) -> str:
    control = Control("1", ControlKind.DEVICE, tuple(arguments.items()), "", "ann", ControlOrigin.DASHBOARD, NOON, NOON + 300)
    return change_devices(targets, store.alerts, control)


def test_a_control_adds_and_removes_a_device(store: Store) -> None:
    assert change(store, ADDED, table(PUSH=URL)) == "added"
    assert store.alerts.devices() == (DEVICE,)
    assert change(store, {"remove": DEVICE.id}, table(PUSH=URL)) == "removed"
    assert store.alerts.devices() == ()


@pytest.mark.parametrize(
    ("arguments", "targets", "reason"),
    [
        pytest.param(ADDED | {"endpoint": "https://127.0.0.1/a"}, table(PUSH=URL), "endpoint: 127.0.0.1", id="unknown service"),
        pytest.param(ADDED, AlertsTable(), "alerts.targets: none is webpush://", id="no target"),
        pytest.param({"remove": "0" * 16}, table(PUSH=URL), "remove: no device", id="unknown device"),
    ],
)
def test_refused_control_of_a_device__changes_none(store: Store, arguments: dict[str, str], targets: AlertsTable, reason: str) -> None:
    store.alerts.add_device(other := Browser("/other").device("web.push.apple.com"))
    with pytest.raises(ConfigError, match=reason):
        change(store, arguments, targets)
    assert store.alerts.devices() == (other,)


def test_alerts_test_sends_to_each_device(service: PushService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = agents.config(tmp_path)
    browser = Browser("/a")
    config.write_text(f"{config.read_text()}\n[[alerts.targets]]\nname = 'phone'\nurl_env = 'PUSH'\n")
    monkeypatch.setenv("PUSH", f"{URL}?service={service.host}")
    with wiring.open_store_offline(load_config(config)) as (store, _):
        store.alerts.add_device(browser.device(service.host))
    assert alert_channels.send_test_alerts(config) == {"reached": True, "targets": [{"name": "phone", "delivered": True, "why": ""}]}
    assert [browser.read(body)["text"] for _, body in service.got["/a"]] == [alert_channels.TEST_MESSAGE]


@pytest.mark.parametrize(("device_count", "within_s"), [(0, 25), (1, 25), (3, 55)])
def test_alerts_test__waits_for_the_time_out_of_each_device(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, device_count: int, within_s: float
) -> None:
    config = agents.config(tmp_path)
    config.write_text(f"{config.read_text()}\n[[alerts.targets]]\nname = 'phone'\nurl_env = 'PUSH'\n")
    monkeypatch.setenv("PUSH", URL)
    waits: list[float] = []
    monkeypatch.setattr(alert_channels, "drain_channels", lambda _channels, within_s: waits.append(within_s) or [])
    with wiring.open_store_offline(load_config(config)) as (store, _):
        for number in range(device_count):
            store.alerts.add_device(Browser(f"/{number}").device("web.push.apple.com"))
    alert_channels.send_test_alerts(config)
    assert waits == [within_s]
