"""Keras's dense layer with all digits of float64."""

import keras

from low_rank_local_connectivity.ops.precision import matmul


class Dense(keras.layers.Dense):
    """Keras's `Dense`, in float64 too, which Keras multiplies in float32 on PyTorch.

    It has the name of Keras's, after which saved files call the items of a list of layers.
    """

    def call(self, inputs, training=None):
        """Multiplies by the kernel, adds the bias and applies the activation."""
        if self.compute_dtype != "float64":
            return super().call(inputs, training=training)
        outputs = matmul(inputs, self.kernel)
        if self.bias is not None:
            outputs = outputs + self.bias
        return self.activation(outputs)
