"""Penalties that Keras does not have."""

from typing import Any, Literal

import keras

from low_rank_local_connectivity.ops.arguments import number_above, one_of
from low_rank_local_connectivity.ops.combining_weights import total_variation


@keras.saving.register_keras_serializable(package="low_rank_local_connectivity")
class SpatialSmoothness(keras.Regularizer):
    """Penalises how much weights differ between neighbouring positions: their total variation.

    `strength * sum_axis mean |w[i + 1] - w[i]| ** p`

    over the spatial axes, each difference averaged over all positions, banks and examples, so
    that a strength means the same at every image size.

    Given as `combining_weights_regularizer` of a low-rank locally connected layer it applies to
    the *normalised* combining weights, whatever logits or network they come from: the layer adds
    the penalty to its losses each time it is called, and, if the weights depend on the input,
    takes the mean over the batch. With `normalize_weights=None` and `additive_axes=()` that is
    the penalty of the reference. As the regularizer of any other weight, a spatial bias for
    one, it applies to the weight itself, all axes but the last being spatial.

    Args:
        strength: Factor of the penalty, at least 0.
        p: 1 for absolute differences, which favours few jumps between constant regions, as in
            the reference; 2 for squared ones, which favours gentle slopes.

    Raises:
        ValueError: If an argument is out of range, or the weight has no spatial axis.

    Example:
        >>> from keras import ops
        >>> smoothness = SpatialSmoothness(0.5)
        >>> float(smoothness(ops.array([[[0.0], [1.0]], [[2.0], [3.0]]])))
        1.5

    Reference:
        Wang, Walters and Yu, "Approximately Equivariant Networks for Imperfectly Symmetric
        Dynamics", ICML 2022, https://arxiv.org/abs/2201.11969.
    """

    def __init__(self, strength: float, p: Literal[1, 2] = 1) -> None:
        self.strength = number_above("strength", strength, 0, or_equal=True)
        self.p: Literal[1, 2] = one_of("p", p, (1, 2))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"strength": self.strength, "p": self.p}

    def __call__(self, weights, batched: bool = False):
        """Returns the penalty.

        Args:
            weights: Tensor of shape `(*sizes, K)`.
            batched: Whether an axis of examples stands before the spatial ones.
        """
        axes = range(int(batched), len(weights.shape) - 1)
        if not axes:
            raise ValueError(
                "SpatialSmoothness needs weights with spatial axes before their last one. "
                f"Received: weights of shape {tuple(weights.shape)}."
            )
        return self.strength * total_variation(weights, axes, self.p)
