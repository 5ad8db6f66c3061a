"""What can be chosen among, and the sizes that nobody chooses."""

from typing import Annotated, Final, Literal

from pydantic import Field

Split = Literal["train", "test", "holdout"]
Activation = Literal["relu", "leaky_relu", "tanh", "sigmoid"]
Architecture = Literal["paper", "residual", "density", "efficientnet_lite0", "resnet18", "convnext_tiny"]
EngineName = Literal["auto", "onnxruntime", "openvino", "torch"]
Greys = Literal["auto", "bank", "background"]
Illumination = Literal["none", "shading", "local"]
Kernel = Literal["none", "sharpen", "unsharp", "edge", "laplacian", "emboss", "gaussian"]
Orientation = Literal[0, 90, 180, 270]
Protocol = Literal["grouped", "paper"]
Share = Annotated[float, Field(gt=0, le=1)]
Side = Annotated[int, Field(ge=1, le=100_000)]
"""Of a frame or a part of it, in pixels."""
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Number = Annotated[int, Field(ge=0)]
"""How many there are of something."""

NETWORK_PX: Final = 200
"""Side of the network's input, in pixels (the paper's)."""
MAP_SIDE: Final = 50
"""Fields a side of the map that says where in a tile cells lie: each of 4×4 pixels of the network's input."""


PAPER_SHARES: Final = (1.0, 0.75, 0.5, 0.25)
FIXED_ARCHITECTURES: Final[tuple[Architecture, ...]] = ("efficientnet_lite0", "resnet18", "convnext_tiny")
"""Those that have an activation, width and depth of their own."""
