"""Fused kernels: filters and patches that stay on the chip where they are multiplied.

A layer takes them by `implementation="fused"`; nothing here is called by its name.

For JAX on TPUs, `geometry` cuts a local convolution into blocks and counts the bytes that these
move, `chips` knows the device, `tpu` has the kernels (Pallas), `multilinear` their derivatives, and
`layouts` stands between them and a layer's tensors. For PyTorch on GPUs, `gpu_shapes` has the
sizes, `gpu` the kernels (Triton), and `operators` registers them and their derivatives. What
imports a framework is imported where a kernel is applied.
"""

__all__: list[str] = []
