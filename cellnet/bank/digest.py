"""The digest of a bank: what a model was trained on, in one number.

It is the same for ever: models are compared by it years later. So a field that frames get later takes part only where
it is known, and banks that do not know it keep the digest that they had; likewise of settings (`exclude_if=is_none`).
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import fields
from typing import Final

from cellnet.bank.frames import Frame
from cellnet.config.bank import BankSettings

FIRST: Final = frozenset(
    [
        *("frame", "lineage", "count", "centres", "group", "split", "height", "width", "bits", "darkest", "brightest"),
        *("pixel_um", "set_aside"),
    ]
)
"""The fields of the first banks, which take part whatever they hold."""
HEARSAY: Final = frozenset({"source", "fingerprint", "twin", "greys", "form", "sharpness", "note"})
"""Fields that take no part: a model learns nothing from them."""


def digest_of(settings: BankSettings, frames: Iterable[Frame]) -> str:
    """sha256 over the settings and every frame's pixels, labels and split, in no order of the bank's."""
    digest = hashlib.sha256(settings.model_dump_json().encode())
    for frame in sorted(frames, key=lambda frame: frame.frame):
        told = {field.name: getattr(frame, field.name) for field in fields(frame) if field.name not in HEARSAY}
        known = {name: value for name, value in told.items() if value is not None or name in FIRST}
        digest.update(b"\n" + json.dumps(known, sort_keys=True).encode())
    return digest.hexdigest()
