"""Signatures of model versions: a DSSE envelope around the record, by securesystemslib.

    {"payload": BASE64, "payloadType": "application/vnd.cellnet.version+json", "signatures": [{"keyid": …, "sig": …}]}

Dead Simple Signing Envelope: https://github.com/secure-systems-lab/dsse. The record names every blob by its sha256, so
that its signature covers them too. Keys are PEM files: Ed25519 of `cellnet registry keygen`, or ECDSA or RSA.
"""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cellnet.errors import ConfigError, IntegrityError, UntrustedError

if TYPE_CHECKING:
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import CryptoSigner, Key

PAYLOAD_TYPE: Final = "application/vnd.cellnet.version+json"


def make_keys(path: Path) -> Path:
    """A new private key at a path, readable by its owner alone, and `PATH.pub` beside it, which is given back."""
    from securesystemslib.signer import CryptoSigner

    if not path.name:
        raise ConfigError(f"{path} is no name for a key; give one like lab")
    public = path.with_name(f"{path.name}.pub")
    for place in (path, public):
        if os.path.lexists(place):
            raise ConfigError(f"{place} is there already; name a new one")
    signer = CryptoSigner.generate_ed25519()
    made: list[Path] = []
    for place, data, mode in ((path, signer.private_bytes, 0o600), (public, _public_pem(signer), 0o644)):
        try:
            handle = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            made.append(place)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
        except OSError as error:
            for each in made:  # half a key is none, and would be in the way of the next
                each.unlink(missing_ok=True)
            raise ConfigError(f"cannot write {place}: {error.strerror}") from error
    return public


def load_signer(path: Path) -> "CryptoSigner":
    """Who signs with the private key of a PEM file. Raises ConfigError."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from securesystemslib.signer import CryptoSigner

    try:
        return CryptoSigner(load_pem_private_key(_read(path), password=None))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path} is not a private key in PEM without a password; cellnet registry keygen") from error


def load_trusted(path: Path) -> list[str]:
    """The public keys of a PEM file, one or more, each as PEM. Raises ConfigError."""
    end = "-----END PUBLIC KEY-----"
    *keys, rest = (f"{part}{end}\n" for part in _read(path).decode(errors="replace").split(end))
    try:
        if [_public_key(pem) for pem in keys] and "BEGIN" not in rest:
            return keys
    except ValueError:
        pass
    raise ConfigError(f"{path} holds no public key in PEM; give the file that ends in .pub")


def sign(record: bytes, signer: "CryptoSigner") -> bytes:
    """The record in an envelope with a signature."""
    from securesystemslib.dsse import Envelope

    envelope = Envelope(record, PAYLOAD_TYPE, {})
    envelope.sign(signer)
    return json.dumps(envelope.to_dict(), indent=1).encode()


def opened(data: bytes, what: str) -> tuple[bytes, "Envelope | None"]:
    """A record and the envelope that it came in, if it did. Raises IntegrityError for a damaged envelope."""
    if b'"payloadType"' not in data:
        return data, None
    from securesystemslib.dsse import Envelope

    try:
        values = json.loads(data)
        if "payloadType" not in values:
            return data, None
        envelope = Envelope.from_dict(values)
        assert isinstance(envelope.payload_type, str)
    except Exception as error:  # whatever the library meets in bytes that anybody may have written
        raise IntegrityError(f"the signature of {what} is damaged") from error
    return envelope.payload, envelope


def signed_by(envelope: "Envelope | None", trusted: list[str], what: str) -> str:
    """The id of the trusted key that signed. Raises UntrustedError where none did."""
    if envelope is None:
        raise UntrustedError(f"{what} is not signed, and only signed versions are trusted here; see --trusted-keys")
    from securesystemslib.exceptions import VerificationError

    try:
        if envelope.payload_type != PAYLOAD_TYPE:
            raise VerificationError(f"a signature of {envelope.payload_type}")
        accepted: dict[str, Key] = envelope.verify([_public_key(pem) for pem in trusted], 1)
    except (VerificationError, ValueError) as error:
        raise UntrustedError(f"{what} is not signed by any of the keys that are trusted here") from error
    return next(iter(accepted))


def key_id(signer: "CryptoSigner") -> str:
    """By which envelopes name its key."""
    return str(signer.public_key.keyid)


def trusts(trusted: list[str], signer: "CryptoSigner") -> bool:
    """Whether a signer's key is among the trusted ones."""
    return key_id(signer) in [_public_key(pem).keyid for pem in trusted]


def _public_key(pem: str) -> "Key":
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from securesystemslib.signer import SSlibKey

    return SSlibKey.from_crypto(load_pem_public_key(pem.encode()))


def _public_pem(signer: "CryptoSigner") -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    public = load_pem_private_key(signer.private_bytes, password=None).public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read the key {path}: {error.strerror}") from error
