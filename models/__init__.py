"""Networks, by name. Importing this loads no framework."""

from .convolutions import CONVOLUTIONS as CONVOLUTIONS
from .convolutions import Settings as Settings
from .convolutions import convolution as convolution
from .network import Network as Network
from .network import unpadded_sizes

MODELS = {
    "simple_network": Network("simple_network", "simple_network", 3, unpadded_sizes(3)),
}
