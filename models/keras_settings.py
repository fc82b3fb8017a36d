"""Networks that do not depend on a user's `keras.json`."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import ParamSpec

import keras

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
        with _own_defaults():
            return build(*args, **kwargs)

    return built


@contextlib.contextmanager
def _own_defaults() -> Iterator[None]:
    data_format, floatx = keras.config.image_data_format(), keras.config.floatx()
    policy = keras.config.dtype_policy()
    keras.config.set_image_data_format("channels_last")
    keras.config.set_floatx("float32")
    # A policy of floatx's name is the one that Keras made of it, and nobody's choice.
    if policy.name == floatx != "float32":
        keras.config.set_dtype_policy("float32")
    try:
        yield
    finally:
        keras.config.set_image_data_format(data_format)
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)
