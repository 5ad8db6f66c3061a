"""Instance masks: images in which every cell has a number of its own."""

import cv2
import numpy as np
from numpy.typing import NDArray

from cellnet.errors import DataError
from cellnet.images.file import ImageFile


def cells_of_mask(mask: ImageFile, *, size: tuple[int, int]) -> NDArray[np.float64]:
    """The centres (N, 2) of the cells of an instance mask, columns x and y: the mean place of each number but 0.

    Raises DataError, naming the mask, for what is unreadable, of several channels, not of the frame's size (H, W), or
    a mask of cells that are not numbered.
    """
    mask_HW = mask.decode_values()
    if mask_HW.shape != size:
        seen = "×".join(map(str, mask_HW.shape))
        raise DataError(f"{mask.name}: the mask is {seen}, not one channel of {size[0]}×{size[1]} like its frame")
    y_N, x_N = np.nonzero(mask_HW)
    number_K, cell_N, pixels_K = np.unique(mask_HW[y_N, x_N], return_inverse=True, return_counts=True)
    if len(number_K) == 1 and cv2.connectedComponents((mask_HW > 0).astype(np.uint8))[0] > 2:
        raise DataError(f"{mask.name}: every cell has the number {number_K[0]}; give each cell a number of its own")
    return np.stack([np.bincount(cell_N, axis_N) for axis_N in (x_N, y_N)], axis=1) / pixels_K[:, None]
