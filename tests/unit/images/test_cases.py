"""The small files of the shared cases that were read wrong, value by value; copies of each kind are in test_tiff.py."""

from itertools import pairwise

import numpy as np
import pytest
import tifffile

from cellnet.errors import DataError
from cellnet.images.channels import ChannelError
from cellnet.images.file import ImageFile
from cellnet.images.masks import cells_of_mask
from tests.factories import CASES

pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="no folder of shared cases beside the project")

SIZES = {
    "ome/a_trained_scale_0p5um.ome.tif": 0.5,
    **dict.fromkeys(
        ("ome/b_0p25um_unit_micro_sign.ome.tif", "ome/c_0p25um_unit_nm.ome.tif", "ome/d_0p25um_no_unit.ome.tif"), 0.25
    ),
    **{
        f"px/ij_{unit}.tif": 0.65
        for unit in ("cm", "esc", "inch", "m", "micrometer", "micron", "microns", "mm", "nm", "um", "umeter")
    },
    **dict.fromkeys(f"px/{name}.tif" for name in ("ij_none", "ij_pixel", "ij_trunc", "plain_res_2", "plain_res_3")),
    "px/metaxpress.tif": 0.65,
    "px/ome_comma.tif": 0.65,
    "px/ome_entity_mu.tif": 0.65,
    "px/ome_utf8_mu.tif": 0.65,
    "px/ome_single_quote.tif": 0.00065,
    "px/ome_pixel.ome.tif": None,
    **{f"px/ome_{unit}.ome.tif": 0.65 for unit in ("in", "m", "mm", "nm", "um_default", "um_unit")},
}


@pytest.mark.parametrize("name", SIZES)
def test_the_size_of_a_pixel(name: str) -> None:
    right = SIZES[name]
    assert ImageFile.at(CASES / name).pixel_um == (None if right is None else pytest.approx(right, rel=1e-6))


def test_the_sizes_that_are_refused_or_of_one_image_of_two() -> None:
    with pytest.raises(DataError, match=r"ij_aniso.tif: its pixels are 0.65 µm wide and 1.3 µm high"):
        _ = ImageFile.at(CASES / "px/ij_aniso.tif").pixel_um
    two = ImageFile.at(CASES / "px/ome_two_series.tif")
    assert [page.pixel_um for page in two.pages("all")] == [6.5, 0.65]
    with pytest.raises(DataError, match="holds 2 images; choose"):
        two.decode()
    with pytest.raises(DataError, match="a damaged TIFF, without an image"):
        ImageFile.at(CASES / "px/ij_mu_latin1.tif").decode()  # eight bytes are all of it
    seen = {f"px/{path.name}" for path in (CASES / "px").iterdir()} | {
        f"ome/{path.name}" for path in (CASES / "ome").iterdir()
    }
    assert seen - SIZES.keys() == {"px/ij_aniso.tif", "px/ome_two_series.tif", "px/ij_mu_latin1.tif"}


REFERENCE = "0_reference_16bit.tif"


@pytest.mark.parametrize("name", ["1_rgb16_planar.tif", "2_rgb16_contig.tif", "5_miniswhite_16bit.tif", "9_zstd.tif"])
def test_the_same_frame_of_16_bits_in_other_dresses(name: str) -> None:
    right_HW = ImageFile.at(CASES / "e2e_tiffs" / REFERENCE).decode()
    np.testing.assert_array_equal(ImageFile.at(CASES / "e2e_tiffs" / name).decode(), right_HW)


@pytest.mark.parametrize(
    "name",
    ["6_miniswhite_8bit.tif", "7_rgba_8bit_right_half_transparent.tif", "8_rgba_right_half_transparent.png"],
)
def test_the_same_frame_of_8_bits_in_other_dresses(name: str) -> None:
    right_HW = ImageFile.at(CASES / "e2e_tiffs" / REFERENCE).decode()
    read_HW = ImageFile.at(CASES / "e2e_tiffs" / name).decode()
    assert read_HW.dtype == np.uint8
    levels = [np.unique(right_HW[read_HW == grey]) for grey in np.unique(read_HW)]
    assert all(len(held) <= 256 for held in levels)
    assert all(darker.max() <= brighter.min() for darker, brighter in pairwise(levels)), "as bright, everywhere"


@pytest.mark.parametrize(
    ("name", "place"), [("3_2ch_planar_12bit_BF_first.tif", "1"), ("4_2ch_planar_12bit_BF_second.tif", "2")]
)
def test_two_channels_without_names_are_asked_for(name: str, place: str) -> None:
    image = ImageFile.at(CASES / "e2e_tiffs" / name)
    with pytest.raises(ChannelError, match="2 channels; choose a channel: 1, 2"):
        image.decode()
    chosen_HW = image.pages(None, place)[0].decode()
    right_HW = ImageFile.at(CASES / "e2e_tiffs" / REFERENCE).decode()
    assert chosen_HW.max() < 4096 and np.corrcoef(chosen_HW.ravel(), right_HW.ravel())[0, 1] > 0.999


@pytest.mark.parametrize(
    "name",
    [
        "ij_one_ifd_5z.tif", "ome_3ch_BF_DAPI_GFP.ome.tif", "pyramid_chain.tif", "pyramid_subifd.ome.tif",
        "with_thumbnail.tif",
    ],
)  # fmt: skip
def test_the_plane_that_is_meant_of_a_file_of_several(name: str) -> None:
    right_HW = ImageFile.at(CASES / "stacks/single.png").decode()
    [page] = ImageFile.at(CASES / "stacks" / name).pages(None)
    np.testing.assert_array_equal(page.decode(), right_HW)


def test_a_stack_of_two_channels_without_names_is_asked_for() -> None:
    image = ImageFile.at(CASES / "stacks/ij_5z_2ch.tif")
    with pytest.raises(ChannelError):
        image.pages(None)
    [page] = image.pages(None, "1")
    assert page.page == 5
    np.testing.assert_array_equal(page.decode(), ImageFile.at(CASES / "stacks/single.png").decode())


def test_an_image_and_its_mask_lie_as_they_are_stored() -> None:
    path = CASES / "readers/orient_mask/images/f1.tif"
    image_HW = ImageFile.at(path).decode()
    np.testing.assert_array_equal(image_HW, tifffile.imread(path), "its tag would turn it by 180°")
    cells = cells_of_mask(ImageFile.at(CASES / "readers/orient_mask/masks/f1.png"), size=image_HW.shape)
    np.testing.assert_array_equal(cells.centres_N2, [(30, 30), (30, 70), (30, 110), (30, 150), (30, 190)])
