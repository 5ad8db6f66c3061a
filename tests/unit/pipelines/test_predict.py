"""A job of predictions, of images that were done before: without Ray."""

from pathlib import Path

import pytest

import cellnet.reports.plates
import cellnet.reports.results
from cellnet.images.file import ImageFile
from cellnet.images.quality import as_sharp_as_plate
from cellnet.images.wells import read_name
from cellnet.prediction.answers import Prediction
from cellnet.prediction.sources import ListedFile
from cellnet.reports.results import Results
from pipelines.predict import Job


def test_the_plates_of_a_job_are_judged_once_whether_or_not_its_results_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [
        ListedFile(
            image=ImageFile(name, b""),
            place=f"/P1/{name}",
            name=name,
            folder="/P1",
            modified="1",
            well=read_name(name).well,
        )
        for name in (f"A{number:02}.png" for number in range(1, 13))
    ]
    said = [
        [Prediction(image=file.name, count=10.0, quality=["out_of_focus"], focus=0.55 + 0.01 * number)]
        for number, file in enumerate(files)
    ]
    judged = list[int]()

    def judge(focus: list[float | None], flags: list[object]) -> object:
        judged.append(len(focus))
        return as_sharp_as_plate(focus, flags)

    monkeypatch.setattr(cellnet.reports.plates, "as_sharp_as_plate", judge)
    monkeypatch.setattr(cellnet.reports.results, "draw_plate", lambda *plate, **options: b"")
    results = Results.open(str(tmp_path / "out"), {})
    results.add(zip(files, said, strict=True))
    results.flush()
    told = []
    for kept in (Results.open(str(tmp_path / "out"), {}), None):
        job = Job(files=files, question=None, places=(), results=kept, kept=kept.done(files) if kept else {})
        monkeypatch.setattr(job, "_fresh", lambda fresh: iter(said))
        assert len(list(job.run())) == 12 and judged == [12]
        judged.clear()
        told.append((job.soft, sorted(job.as_sharp)))
    assert told[0] == told[1] and told[0][0][0].startswith("P1 is softer") and len(told[0][1]) == 12
