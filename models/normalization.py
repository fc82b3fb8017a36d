"""The batch normalisation of all networks here."""

from keras import layers


def batch_normalization(name: str, synchronized: bool = False) -> layers.BatchNormalization:
    """Returns the layer: momentum 0.9, epsilon 1e-5, as in the paper's networks.

    Args:
        name: Name of the layer.
        synchronized: Whether the replicas of a TensorFlow strategy share their statistics, as if
            each saw the whole batch; on JAX they always do.

    Example:
        >>> batch_normalization("norm").momentum
        0.9
    """
    return layers.BatchNormalization(
        momentum=0.9, epsilon=1e-5, synchronized=synchronized, name=name
    )
