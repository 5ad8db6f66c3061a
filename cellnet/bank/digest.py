"""The digest of a bank: what a model was trained on, in one number.

It is the same for ever: models are compared by it years later. So a field that frames get later takes part only where
it is known, and banks that do not know it keep the digest that they had; likewise of settings (`exclude_if=is_none`).
"""

import hashlib
import json
from collections.abc import Iterable
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from cellnet.bank.columns import Frames
from cellnet.bank.frames import Frame
from cellnet.config.bank import BankSettings

FIRST: Final = frozenset(
    [
        *("frame", "lineage", "count", "centres", "group", "split", "height", "width", "bits", "darkest", "brightest"),
        *("pixel_um", "set_aside"),
    ]
)
"""The fields of the first banks, which take part whatever they hold."""
LINES: Final = 2**16
"""Frames whose lines are made together."""
PLAIN: Final = r"\A[ !#-\[\]-~]*\z"
"""A text of which nothing is escaped in JSON."""
HEARSAY: Final = frozenset(
    {
        *("source", "fingerprint", "twin", "greys", "form", "sharpness", "note"),
        *("focus", "brightest_share", "structure"),
    }
)
"""Fields that take no part: a model learns nothing from them."""


def digest_of(settings: BankSettings, frames: Iterable[Frame]) -> str:
    """sha256 over the settings and every frame's pixels, labels and split, in no order of the bank's."""
    digest = hashlib.sha256(settings.model_dump_json().encode())
    table = Frames.of(frames).table
    order = pc.sort_indices(table.column("frame"))
    names = sorted(set(table.column_names) - HEARSAY)
    for start in range(0, len(order), LINES):
        some = table.take(order.slice(start, LINES))
        known = pc.binary_join_element_wise(
            *(_said(name, some.column(name).combine_chunks()) for name in names), ", ", null_handling="skip"
        )
        lines = pc.binary_join_element_wise("\n{", known, "}", "")
        digest.update("".join(lines.to_pylist()).encode())
    return digest.hexdigest()


def _said(name: str, values: pa.Array) -> pa.Array:
    """The entry of a column in each row's JSON; null where it is left out."""
    if pa.types.is_nested(values.type):
        said = [None if value is None else json.dumps(value) for value in values.to_pylist()]
        texts = pa.array(said, pa.string())
    else:
        coded = values.dictionary_encode()
        texts = _as_json(coded.dictionary).take(coded.indices)
    if name in FIRST:
        texts = texts.fill_null("null")
    return pc.binary_join_element_wise(json.dumps(name), texts, ": ")


def _as_json(values: pa.Array) -> pa.Array:
    """Each value in JSON."""
    if pa.types.is_string(values.type) and pc.all(pc.match_substring_regex(values, PLAIN)).as_py():
        return pc.binary_join_element_wise('"', values, '"', "")
    return pa.array(map(json.dumps, values.to_pylist()), pa.string())
