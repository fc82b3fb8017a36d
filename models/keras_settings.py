"""Networks that do not depend on a user's `keras.json`."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec

import keras

from low_rank_local_connectivity.keras_settings import DEFAULTS, changed_settings

Arguments = ParamSpec("Arguments")


def independent_of_keras_json(
    build: Callable[Arguments, keras.Model],
) -> Callable[Arguments, keras.Model]:
    """Returns a function that builds a network under Keras's own defaults.

    Images are channels-last and numbers float32, unless a dtype policy says otherwise, whatever
    `image_data_format` and `floatx` are. Both settings are restored afterwards.

    Args:
        build: Function that builds a network.

    Example:
        >>> @independent_of_keras_json
        ... def network():
        ...     return keras.Sequential([keras.Input((8, 7, 3)), keras.layers.Conv2D(4, 3)])
        >>> keras.config.set_image_data_format("channels_first")
        >>> network().output_shape, keras.config.image_data_format()
        ((None, 6, 5, 4), 'channels_first')
        >>> keras.config.set_image_data_format("channels_last")
    """

    @functools.wraps(build)
    def built(*args: Arguments.args, **kwargs: Arguments.kwargs) -> keras.Model:
        policy: Any = keras.config.dtype_policy()
        # A policy of floatx's name is the one that Keras made of it, and nobody's choice.
        kept = "float32" if policy.name == keras.config.floatx() else policy
        with changed_settings(**DEFAULTS, dtype_policy=kept):
            return build(*args, **kwargs)

    return built
