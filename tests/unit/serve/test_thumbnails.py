"""Small pictures of frames: bounded, and to be seen."""

import base64

import cv2
import numpy as np
import pytest

from serve.thumbnails import SIDE_PX, thumbnail


@pytest.mark.parametrize(
    ("shape", "size"), [((512, 1024), (64, 128)), ((40, 30), (40, 30)), ((3, 9000), (1, 128)), ((1, 1), (1, 1))]
)
def test_a_thumbnail_keeps_the_shape_of_the_frame_and_is_small(shape: tuple[int, int], size: tuple[int, int]) -> None:
    noise_HW = np.random.default_rng(0).integers(0, 4096, shape).astype(np.uint16)
    text = thumbnail(noise_HW)
    assert text.startswith("data:image/jpeg;base64,") and len(text) < 2 * SIDE_PX**2
    seen_HW = cv2.imdecode(np.frombuffer(base64.b64decode(text.partition(",")[2]), np.uint8), cv2.IMREAD_UNCHANGED)
    assert seen_HW.shape == size
