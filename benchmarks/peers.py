"""What others offer for the same shapes, as layers that `benchmarks.steps` can run."""

import math

import keras
from keras import ops

from benchmarks.workloads import Workload


class ReleaseFormula(keras.Layer):
    """The original release's order: convolve with all banks, then mix; gradients by autodiff."""

    def __init__(self, workload: Workload, rank: int) -> None:
        super().__init__()
        self.workload = workload
        self.rank = rank

    def build(self, input_shape) -> None:
        """Creates one layer's weights."""
        self.source = self.workload.low_rank(self.rank)
        self.source.build(input_shape)

    def call(self, inputs):
        """Computes `sum_k weights_k * conv_k(inputs)`."""
        workload, source = self.workload, self.source
        kernel = ops.convert_to_tensor(source.kernel_bases)
        responses = ops.conv(inputs, kernel, padding=workload.padding, data_format="channels_last")
        shape = (*ops.shape(responses)[:-1], self.rank, workload.filters)
        weights = ops.expand_dims(source.combining_weights(), -1)
        outputs = ops.sum(ops.reshape(responses, shape) * weights, axis=-2)
        return outputs + sum(source.output_biases())


class LocalPeer(keras.Layer):
    """A layer with the weights of our locally connected one, which a subclass applies."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        self.workload = workload

    def build(self, input_shape) -> None:
        """Creates one filter per position."""
        self.source = self.workload.locally_connected()
        self.source.build(input_shape)


class JaxLocal(LocalPeer):
    """`jax.lax.conv_general_dilated_local`."""

    def call(self, inputs):
        """Applies them."""
        from jax import lax

        source = self.source
        names = "DHW"[-len(self.workload.spatial) :]
        kernel = ops.reshape(
            ops.convert_to_tensor(source.kernel),
            (*source.output_sizes, -1, self.workload.filters),
        )
        # JAX reads channels, then taps; for a timing the order of the weights is immaterial.
        outputs = lax.conv_general_dilated_local(
            inputs,
            kernel,
            (1,) * len(names),
            self.workload.padding.upper(),
            source.kernel_size,
            dimension_numbers=(f"N{names}C", f"{names}IO", f"N{names}C"),
        )
        return outputs + ops.convert_to_tensor(source.bias)


class TorchUnfold(LocalPeer):
    """Unfold and a batched matrix product, as PyTorch users write it; 2-D, stride 1."""

    def call(self, inputs):
        """Applies them."""
        import torch

        source, workload = self.source, self.workload
        around = workload.kernel_size // 2 if workload.padding == "same" else 0
        images = inputs.permute(0, 3, 1, 2)
        columns = torch.nn.functional.unfold(images, workload.kernel_size, padding=around)
        outputs = columns.permute(2, 0, 1) @ ops.cast(source.kernel, inputs.dtype)
        outputs = outputs.permute(1, 0, 2).reshape(-1, *source.output_sizes, workload.filters)
        return outputs + ops.cast(source.bias, inputs.dtype)


JAX_LOCAL = "jax.lax.conv_general_dilated_local"
TORCH_UNFOLD = "torch unfold + matmul"
TF_KERAS = "tf_keras implementation "


def local_peer_names(workload: Workload, most_entries: int = 2 * 10**7) -> list[str]:
    """Returns the other locally connected layers of these shapes on this backend.

    Args:
        workload: The shapes.
        most_entries: tf_keras's implementation 2 holds a weight for every pair of an input and an
            output, and 3 builds an index in Python; above this many pairs they are left out.

    Returns:
        Names for `local_peer`.
    """
    backend = keras.backend.backend()
    if backend == "jax":
        return [JAX_LOCAL]
    if backend == "torch":
        return [TORCH_UNFOLD] if len(workload.spatial) == 2 else []
    if len(workload.spatial) > 2:
        return []
    # Under padding="same" tf_keras has only the last two.
    inputs = math.prod((*workload.spatial, workload.channels))
    entries = inputs * math.prod(workload.spatial) * workload.filters
    chosen = [1] if workload.padding == "valid" else []
    chosen += [2, 3] if entries <= most_entries else []
    return [f"{TF_KERAS}{implementation}" for implementation in chosen]


def local_peer(workload: Workload, name: str) -> keras.Layer:
    """Makes the layer of this name."""
    if name == JAX_LOCAL:
        return JaxLocal(workload)
    if name == TORCH_UNFOLD:
        return TorchUnfold(workload)
    import tf_keras

    layer_class = getattr(tf_keras.layers, f"LocallyConnected{len(workload.spatial)}D")
    return layer_class(**workload.arguments, implementation=int(name.removeprefix(TF_KERAS)))
