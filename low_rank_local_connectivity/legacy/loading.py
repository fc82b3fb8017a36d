"""The public functions: loading whole models, and weights alone."""

import os
import warnings
from collections.abc import Mapping
from typing import Any

import keras

from low_rank_local_connectivity.conversion import convert
from low_rank_local_connectivity.inspection.graph import require_graph
from low_rank_local_connectivity.legacy.assigning import assign, locally_connected
from low_rank_local_connectivity.legacy.averages import require_same_numbers
from low_rank_local_connectivity.legacy.kernels import same_padding, windows_differ
from low_rank_local_connectivity.legacy.reading import open_saved
from low_rank_local_connectivity.legacy.rebuilding import rebuild
from low_rank_local_connectivity.ops.arguments import mapping
from low_rank_local_connectivity.untrusted.descriptions import require_few_calls
from low_rank_local_connectivity.untrusted.weights import weights_within

# What `custom_objects` are, for errors.
OBJECTS = "names in the file to layers and functions"


def load_model(
    path: str | os.PathLike[str],
    custom_objects: Mapping[str, Any] | None = None,
    max_bytes: int | None = None,
) -> keras.Model:
    """Loads a whole model that Keras 2 saved; neither `tf_keras` nor Keras 2 is needed.

    `LocallyConnected1D` and `LocallyConnected2D` become the layers of this package, with the
    filters of implementation 1, 2 or 3. Where implementations 2 and 3 pad differently for `"same"`
    from a convolution (even kernels, strides above 1), the layer becomes a zero padding and an
    unpadded layer. `hard_sigmoid` becomes `keras2_hard_sigmoid`, since Keras 3's is another
    function, and a `/` in a layer's name becomes `_`, with a warning. No code from the file is
    run: a `Lambda` is refused.

    Args:
        path: File `.h5` / `.hdf5` or `.keras`, or a SavedModel's folder.
        custom_objects: Layers and functions of your own, for Keras 3, by the name they have in the
            file; those registered with `keras.saving.register_keras_serializable` are known.
        max_bytes: Bytes that its arrays, and the weights of the model that it describes, may take
            in memory. If None, 256 MiB and 16 times what the file takes on disk, whichever is
            more; a trained model needs once or twice that. Nothing is allocated before the file
            is held against it.

    Returns:
        Functional or `Sequential` model with the predictions of the saved one. It is not compiled,
        since the optimizers of Keras 3 have other states: `compile` it to train it further, and
        `save` it as `.keras`.

    Raises:
        ValueError: If there is no such file, if it is damaged or of another kind, if it refers to
            other files or declares more than `max_bytes`, or if a layer cannot be loaded; the
            error names the file and the reason.

    Warns:
        UserWarning: If weights are infinite or not numbers, with the name of their layer.

    Example:
        >>> load_model("old_model.h5")
        Traceback (most recent call last):
            ...
        ValueError: There is no file or folder to load at 'old_model.h5'.
    """
    objects = {} if custom_objects is None else mapping("custom_objects", custom_objects, OBJECTS)
    with open_saved(path, max_bytes) as saved:
        config = saved.config()
        require_few_calls(config, saved.path)
        with weights_within(saved.room, saved.path, drawn=False):
            model, described = rebuild(config, objects, saved.path)
        require_same_numbers(model, saved.path)
        assign(model, saved.stored(), saved.path, described)
        return _with_keras_2_windows(model, saved.path)


def load_weights(
    model: keras.Model, path: str | os.PathLike[str], max_bytes: int | None = None
) -> keras.Model:
    """Loads weights that Keras 2 saved into a model rebuilt in Keras 3.

    This is for files of weights alone, and for models that `load_model` cannot rebuild, such as
    those with `Lambda` layers. Layers are matched by name if all names agree, and in order
    otherwise. In HDF5 files, layers of a model within the model are matched by name, or by names
    that differ only in the number that Keras appends, whatever was frozen when the file was
    written.

    Args:
        model: Built functional or `Sequential` model with the layers of the saved one, in their
            order; its locally connected layers are those of this package.
        path: File that `save_weights` wrote: `.h5`, `.weights.h5`, or the prefix of a TensorFlow
            checkpoint; or a whole model's file or folder.
        max_bytes: Bytes that its arrays may take in memory; see `load_model`.

    Returns:
        The model. But if it has a layer with `padding="same"` whose windows Keras 2 placed
        differently (even kernels, strides above 1), a copy in which that layer is a zero padding
        and an unpadded layer; the model itself then does not change, and a warning says so.

    Raises:
        ValueError: If there is no such file, if it is damaged, refers to other files or declares
            more than `max_bytes`, if a layer's weights differ in number or shape, or if similar
            layers within a model cannot be told apart by their names; the error says which. The
            model is then unchanged.

    Warns:
        UserWarning: If weights are infinite or not numbers, with the name of their layer.

    Example:
        >>> model = keras.Sequential([keras.Input((9,)), keras.layers.Dense(2)])
        >>> load_weights(model, "old.weights.h5")
        Traceback (most recent call last):
            ...
        ValueError: There is no file or folder to load at 'old.weights.h5'.
    """
    require_graph("load_weights", model)
    with open_saved(path, max_bytes) as saved:
        differ = [layer.name for layer in locally_connected(model) if windows_differ(layer)]
        if differ:
            model = keras.models.clone_model(model)
        assign(model, saved.stored(), saved.path)
        loaded = _with_keras_2_windows(model, saved.path)
    if differ:
        warnings.warn(
            f"Keras 2 placed the windows of {differ[0]!r} under padding='same' otherwise: use the "
            "model that load_weights() returns, in which a zero padding precedes it.",
            stacklevel=2,
        )
    return loaded


def _with_keras_2_windows(model: Any, path: str) -> Any:
    """Returns the model with zero padding before layers whose windows differ."""
    differ = [layer for layer in locally_connected(model) if windows_differ(layer)]
    replaced: list[Any] = []

    def rule(layer: Any) -> Any:
        if not windows_differ(layer):
            return None
        replaced.append(layer)
        return same_padding(layer)

    model = convert(model, rule, report=None) if differ else model
    if len(replaced) < len(differ):
        name = next(layer.name for layer in differ if layer not in replaced)
        raise ValueError(
            f"The layer {name!r} in {path!r} cannot be loaded: Keras 2 placed its windows under "
            "padding='same' otherwise, and it stands within a wrapper, where no zero padding can "
            "be put before it."
        )
    return model
