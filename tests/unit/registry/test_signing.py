"""Signed versions: what is trusted, and what is not."""

import errno
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from cellnet.errors import ConfigError, IntegrityError, UntrustedError
from cellnet.registry import signing
from cellnet.registry.records import Card
from cellnet.registry.registry import Registry
from cellnet.untrusted import WEIGHTS

KEY = "regressor/versions/000001.json"


class Lab:
    """A registry and the keys of somebody who may publish to it."""

    def __init__(self, folder: Path, name: str = "lab") -> None:
        self.public = signing.make_keys(folder / name)
        self.private = folder / name
        self.uri = str(folder / "registry")

    def open(self, *, signs: bool = False, trusts: bool = False) -> Registry:
        return Registry.open(
            self.uri,
            trusted=signing.load_trusted(self.public) if trusts else (),
            signer=signing.load_signer(self.private) if signs else None,
        )


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def test_what_is_published_with_a_key_is_verified_with_its_public_key(lab: Lab, card: Callable[..., Card]) -> None:
    version = lab.open(signs=True, trusts=True).publish("regressor", {WEIGHTS: b"weights"}, card())
    trusting = lab.open(trusts=True)
    assert trusting.resolve("regressor@1") == version
    assert trusting.read(version, WEIGHTS) == b"weights"
    key = signing.key_id(signing.load_signer(lab.private))[:12]
    assert trusting.signature(version) == f"signed by key {key}…, which is trusted"
    assert lab.open().signature(version) == f"says that it is signed by key {key}…; --trusted-keys checks it"
    assert lab.open().resolve("regressor@1") == version  # nobody has to verify


def test_the_private_key_is_its_owners_alone_and_is_never_overwritten(lab: Lab) -> None:
    assert lab.private.stat().st_mode & 0o777 == 0o600
    before = lab.private.read_bytes()
    with pytest.raises(ConfigError, match=r"lab is there already; name a new one"):
        signing.make_keys(lab.private)
    assert lab.private.read_bytes() == before
    (lab.private.parent / "other.pub").write_text("somebody's")
    with pytest.raises(ConfigError, match=r"other.pub is there already"):
        signing.make_keys(lab.private.parent / "other")
    assert not (lab.private.parent / "other").exists()
    for path in (Path("/"), Path("."), lab.private.parent / "none" / "key"):
        with pytest.raises(ConfigError):
            signing.make_keys(path)


def test_the_private_key_does_not_travel_to_other_processes(lab: Lab) -> None:
    registry = lab.open(signs=True, trusts=True)
    data = pickle.dumps(registry)
    copy = pickle.loads(data)
    assert b"PRIVATE" not in data and copy.signer is None and copy.trusted == registry.trusted


def test_unsigned_versions_are_refused_where_signatures_are_required(lab: Lab, card: Callable[..., Card]) -> None:
    lab.open().publish("regressor", {WEIGHTS: b"weights"}, card())
    with pytest.raises(UntrustedError, match=r"regressor@1 in .* is not signed, and only signed"):
        lab.open(trusts=True).resolve("regressor@1")
    with pytest.raises(ConfigError, match=r"only signed versions are trusted here .* give --signing-key too"):
        lab.open(trusts=True).publish("regressor", {WEIGHTS: b"weights"}, card())
    assert [one.problem is None for one in lab.open(trusts=True).versions()] == [False]


def test_another_key_is_not_trusted(lab: Lab, tmp_path: Path, card: Callable[..., Card]) -> None:
    stranger = Lab(tmp_path, "stranger")
    stranger.open(signs=True).publish("regressor", {WEIGHTS: b"weights"}, card())
    with pytest.raises(UntrustedError, match=r"regressor@1 in .* is not signed by any of the keys"):
        lab.open(trusts=True).resolve("regressor@1")
    both = tmp_path / "both.pub"
    both.write_bytes(lab.public.read_bytes() + stranger.public.read_bytes())
    assert Registry.open(lab.uri, trusted=signing.load_trusted(both)).resolve("regressor@1").number == 1
    wrong = Registry.open(
        lab.uri, trusted=signing.load_trusted(lab.public), signer=signing.load_signer(stranger.private)
    )
    with pytest.raises(ConfigError, match="the signing key is not among the trusted keys"):
        wrong.publish("regressor", {WEIGHTS: b"weights"}, card())


def _payload(envelope: dict, change: Callable[[dict], object]) -> dict:
    import base64

    record = json.loads(base64.b64decode(envelope["payload"]))
    change(record)
    return envelope | {"payload": base64.b64encode(json.dumps(record).encode()).decode()}


TAMPERINGS = {
    "another blob": lambda e: _payload(e, lambda r: r["blobs"][WEIGHTS].update(sha256="0" * 64)),
    "another kernel": lambda e: _payload(e, lambda r: r["card"]["preprocess"].update(kernel="edge")),
    "no signature": lambda e: e | {"signatures": []},
    "another type": lambda e: e | {"payloadType": "text/plain"},
    "a signature of nothing": lambda e: e | {"signatures": [{**e["signatures"][0], "sig": "AAAA"}]},
    "a signature that is no text": lambda e: e | {"signatures": [{**e["signatures"][0], "sig": 7}]},
    "a signature twice": lambda e: e | {"signatures": e["signatures"] * 2},
    "no payload": lambda e: {key: value for key, value in e.items() if key != "payload"},
    "a payload that is no record": lambda e: e | {"payload": "e30="},
    "a type that is a list": lambda e: e | {"payloadType": []},
    "nothing of it": lambda e: {"payloadType": None},
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_a_tampered_envelope_is_refused(lab: Lab, card: Callable[..., Card], name: str) -> None:
    registry = lab.open(signs=True, trusts=True)
    registry.publish("regressor", {WEIGHTS: b"weights"}, card())
    registry.store.put(KEY, json.dumps(TAMPERINGS[name](json.loads(registry.store.get(KEY)))).encode())
    with pytest.raises((UntrustedError, IntegrityError)) as caught:
        registry.resolve("regressor@1")
    assert "\n" not in str(caught.value) and "regressor@1" in str(caught.value)


def test_a_signed_version_in_the_place_of_another_is_refused(lab: Lab, card: Callable[..., Card]) -> None:
    registry = lab.open(signs=True, trusts=True)
    registry.publish("regressor", {WEIGHTS: b"old"}, card())
    registry.publish("regressor", {WEIGHTS: b"new"}, card())
    registry.store.put("regressor/versions/000002.json", registry.store.get(KEY))
    with pytest.raises(IntegrityError, match=r"regressor@2 in .* says it is regressor@1"):
        registry.resolve("regressor@2")


@pytest.mark.parametrize(
    "content", [b"", b"not a key", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"]
)
def test_a_file_that_is_no_key_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"key.pem holds no public key in PEM; give the file that ends in .pub"):
        signing.load_trusted(path)
    with pytest.raises(ConfigError, match=r"key.pem is not a private key in PEM"):
        signing.load_signer(path)
    with pytest.raises(ConfigError, match=r"cannot read the key .*nowhere: No such file"):
        signing.load_signer(tmp_path / "nowhere")


def test_a_class_named_like_the_envelope_is_no_envelope(lab: Lab, card: Callable[..., Card]) -> None:
    registry = lab.open()
    registry.publish("classifier", {WEIGHTS: b"w"}, card("classify", classes=("payloadType", "A549")))
    assert registry.resolve("classifier@1").card.classes == ["payloadType", "A549"]


def test_keys_that_cannot_be_written_whole_leave_none_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(signing.os, "fdopen", full)
        with pytest.raises(ConfigError, match="lab: No space left on device"):
            signing.make_keys(tmp_path / "lab")
    assert list(tmp_path.iterdir()) == []
    assert signing.make_keys(tmp_path / "lab").exists()
