"""What users call: whole models, and weights alone."""

import os
from collections.abc import Mapping
from typing import Any

import keras

from low_rank_local_connectivity.conversion import convert
from low_rank_local_connectivity.layers.locally_connected import LocallyConnected
from low_rank_local_connectivity.legacy.assigning import assign
from low_rank_local_connectivity.legacy.kernels import same_padding, windows_differ
from low_rank_local_connectivity.legacy.reading import open_saved
from low_rank_local_connectivity.legacy.rebuilding import rebuild


def load_model(
    path: str | os.PathLike[str], custom_objects: Mapping[str, Any] | None = None
) -> keras.Model:
    """Loads a whole model that Keras 2 saved; neither `tf_keras` nor Keras 2 is needed.

    `LocallyConnected1D` and `LocallyConnected2D` become the layers of this package, with the
    filters of implementation 1, 2 or 3. Where implementations 2 and 3 pad for `"same"` otherwise
    than a convolution does (even kernels, strides above 1), the layer becomes a zero padding and a
    layer without. No code from the file is run: a `Lambda` is refused.

    Args:
        path: File `.h5` / `.hdf5` or `.keras`, or a SavedModel's folder. The folder needs
            TensorFlow installed, on any backend.
        custom_objects: Layers and functions of your own, for Keras 3, by the name they have in the
            file; those registered with `keras.saving.register_keras_serializable` are known.

    Returns:
        Functional or `Sequential` model with the predictions of the saved one. It is not compiled,
        since Keras 3's optimizers hold other states: `compile` it to train further, and
        `save` it as `.keras`.

    Raises:
        ValueError: If there is no such file, if it is damaged or of another kind, or if a layer
            cannot be loaded; the sentence names it and the reason.

    Example:
        >>> load_model("old_model.h5")
        Traceback (most recent call last):
            ...
        ValueError: There is no file or folder to load at 'old_model.h5'.
    """
    with open_saved(path) as saved:
        model, order = rebuild(saved.config(), custom_objects or {}, saved.path)
        assign(model, saved.stored(), saved.path, order)
    if not any(windows_differ(layer) for layer in _layers(model)):
        return model
    return convert(model, lambda layer: same_padding(layer) if windows_differ(layer) else None)


def load_weights(model: keras.Model, path: str | os.PathLike[str]) -> None:
    """Loads weights that Keras 2 saved into a model rebuilt in Keras 3.

    For what `load_model` cannot rebuild: models with `Lambda` layers or TensorFlow functions, and
    files that hold weights alone. Layers are matched by name if all names agree and in their order
    otherwise.

    Args:
        model: Built functional or `Sequential` model with the layers of the saved one, in their
            order; its locally connected layers are those of this package.
        path: What `save_weights` wrote: `.h5`, `.weights.h5`, or a TensorFlow checkpoint
            by its prefix; or a whole model's file or folder.

    Raises:
        ValueError: If there is no such file, if it is damaged, or if a layer's weights differ in
            number or shape; the sentence names it. The model is then left as it was.

    Example:
        >>> model = keras.Sequential([keras.Input((9,)), keras.layers.Dense(2)])
        >>> load_weights(model, "old.weights.h5")
        Traceback (most recent call last):
            ...
        ValueError: There is no file or folder to load at 'old.weights.h5'.
    """
    with open_saved(path) as saved:
        if not model.built:
            raise ValueError(
                f"load_weights() needs a built model. Received: {model.name!r}, which is not. "
                "Call it on inputs first, or its build(input_shape)."
            )
        for layer in _layers(model):
            if windows_differ(layer):
                raise ValueError(
                    f"Keras 2 placed the windows of the layer {layer.name!r} with padding='same' "
                    f"otherwise. Put keras.layers.ZeroPadding{len(layer.kernel_size)}D("
                    f"{same_padding(layer, amounts_only=True)}) before it and give it "
                    "padding='valid'."
                )
        assign(model, saved.stored(), saved.path)


def _layers(model: Any) -> list[LocallyConnected]:
    """Returns the locally connected layers of a model and of the models within it."""
    found = []
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            found += _layers(layer)
        elif isinstance(layer, LocallyConnected):
            found.append(layer)
    return found
