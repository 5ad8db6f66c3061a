"""Which image a written name means, among the images that there are.

Tables, points and annotations name images as a person or another program wrote them: with `\\` for `/`, in other letter
case, without a suffix, without the folder, or with folders of another machine. A name means the image of its very path;
else the one that is left when more and more is forgiven. What two images could be meant by is no match, and is told.
"""

import posixpath
import re
import unicodedata
import urllib.parse
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from cellnet.images.file import SUFFIXES
from cellnet.store.paths import AnyPath, walk

MOST_FILES: Final = 1_000_000
"""That are looked through below a folder; what lies behind them is found by its very path alone."""
MOST_FOLDERS: Final = 8
"""The last folders of a path by which it is found, besides all of it."""
IMAGE_SUFFIXES: Final = SUFFIXES | {
    *(".czi", ".nd2", ".lif", ".lsm", ".oib", ".oif", ".vsi", ".ims", ".dv", ".svs", ".ndpi", ".scn", ".stk", ".flex"),
    *(".gif", ".webp", ".jp2", ".heic", ".dng", ".raw", ".dcm", ".nii", ".mrc", ".zarr", ".avi", ".mp4", ".h5", ".npy"),
}
"""Of images that are read, and of others that a name may have had before it was exported."""
_HIDDEN_FOLDERS: Final = frozenset({"__macosx", "$recycle.bin", "@eadir"})
_HIDDEN_FILES: Final = frozenset({"thumbs.db", "desktop.ini", "ehthumbs.db", "icon\r"})


@dataclass(frozen=True)
class Match:
    """What a written name may mean: one image, none, or several between which nobody can tell."""

    images: tuple[str, ...]
    """Paths relative to the folder, with `/`."""
    other_suffix: bool = False
    """Whether the name has the suffix of another image format than the image."""

    @property
    def one(self) -> str | None:
        """The image, if there is exactly one."""
        return self.images[0] if len(self.images) == 1 else None

    def why_not(self, written: str) -> str:
        """In words why the name means no single image, and what to do.

        >>> Match(("A172/img_000.tif", "A549/img_000.tif")).why_not("img_000.tif")
        'img_000.tif may be A172/img_000.tif or A549/img_000.tif; write the folder too'
        """
        if not self.images:
            return f"there is no image {written}"
        named, more = " or ".join(self.images[:3]), len(self.images) - 3
        folders = {posixpath.dirname(image) for image in self.images}
        advice = (
            "write the folder too" if len(folders) == len(self.images) else "write path and suffix as the file has them"
        )
        return f"{written} may be {named}{f' or one of {more} more' if more > 0 else ''}; {advice}"


class Names:
    """Images by the names that somebody may write for them.

    Made in a time that grows with the number of images; a name is found in a time that does not.
    """

    def __init__(self, images: Iterable[str]) -> None:
        """Of paths relative to one folder, with `/`."""
        self._images = dict.fromkeys(images)
        self._indexes: dict[int, tuple[_Index, _Index]] = {}

    def find(self, written: str) -> Match:
        """What a name means: the image of this path, else those that fit when as little as possible is forgiven.

        Forgiven are first the slash, `./`, the form of accents and blanks; then letter case; then a folder that only
        the one of both has, or a missing or another suffix; then all of these.

        >>> names = Names(["A549/a.png", "HELA/a.png", "HELA/b.tif"])
        >>> names.find(r".\\a549\\A.png").images, names.find("b").images, names.find("a.png").images
        (('A549/a.png',), ('HELA/b.tif',), ('A549/a.png', 'HELA/a.png'))
        """
        if written in self._images:
            return Match((written,))
        images = next((tuple(found) for found in self._ever_more_forgiving(written) if found), ())
        return Match(images, other_suffix=bool(images) and _other_suffix(written, images))

    def find_all(self, written: Iterable[str]) -> dict[str, Match]:
        """What each of many names means.

        One with another suffix does not mean an image that is named with its own: a.jpg beside a.png is another file.
        """
        matches = {name: self.find(name) for name in written}
        named = {match.one for match in matches.values() if not match.other_suffix}
        return {
            name: Match(()) if match.other_suffix and match.one in named else match for name, match in matches.items()
        }

    def _ever_more_forgiving(self, written: str) -> Iterator[dict[str, None]]:
        spelled, folded, stem = _forms(written)
        if spelled:
            yield self._same(0, spelled)
            yield self._same(1, folded)
            yield self._other_folders(1, folded) | self._same(2, stem)
            yield self._other_folders(2, stem)

    def _same(self, form: int, name: str) -> dict[str, None]:
        return dict.fromkeys(self._index(form)[0].get(name, ()))

    def _other_folders(self, form: int, name: str) -> dict[str, None]:
        """Images whose path ends with the name, else those with whose path it ends; the longest such path."""
        paths, tails = self._index(form)
        if longer := tails.get(name):
            return dict.fromkeys(longer)
        return next((dict.fromkeys(paths[tail]) for tail in _tails(name) if tail in paths), {})

    def _index(self, form: int) -> tuple["_Index", "_Index"]:
        """The images by a form of their paths, and by what their paths end with; made when it is first needed."""
        if form not in self._indexes:
            paths, tails = _Index(list), _Index(list)
            for image in self._images:
                path = _forms(image)[form]
                paths[path].append(image)
                for tail in _tails(path):
                    tails[tail].append(image)
            self._indexes[form] = paths, tails
        return self._indexes[form]


_Index = defaultdict[str, list[str]]


def images_below(folder: AnyPath, suffixes: Iterable[str] = SUFFIXES) -> list[str]:
    """The image files in a folder and below it, as paths relative to it with `/`, in order; hidden ones are left out.

    Links to folders are not followed; of a huge folder only `MOST_FILES` files are looked through.
    """
    taken = frozenset(suffixes)
    return sorted(path for path in _walk(folder) if posixpath.splitext(path)[1].lower() in taken)


def images_in(folder: AnyPath) -> list[str]:
    """The names of the image files in a folder itself, in order, without hidden ones."""
    try:
        names = sorted(path.name for path in folder.iterdir() if not path.is_dir())
    except OSError:
        return []
    return [name for name in names if posixpath.splitext(name)[1].lower() in SUFFIXES and not is_hidden(name)]


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is one that systems and programs keep for themselves."""
    return name.startswith((".", "~$")) or name.casefold() in _HIDDEN_FOLDERS | _HIDDEN_FILES


def _walk(folder: AnyPath) -> Iterator[str]:
    seen = 0
    for root, folders, names in walk(folder):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        inside = root.relative_to(folder).as_posix()
        for name in names:
            seen += 1
            if seen > MOST_FILES:
                return
            if not is_hidden(name):
                yield name if inside == "." else f"{inside}/{name}"


def _forms(name: str) -> tuple[str, str, str]:
    """A name spelled one way; without regard of letter case; and also without the suffix of an image."""
    spelled = _spelled(name)
    folded = unicodedata.normalize("NFC", spelled.casefold())
    return spelled, folded, without_suffix(folded)


def _spelled(name: str) -> str:
    """With `/`, accents as one character, plain blanks, no `./`; of an address only its path."""
    if address := _ADDRESS.match(name):
        name = urllib.parse.unquote(re.split(r"[?#]", name[address.end() :])[0])
    name = re.sub(r"\s", " ", unicodedata.normalize("NFC", name.replace("\\", "/"))).strip()
    return "/".join(part for part in name.split("/") if part not in ("", "."))


_ADDRESS: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def without_suffix(name: str) -> str:
    """A name without the suffix of an image, also the two of an OME-TIFF; what is no such suffix stays.

    >>> without_suffix("img_000.ome.tif"), without_suffix("well_1.5")
    ('img_000', 'well_1.5')
    """
    stem, suffix = posixpath.splitext(name)
    if suffix.lower() not in IMAGE_SUFFIXES:
        return name
    return stem[: -len(".ome")] if stem.lower().endswith(".ome") else stem


def _tails(path: str) -> Iterator[str]:
    """A path, and what is left of it without its first folders, the longest first.

    >>> list(_tails("p/A549/a.png"))
    ['p/A549/a.png', 'A549/a.png', 'a.png']
    """
    yield path
    parts = path.split("/")
    for start in range(max(1, len(parts) - MOST_FOLDERS), len(parts)):
        yield "/".join(parts[start:])


def _other_suffix(written: str, images: Iterable[str]) -> bool:
    """Whether the name has a suffix of images, which none of these has."""
    suffix = posixpath.splitext(_spelled(written))[1].lower()
    return suffix in IMAGE_SUFFIXES and all(posixpath.splitext(image)[1].lower() != suffix for image in images)
