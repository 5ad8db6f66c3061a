"""The digest of a bank: what a model was trained on, in one number.

It is the same for ever: models are compared by it years later. So a field that frames get later takes part only where
it is known, and banks that do not know it keep the digest that they had; likewise of settings (`exclude_if=is_none`).
"""

import hashlib
import json
from collections.abc import Iterable
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
    lines = [
        json.dumps(
            {
                name: value
                for name, value in vars(frame).items()
                if name in FIRST or (name not in HEARSAY and value is not None)
            },
            sort_keys=True,
        )
        for frame in sorted(frames, key=lambda frame: frame.frame)
    ]
    return hashlib.sha256("\n".join([settings.model_dump_json(), *lines]).encode()).hexdigest()
