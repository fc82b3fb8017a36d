"""The request that TensorFlow Serving runs to warm up a model while loading it.

It reads records of the protocol buffer `tensorflow.serving.PredictionLog` from
`assets.extra/tf_serving_warmup_requests`. Three of its messages are spelled here by hand, in the
wire format of protocol buffers, since the package that has them would add nothing else.
"""

from collections.abc import Mapping

import numpy as np


def _number(value: int) -> bytes:
    """Returns an integer as a varint: seven bits a byte, the lowest first."""
    found = b""
    while value > 127:
        found += bytes([value & 127 | 128])
        value >>= 7
    return found + bytes([value])


def _field(number: int, payload: bytes) -> bytes:
    """Returns a field whose value has a length: a string or a message."""
    return _number(number << 3 | 2) + _number(len(payload)) + payload


def prediction_log(model: str, signature: str, inputs: Mapping[str, np.ndarray]) -> bytes:
    """Returns a serialised `PredictionLog` of one request.

    Args:
        model: Name of the model.
        signature: Name of the signature.
        inputs: Values by name.

    Example:
        >>> prediction_log("m", "s", {}).hex()
        '320a0a080a060a016d1a0173'
    """
    import tensorflow as tf

    request = _field(1, _field(1, model.encode()) + _field(3, signature.encode()))
    for name, value in inputs.items():
        tensor = tf.make_tensor_proto(value).SerializeToString()
        request += _field(2, _field(1, name.encode()) + _field(2, tensor))
    return _field(6, _field(1, request))
