"""The shapes that are measured."""

import dataclasses

import keras

from low_rank_local_connectivity import layers

RANKS = (1, 2, 4, 10, 30)


@dataclasses.dataclass(frozen=True)
class Workload:
    """One layer's shapes.

    Args:
        batch: Examples.
        spatial: Input elements per spatial axis.
        channels: Input channels.
        filters: Output channels.
        kernel_size: Taps per axis.
        padding: `"valid"` or `"same"`.
    """

    batch: int
    spatial: tuple[int, ...]
    channels: int
    filters: int
    kernel_size: int
    padding: str

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the inputs, channels last."""
        return (self.batch, *self.spatial, self.channels)

    @property
    def arguments(self) -> dict:
        """Arguments that a convolution of these shapes takes, and every layer here too."""
        return {
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "padding": self.padding,
            "data_format": "channels_last",
        }

    def convolution(self) -> keras.Layer:
        """Makes the ordinary convolution of these shapes: the floor."""
        return getattr(keras.layers, f"Conv{len(self.spatial)}D")(**self.arguments)

    def locally_connected(self, **arguments) -> keras.Layer:
        """Makes the locally connected layer of these shapes."""
        layer_class = getattr(layers, f"LocallyConnected{len(self.spatial)}D")
        return layer_class(**self.arguments, **arguments)

    def low_rank(self, rank: int, **arguments) -> keras.Layer:
        """Makes the low-rank layer of these shapes."""
        layer_class = getattr(layers, f"LowRankLocallyConnected{len(self.spatial)}D")
        return layer_class(**self.arguments, spatial_rank=rank, **arguments)


WORKLOADS = {
    "W1": Workload(128, (28, 28), 64, 64, 3, "valid"),
    "W2": Workload(64, (7, 7), 512, 512, 3, "same"),
    "W3": Workload(128, (16, 16), 16, 16, 3, "valid"),
    "W4": Workload(128, (256,), 32, 32, 9, "valid"),
}
# W5: a single example of each.
WORKLOADS |= {
    f"W5-{name}": dataclasses.replace(workload, batch=1) for name, workload in WORKLOADS.items()
}
