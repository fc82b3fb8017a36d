"""Keras's global settings, which a user's `keras.json` may have changed: other ones for a while."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import keras

# What Keras's settings are where no `keras.json` says otherwise.
DEFAULTS = {"image_data_format": "channels_last", "floatx": "float32", "epsilon": 1e-7}


def change_settings(settings: Mapping[str, Any]) -> None:
    """Changes settings of `keras.config`.

    Args:
        settings: Values by name: `image_data_format`, `floatx`, `epsilon` or `dtype_policy`.
    """
    for name, value in settings.items():
        getattr(keras.config, f"set_{name}")(value)


@contextlib.contextmanager
def changed_settings(**settings: Any) -> Iterator[None]:
    """Changes settings of `keras.config` for what is within; they are as before afterwards.

    Args:
        **settings: As in `change_settings`.

    Example:
        >>> with changed_settings(image_data_format="channels_first"):
        ...     print(keras.layers.Conv2D(4, 3).data_format)
        channels_first
        >>> keras.config.image_data_format()
        'channels_last'
    """
    before = {name: getattr(keras.config, name)() for name in settings}
    change_settings(settings)
    try:
        yield
    finally:
        change_settings(before)
