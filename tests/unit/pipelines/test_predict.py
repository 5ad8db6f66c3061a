"""What a job of predictions says of one image, without Ray."""

from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from cellnet.prediction.lineup import Lineup
from cellnet.prediction.sources import list_files
from cellnet.registry.registry import Registry
from pipelines.predict import Question, _answers, _read


def test_why_an_image_was_not_predicted_is_said_without_its_name_again(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((2, 40, 40), np.uint16))
    nobody: Lineup[Any] = Lineup()
    question = Question(registry=Registry.open(str(tmp_path / "r")), models=nobody, pixel_um=None, page="all")
    said = [one for file in list_files([tmp_path]) for one in _answers(nobody, file, _read(file), question)]
    names = [Path(one.image).name for one in said]
    assert names == ["a.png", "b.tif#1", "b.tif#2"]
    assert all(one.error and not any(name in one.error for name in ("a.png", "b.tif")) for one in said), said
