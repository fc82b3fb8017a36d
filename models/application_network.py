"""Networks of keras.applications on images of any range, with logits of any classes."""

import fnmatch
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from low_rank_local_connectivity.layers import (
    DepthwiseLowRankLocallyConnected2D,
    LowRankLocallyConnected2D,
)

from .applications import APPLICATIONS, Inputs
from .convolutions import Settings, additive_axes
from .keras_settings import independent_of_keras_json

Bound = float | tuple[float, ...]
# Arguments that a low-rank layer has in common with the convolution in whose place it stands.
KEPT = ("name", "kernel_size", "strides", "padding", "dilation_rate", "activation", "use_bias")
KEPT += ("bias_initializer", "data_format")
# Those in which the kinds of convolutions differ, and the low-rank layer in whose place.
KINDS: dict[type, tuple[Any, tuple[str, ...]]] = {
    layers.Conv2D: (LowRankLocallyConnected2D, ("filters", "groups", "kernel_initializer")),
    layers.DepthwiseConv2D: (
        DepthwiseLowRankLocallyConnected2D,
        ("depth_multiplier", "depthwise_initializer"),
    ),
}


@independent_of_keras_json
def application(
    image_shape: tuple[int, int, int],
    num_classes: int | None,
    name: str,
    value_range: tuple[Bound, Bound] = (0.0, 1.0),
    *,
    relax: Sequence[str] = (),
    settings: Settings | None = None,
    weights: Path | None = None,
) -> keras.Model:
    """Builds a network of keras.applications.

    Its images are first brought to the scale on which it was trained, by a layer that does not
    learn; positions are averaged at its end, before linear logits, which are computed in float32
    under every policy.

    Args:
        image_shape: `(height, width, 3)`.
        num_classes: Number of logits; None for the averages alone.
        name: A key of `APPLICATIONS`.
        value_range: Smallest and largest value of images, for all channels or for each.
        relax: Patterns of names, such as `"conv5_*_2_conv"`: the convolutions that match one are
            low-rank locally connected layers. `"all"` stands for all that are larger than 1x1.
        settings: Settings of these layers.
        weights: File of Keras's weights for the network without its classifier; None for random
            weights. Not together with `relax`.

    Returns:
        Model from images to logits of shape `(batch, num_classes)`, whose layers have Keras's
        names.

    Raises:
        ValueError: If Keras refuses images of this shape, a pattern matches no convolution, or a
            low-rank layer would have a rank above its number of positions.
    """
    known = APPLICATIONS[name].inputs
    images = keras.Input(image_shape, name="image")
    scale, offset = to_scale_of(known, value_range)
    # In float32 under every policy: 8 bits of a pixel fill all that bfloat16 has.
    x = layers.Rescaling(scale, offset, name="to_pixels", dtype="float32")(images)
    make = getattr(keras.applications, name)
    body = make(include_top=False, weights=None, input_tensor=x, pooling="avg")
    if relax:
        body = relaxed(body, relax, settings or Settings())
    if weights is not None:
        body.load_weights(weights)
        if known.reversed:
            reverse_channels(next(one for one in body.layers if isinstance(one, layers.Conv2D)))
    outputs = body.outputs[0]
    if num_classes is not None:
        outputs = layers.Dense(num_classes, dtype="float32", name="logits")(outputs)
    return keras.Model(body.inputs[0], outputs, name=name.lower())


def to_scale_of(
    inputs: Inputs, value_range: tuple[Bound, Bound]
) -> tuple[list[float], list[float]]:
    """Returns factors and offsets per channel with which images become a network's inputs.

    Example:
        >>> to_scale_of(APPLICATIONS["ResNet50V2"].inputs, (0.0, 1.0))
        ([2.0, 2.0, 2.0], [-1.0, -1.0, -1.0])
    """
    low, high = (np.broadcast_to(np.asarray(bound, "float64"), 3) for bound in value_range)
    to_octets = 255 / (high - low)
    scale = np.asarray(inputs.scale) * to_octets
    return scale.tolist(), (np.asarray(inputs.offset) - scale * low).tolist()


def reverse_channels(layer: layers.Conv2D) -> None:
    """Makes a convolution of images in blue, green and red one of red, green and blue."""
    layer.kernel.assign(keras.ops.flip(layer.kernel, axis=2))


def relaxed(model: keras.Model, patterns: Sequence[str], settings: Settings) -> keras.Model:
    """Returns a network of the same layers, some convolutions of which are low-rank layers.

    All of its weights are new.

    Args:
        model: The network.
        patterns: As `relax` of `application`.
        settings: Settings of the low-rank layers.

    Raises:
        ValueError: If a pattern matches no convolution, or a rank is too high.
    """
    found = [one for one in model.layers if type(one) in KINDS]
    chosen = {one.name for pattern in patterns for one in matching(found, pattern)}

    def copy(layer: Any) -> Any:
        if layer.name in chosen:
            return low_rank(layer, settings)
        return type(layer).from_config(layer.get_config())

    clone: Callable[..., Any] = keras.models.clone_model
    return clone(model, clone_function=copy)


def matching(convolutions: Sequence[Any], pattern: str) -> list[Any]:
    """Returns the convolutions whose names match a pattern.

    Raises:
        ValueError: If there is none.
    """
    if pattern == "all":
        return [one for one in convolutions if max(one.kernel_size) > 1]
    found = [one for one in convolutions if fnmatch.fnmatchcase(one.name, pattern)]
    if not found:
        raise ValueError(
            f"`relax` must match convolutions. Received: relax={pattern}, where they are "
            f"{', '.join(one.name for one in convolutions)}."
        )
    return found


def low_rank(
    layer: Any, settings: Settings
) -> LowRankLocallyConnected2D | DepthwiseLowRankLocallyConnected2D:
    """Returns a new low-rank layer to stand in the place of a convolution.

    Raises:
        ValueError: If its rank is above its number of positions.
    """
    rows, columns = layer.output.shape[1:3]
    if settings.spatial_rank > rows * columns:
        raise ValueError(
            f"`spatial_rank` must be at most the number of positions of {layer.name}, "
            f"{rows * columns}. Received: spatial_rank={settings.spatial_rank}."
        )
    config = layer.get_config()
    kind, names = KINDS[type(layer)]
    return kind(
        **{name: config[name] for name in (*KEPT, *names)},
        spatial_rank=settings.spatial_rank,
        normalize_weights=settings.normalize_weights,
        combining_weights_initializer=settings.combining_weights_initializer,
        use_spatial_bias=settings.use_spatial_bias,
        input_dependent=settings.input_dependent,
        additive_axes=additive_axes(settings, 2),
    )
