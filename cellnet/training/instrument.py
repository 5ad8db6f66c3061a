"""Tiles as another instrument would have recorded the same cells: turned, of another magnification, focus and light.

Batched operations on the device of the tiles; what is drawn for each tile is given. Places in a tile are x (right) and
y (down) from -1 to 1.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional


def source_of(degrees_B: Tensor, magnification_B: Tensor) -> Tensor:
    """Matrices (B, 2, 2) from a place in the new tile to the place in the old one that is seen there."""
    angle_B = degrees_B.deg2rad()
    cos_B, sin_B = angle_B.cos(), angle_B.sin()
    turning_B22 = torch.stack([torch.stack([cos_B, -sin_B], 1), torch.stack([sin_B, cos_B], 1)], 1)
    return turning_B22 / magnification_B[:, None, None]


def move(images_B1HW: Tensor, source_B22: Tensor) -> Tensor:
    """Each image as `source_of` says, turned anticlockwise; what comes in at the corners is mirrored at the border."""
    grid_BHW2 = _places(source_B22.to(images_B1HW), _middles(0, images_B1HW.shape[-1], images_B1HW))
    return functional.grid_sample(images_B1HW, grid_BHW2, padding_mode="reflection", align_corners=False)


def move_cells(cells_Bhw: Tensor, source_B22: Tensor) -> Tensor:
    """Maps of cells moved as `move` moves the image: each cell to the fields where it is now seen, whole.

    What is mirrored in at the corners shows cells, which a network cannot tell from others: they are counted too.
    """
    side = cells_Bhw.shape[-1]
    reach = float(source_B22.abs().sum(dim=2).max())
    margin = max(0, math.ceil((reach - 1) / 2 * side))
    place_P = torch.arange(-margin, side + margin, device=cells_Bhw.device)
    folded_P = torch.minimum(place_P.remainder(2 * side), (-1 - place_P).remainder(2 * side))
    seen_BPP = cells_Bhw[:, folded_P][:, :, folded_P]
    now_BPP2 = _places(torch.linalg.inv(source_B22).to(cells_Bhw), _middles(margin, side, cells_Bhw))
    field_BPP2 = ((now_BPP2 + 1) * (side / 2)).floor().long()
    inside_BPP = ((field_BPP2 >= 0) & (field_BPP2 < side)).all(dim=3)
    x_BPP, y_BPP = field_BPP2.clamp(0, side - 1).unbind(dim=3)
    moved = torch.zeros_like(cells_Bhw).flatten(1)
    moved.scatter_add_(1, (y_BPP * side + x_BPP).flatten(1), (seen_BPP * inside_BPP).flatten(1))
    return moved.view_as(cells_Bhw)


def blur(images_B1HW: Tensor, sigma_B: Tensor, *, most: float) -> Tensor:
    """Each image blurred by a Gaussian of its standard deviation in pixels, `most` at most; borders are mirrored."""
    radius = math.ceil(3 * most)
    step_T = torch.arange(-radius, radius + 1.0, device=images_B1HW.device)
    weight_BT = torch.exp(-(step_T**2) / (2 * sigma_B.to(step_T).clamp(min=1e-3)[:, None] ** 2))
    weight_BT = weight_BT * (weight_BT > 1e-7)  # numbers that are nearly 0 take a CPU many times as long
    weight_B11T = (weight_BT / weight_BT.sum(dim=1, keepdim=True))[:, None, None]
    images_1BHW = images_B1HW.transpose(0, 1)  # a group of channels each, so that each has a kernel of its own
    padded = functional.pad(images_1BHW, (radius,) * 4, mode="reflect")
    across = functional.conv2d(padded, weight_B11T, groups=len(images_B1HW))
    return functional.conv2d(across, weight_B11T.transpose(2, 3), groups=len(images_B1HW)).transpose(0, 1)


def shade(grey_B1HW: Tensor, weight_B4: Tensor) -> Tensor:
    """Grey values under uneven light: 1 + weights · (1, x, y, x² + y² - 1) times as much of it at each place."""
    middle_W = _middles(0, grey_B1HW.shape[-1], grey_B1HW)
    y_HW, x_HW = torch.meshgrid(middle_W, middle_W, indexing="ij")
    part_4HW = torch.stack([torch.ones_like(x_HW), x_HW, y_HW, x_HW**2 + y_HW**2 - 1])
    light_BHW = 1 + (weight_B4.to(grey_B1HW) @ part_4HW.flatten(1)).view(-1, *x_HW.shape)
    return grey_B1HW * light_BHW[:, None]


def add_noise(grey_B1HW: Tensor, sigma_B: Tensor, generator: torch.Generator) -> Tensor:
    """Grey values with Gaussian noise of each tile's standard deviation.

    Tiles have windows of one strip of noise, since drawing a number for each pixel takes as long as all else.
    """
    pixels = grey_B1HW[0].numel()
    strip = torch.randn(2 * pixels, generator=generator).to(grey_B1HW.device)
    start_B = torch.randint(pixels, (len(grey_B1HW),), generator=generator).to(grey_B1HW.device)
    noise_B1HW = strip.unfold(0, pixels, 1)[start_B].view_as(grey_B1HW)
    return torch.addcmul(grey_B1HW, noise_B1HW, sigma_B.to(grey_B1HW)[:, None, None, None])


def _middles(margin: int, side: int, like: Tensor) -> Tensor:
    """The places of the middles of `side` fields, and of as many more to each side as `margin` says."""
    return (torch.arange(-margin, side + margin, dtype=like.dtype, device=like.device) * 2 + 1) / side - 1


def _places(matrix_B22: Tensor, middle_P: Tensor) -> Tensor:
    """Where matrices take the places of a grid: (B, P, P, 2) of x and y.

    Sums of rows and columns, all x before all y in memory, are made and sampled several times faster.
    """
    x_B2P, y_B2P = (matrix_B22[:, :, axis, None] * middle_P for axis in (0, 1))
    return (y_B2P[:, :, :, None] + x_B2P[:, :, None]).permute(0, 2, 3, 1)
