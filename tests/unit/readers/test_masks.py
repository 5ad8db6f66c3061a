"""Instance masks: counted at import, each cell where it lies."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from cellnet.bank.bank import Bank
from cellnet.bank.prepare import prepare
from cellnet.errors import DataError
from cellnet.images.file import encode_png
from cellnet.readers import Options, read_source


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two frames of 60×80: one with three cells, of which two touch and one is in two parts; one without a mask."""
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    noise_HW = np.random.default_rng(0).integers(0, 255, (60, 80), np.uint8)
    for name in ("A172_C7", "BV2_D1"):
        (tmp_path / "images" / f"{name}.png").write_bytes(encode_png(noise_HW + ord(name[0])))
    mask_HW = np.zeros((60, 80), np.uint16)
    mask_HW[10:21, 10:21] = 700
    mask_HW[10:21, 21:32] = 2
    mask_HW[40, 40] = mask_HW[50, 60] = 9
    cv2.imwrite(str(tmp_path / "masks" / "A172_C7.tif"), mask_HW)
    return tmp_path


def test_every_number_is_a_cell_at_its_mean_place(source: Path, tmp_path: Path) -> None:
    store = Bank.create(tmp_path / "bank").store
    first, second = (prepare(frame, store) for frame in read_source(source, Options(lineage_pattern="^[^_]+")))
    assert (first.lineage, first.count) == ("A172", 3)
    assert sorted(first.centres or []) == [[15, 15], [26, 15], [50, 45]]
    assert (second.lineage, second.count, second.centres) == ("BV2", None, None)


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (np.ones((60, 79), np.uint8), "the mask is 60×79, not one channel of 60×80"),
        (np.ones((60, 80), np.uint8), "every pixel has the number 1, and nobody can tell cells from background"),
        (
            np.kron(255 * np.eye(2, dtype=np.uint8), np.pad(np.ones((10, 20), np.uint8), 10)),
            "every cell has the number 255",
        ),
        (None, "A172_C7.tif: not a readable"),
    ],
)
def test_a_mask_that_does_not_fit_sets_its_frame_aside(
    source: Path, tmp_path: Path, mask: np.ndarray | None, said: str
) -> None:
    path = source / "masks" / "A172_C7.tif"
    path.write_bytes(b"rot") if mask is None else cv2.imwrite(str(path), mask)
    frame = prepare(read_source(source)[0], Bank.create(tmp_path / "bank").store)
    assert frame.set_aside is not None and said in frame.set_aside


def test_a_mask_that_is_gone_sets_its_frame_aside(source: Path, tmp_path: Path) -> None:
    file = read_source(source)[0]
    (source / "masks" / "A172_C7.tif").unlink()
    frame = prepare(file, Bank.create(tmp_path / "bank").store)
    assert frame.set_aside == "A172_C7.tif: cannot be read: No such file or directory"


def test_an_empty_mask_is_a_frame_without_cells(source: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(source / "masks" / "BV2_D1.png"), np.zeros((60, 80), np.uint8))
    frame = prepare(read_source(source)[1], Bank.create(tmp_path / "bank").store)
    assert (frame.count, frame.centres) == (0, [])


def test_a_mask_without_an_image_is_listed_and_refused_where_all_are(source: Path) -> None:
    (source / "masks" / "BV2-D1.png").touch()
    found = read_source(source)
    assert [(item.what, item.reason) for item in found.unused] == [
        ("masks/BV2-D1.png", "no_mask_image"),
        ("images/BV2_D1.png", "no_label"),
    ]
    (source / "masks" / "A172_C7.tif").unlink()
    with pytest.raises(DataError, match=r"masks/BV2-D1.png is the mask of no image \(1 such\); name both alike"):
        read_source(source)


def test_two_images_of_one_name_are_refused(source: Path) -> None:
    (source / "images" / "BV2_D1.tif").touch()
    with pytest.raises(DataError, match=r"BV2_D1\.png and BV2_D1\.tif have one name; keep one of them"):
        read_source(source)
