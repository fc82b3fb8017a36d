"""Networks, by name. Importing this loads no framework."""

from .convolutions import CONVOLUTIONS as CONVOLUTIONS
from .convolutions import Settings as Settings
from .convolutions import convolution as convolution
from .network import Network as Network
from .network import residual_network, unpadded_sizes

MODELS = {
    "simple_network": Network(
        "simple_network",
        "simple_network",
        3,
        unpadded_sizes(3),
        options=("filters", "kernel_size", "coord_conv"),
    ),
    "resnet18": residual_network(18),
    "resnet34": residual_network(34),
    "resnet50": residual_network(50),
    "resnet101": residual_network(101),
    "full_resnet18": residual_network(18, full=True),
    "full_resnet34": residual_network(34, full=True),
    "full_resnet50": residual_network(50, full=True),
    "full_resnet101": residual_network(101, full=True),
    "group_network": Network("group_network", "group_network", options=("filters", "kernel_size")),
    "group_resnet18": Network("group_resnet", "group_resnet", arguments={"depth": 18}),
    "group_resnet34": Network("group_resnet", "group_resnet", arguments={"depth": 34}),
}
