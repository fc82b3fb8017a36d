"""Fused kernels: filters and patches that stay on the chip where they are multiplied.

A layer takes them by `implementation="fused"`; nothing here is called by its name. `geometry` cuts
a local convolution into blocks and counts the bytes that these move, `chips` knows the device,
`tpu` has the kernels (JAX's Pallas), `multilinear` their derivatives, and `layouts` stands between
them and a layer's tensors. The last three import JAX, and are imported where a kernel is applied.
"""

__all__: list[str] = []
