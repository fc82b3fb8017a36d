"""Networks, by name. Importing this loads no framework."""

from . import builders
from .applications import APPLICATIONS
from .convolutions import BY_DIMENSIONS, CONVOLUTIONS, Settings, convolution, in_dimensions
from .network import (
    Network,
    application,
    bag_network,
    residual_network,
    scale_network,
    transformed,
    unpadded_sizes,
)
from .scales import Scales

__all__ = [
    "APPLICATIONS",
    "BY_DIMENSIONS",
    "CONVOLUTIONS",
    "MODELS",
    "NETWORKS",
    "SIMPLE",
    "Network",
    "Scales",
    "Settings",
    "application",
    "bag_network",
    "convolution",
    "in_dimensions",
    "residual_network",
    "scale_network",
    "transformed",
    "unpadded_sizes",
]

SIMPLE = Network(
    "simple_network",
    builders.simple_network,
    3,
    unpadded_sizes(3),
    options=("filters", "kernel_size", "coord_conv"),
    dimensions=(1, 2, 3),
)
MODELS = {
    "simple_network": SIMPLE,
    "transformer_network": transformed(SIMPLE),
    "resnet18": residual_network(18),
    "resnet34": residual_network(34),
    "resnet50": residual_network(50),
    "resnet101": residual_network(101),
    "transformer_resnet18": transformed(residual_network(18)),
    "full_resnet18": residual_network(18, full=True),
    "full_resnet34": residual_network(34, full=True),
    "full_resnet50": residual_network(50, full=True),
    "full_resnet101": residual_network(101, full=True),
    "bagnet9": bag_network(9),
    "bagnet17": bag_network(17),
    "bagnet33": bag_network(33),
    "scale_network": scale_network(
        builders.simple_scale_network, options=("filters", "kernel_size")
    ),
    "scale_pyramid_network": scale_network(
        builders.simple_scale_network,
        options=("filters", "kernel_size"),
        scales=Scales(3, method="bilinear", pyramid=True),
    ),
    "deformable_scale_network": scale_network(
        builders.simple_scale_network,
        options=("filters", "kernel_size"),
        convolution="deformable_scale_conv2d",
    ),
    "deformable_scale_resnet18": scale_network(
        builders.scale_resnet, depth=18, convolution="deformable_scale_conv2d"
    ),
    "scale_resnet18": scale_network(builders.scale_resnet, depth=18),
    "scale_resnet34": scale_network(builders.scale_resnet, depth=34),
    "group_network": Network(
        "group_network", builders.group_network, options=("filters", "kernel_size"), turned=True
    ),
    "group_resnet18": Network(
        "group_resnet", builders.group_resnet, arguments={"depth": 18}, turned=True
    ),
    "group_resnet34": Network(
        "group_resnet", builders.group_resnet, arguments={"depth": 34}, turned=True
    ),
}
# With those of keras.applications, all networks that can be trained.
NETWORKS = {**MODELS, **{name: application(name) for name in APPLICATIONS}}
