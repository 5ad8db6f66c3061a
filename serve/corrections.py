"""The process that writes what people say into a bank: one, so that what each may write is counted in one place."""

import threading
from collections import Counter
from datetime import UTC, date, datetime
from typing import Final

from starlette.exceptions import HTTPException

from cellnet.bank.bank import Bank
from cellnet.bank.correcting import label_image
from cellnet.bank.history import standing
from cellnet.bank.labels import Label
from cellnet.errors import CellnetError, DataError
from cellnet.images.file import ImageFile
from cellnet.store.place import Place
from serve.http.labels import Known, Labelled, Other, Taken
from serve.logs import set_up_logs
from serve.settings import LogFormat

SOMEBODY: Final = "somebody"
"""Who says it, where nobody gave a name."""


class Corrections:
    """The deployment. The bank is opened with the first label."""

    def __init__(self, *, bank: Place, most_labels: int, most_mb: float, log_format: LogFormat | None = None) -> None:
        if log_format:
            set_up_logs(log_requests=False, log_format=log_format)
        self._place, self._most_labels, self._most_bytes = bank, most_labels, most_mb * 1e6
        self._bank: Bank | None = None
        self._lock = threading.Lock()
        self._day = date.min
        self._labels: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()

    def write(self, taken: Taken) -> Labelled | DataError | HTTPException:
        """What came of it, or why nothing did: of the image or the label, of the key's share, or of the bank."""
        with self._lock:
            if refusal := self._refusal(taken):
                return refusal
            try:
                self._bank = self._bank or Bank.open(self._place)
                said = taken.said.model_dump(exclude={"plate", "well", "day", "by"}, exclude_none=True)
                by = taken.by or taken.said.by or SOMEBODY
                done = label_image(
                    self._bank,
                    ImageFile(taken.name, taken.png),
                    plate=taken.said.plate,
                    well=taken.said.well,
                    day=taken.said.day,
                    pixel_um=taken.pixel_um,
                    by=by,
                    **said,
                )
            except DataError as error:
                return error
            except CellnetError as error:
                return HTTPException(507, f"the bank takes no corrections now: {error}")
            self._labels[taken.by] += 1
            self._bytes[taken.by] += len(taken.png)
            [frame] = self._bank.frames.equal("frame", done.frame)
            [label] = self._bank.labels.of_entry(done.entry)
            return Labelled(
                frame=done.frame,
                entry=done.entry,
                added=done.added,
                lineage=frame.lineage,
                batch=frame.batch,
                otherwise=label.otherwise,
                others=[one for one in _last_said(self._bank, done.frame) if one.by != by],
            )

    def read(self, frame: str) -> Known | HTTPException:
        """What the bank has of an image by now; 507 where it does not answer."""
        with self._lock:
            try:
                self._bank = self._bank or Bank.open(self._place)
                self._bank.refresh()
            except CellnetError as error:
                return HTTPException(507, f"the bank tells of no corrections now: {error}")
            return Known(frame=frame, others=_last_said(self._bank, frame))

    def _refusal(self, taken: Taken) -> HTTPException | None:
        """That a key, or all who come without one, have written what they may today (UTC)."""
        today = datetime.now(UTC).date()
        if today != self._day:
            self._day = today
            self._labels.clear()
            self._bytes.clear()
        more = self._bytes[taken.by] + len(taken.png)
        if self._labels[taken.by] < self._most_labels and more <= self._most_bytes:
            return None
        whose = f"the key {taken.by}" if taken.by else "who comes without a name"
        most = f"{self._most_labels:,} labels or {self._most_bytes / 1e6:,.10g} MB"
        return HTTPException(
            429, f"{whose} may write {most} a day; come again tomorrow (UTC), or write a table by: cellnet bank label"
        )


def _last_said(bank: Bank, frame: str) -> list[Other]:
    """What each said last of a frame and did not take back, the newest at the end."""
    last: dict[str, Label] = {}
    for label in standing(bank.labels.of_frame(frame)):
        last.pop(label.by, None)
        last[label.by] = label
    return [
        Other(by=one.by, at=one.at, lineage=one.lineage, count=one.count, unusable=one.unusable)
        for one in last.values()
    ]
