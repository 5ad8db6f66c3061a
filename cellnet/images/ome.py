"""What OME-XML says of the images of a file: how large a pixel is, and what its channels are.

https://www.openmicroscopy.org/Schemas/Documentation/Generated/OME-2016-06/ome.html
"""

import math
import re
from dataclasses import dataclass
from typing import Final
from xml.etree import ElementTree

from cellnet.images.calibration import PixelUm, length_um, pixel_of
from cellnet.images.channels import is_transmitted

MOST_PLANES: Final = 1_000_000
"""That a description tells of, in other files too."""
MOST_BLOCKS: Final = 100_000
"""Places of planes; a reader of planes takes seconds for more, and 16 MB hold fewer that name their files."""
MOST_IMAGES: Final = 20_000
"""Fields of a plate, say, in other files too."""
_TRANSMITTED: Final = ("brightfield", "phase", "dic", "hoffmanmodulation", "obliqueillumination", "polarizedlight")
"""Values of a channel's ContrastMethod."""


@dataclass(frozen=True)
class OmeImage:
    """An `Image` of a description."""

    pixel_um: PixelUm | None
    channels: tuple[str, ...]
    """Names, empty where there is none."""
    transmitted: tuple[int, ...]
    """Which channels are of transmitted light."""


def read_ome(text: str, pages_n: int) -> tuple[list[OmeImage], str]:
    """The images of a description, and the description without what a reader of planes has no use for.

    There the name of an image is its place, from 0, and no other file is named where all planes are of one. Raises
    ValueError for what is not OME-XML, or tells of more than a file can hold, which has so many pages.
    """
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ValueError("OME-XML needs no entities of its own")
    if text.count("TiffData") > 2 * MOST_BLOCKS:
        raise ValueError(f"tells of over {MOST_BLOCKS} blocks of planes")
    try:
        root = ElementTree.fromstring(text.encode())
    except ElementTree.ParseError as error:
        raise ValueError(f"no XML: {error}") from error
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    for child in [child for child in root if child.tag != "Image"]:
        root.remove(child)
    _check_planes(root, pages_n)
    _drop_needless_names(root)
    images = []
    for place, image in enumerate(root):
        image.set("Name", str(place))
        images.append(_image(image.find("Pixels")))
    return images, ElementTree.tostring(root, encoding="unicode")


def most_planes(text: bytes) -> float:
    """At most how many planes a description tells of, in other files too, as far as its words tell unparsed.

    Tags of both ends count. Infinite where a number is written in an uncommon way.

    >>> most_planes(b'<Pixels SizeZ="5" SizeC="2" SizeT="1" SizeX="9"/>'), most_planes(b"a=1")
    (10.0, 0.0)
    """
    told: dict[bytes, int] = {}
    for word, number in _COUNTS.findall(text):
        if not number:
            return math.inf
        told[word] = max(told.get(word, 1), int(number))
    sizes = math.prod(told.get(b"Size" + axis, 1) for axis in (b"Z", b"C", b"T"))
    blocks = max(told.get(b"PlaneCount", 0), told.get(b"NumPlanes", 0))
    return float(max(text.count(b"Pixels") * sizes, text.count(b"TiffData") * blocks))


_COUNTS: Final = re.compile(rb"(Size[ZCT]|PlaneCount|NumPlanes)(?:=[\"'](\d{1,7})[\"'])?")


def _image(pixels: ElementTree.Element | None) -> OmeImage:
    if pixels is None:
        return OmeImage(None, (), ())
    sizes = (length_um(pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "µm")) for axis in "XY")
    channels = [channel for channel in pixels if channel.tag == "Channel"]
    names = tuple(channel.get("Name", "").strip() for channel in channels)
    transmitted = tuple(
        place
        for place, (channel, name) in enumerate(zip(channels, names, strict=True))
        if channel.get("ContrastMethod", "").lower() in _TRANSMITTED
        or channel.get("IlluminationType", "").lower() == "transmitted"
        or is_transmitted(name)
    )
    return OmeImage(pixel_of(*sizes), names, transmitted)


def _check_planes(root: ElementTree.Element, pages_n: int) -> None:
    """Raise ValueError for more planes than there can be: readers make room for all that are told of."""
    planes_n = told_n = 0
    if len(root) > MOST_IMAGES:
        raise ValueError(f"{len(root)} images")
    for pixels in root.iter("Pixels"):
        sizes = [int(pixels.get(f"Size{axis}", 1)) for axis in "ZCT"]
        if min(sizes) < 1 or max(sizes) > MOST_PLANES:
            raise ValueError(f"sizes of {sizes}")
        planes_n += sizes[0] * sizes[1] * sizes[2]
        told_n += sum(_told(data, pages_n) for data in pixels.iter("TiffData"))
    if max(planes_n, told_n) > MOST_PLANES:
        raise ValueError(f"{planes_n} planes in {told_n} places")


def _told(data: ElementTree.Element, pages_n: int) -> int:
    """How many planes a `TiffData` places: as many as it says, or one, or all that follow."""
    first = int(data.get("IFD", 0))
    told_n = int(data.get("PlaneCount", data.get("NumPlanes", 1 if "IFD" in data.attrib else 0)))
    if min(first, told_n) < 0 or first > MOST_PLANES:
        raise ValueError(f"{told_n} planes from {first}")
    return told_n or pages_n


def _drop_needless_names(root: ElementTree.Element) -> None:
    """Forget in which file planes are where that is one, which may have been renamed since."""
    everywhere = list(root.iter("TiffData"))
    named = [(data, uuid) for data in everywhere for uuid in data.findall("UUID")]
    if len(named) == len(everywhere) and len({uuid.text for _, uuid in named}) == 1:
        for data, uuid in named:
            data.remove(uuid)
