"""Initial values of kernels that Keras does not have."""

import math
from typing import Any

import keras
import numpy as np
from keras import initializers, ops

from low_rank_local_connectivity.ops.arguments import (
    integer,
    number_above,
    received,
)


@keras.saving.register_keras_serializable(package="low_rank_local_connectivity")
class IdentityConv(initializers.Initializer):
    """A convolution kernel that begins by passing its input on.

    From `c_in` channels in `C` groups to `c_out` channels in as many groups, the central tap is

    `kernel[centre, a, b] = C / c_out` where `floor(a C / c_in) == floor(b C / c_out)`

    and every other value is drawn from `N(0, (stddev * C / c_out) ** 2)`. Without noise, equal
    widths and `C = c_in` that is the identity. Along a chain of widths, each channel carries
    `C / c_out` of its group's signal, and a last layer of width `C` gives the signal back.

    The centre of a kernel of `k` taps is tap `(k - 1) // 2`, which under `padding="same"` lies
    over the position itself, for even `k` too unless the kernel is dilated.

    Args:
        stddev: Standard deviation of the noise as a fraction of the central values, at least 0;
            small beside 1, or the identity drowns. 0.01 is the authors' own choice.
        groups: Number of groups, `C`, which must divide both widths; None for their greatest
            common divisor.
        seed: Integer or None, as in Keras's initializers.

    Raises:
        ValueError: If an argument is out of range, or `groups` does not divide the widths.

    Example:
        >>> kernel = ops.convert_to_numpy(IdentityConv(stddev=0.0)((3, 3, 2, 4), "float32"))
        >>> abs(kernel[1, 1]).tolist()
        [[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]]

    Reference:
        Yu and Koltun, "Multi-Scale Context Aggregation by Dilated Convolutions", ICLR 2016,
        section 3, https://arxiv.org/abs/1511.07122.
    """

    def __init__(
        self, stddev: float = 0.01, groups: int | None = None, seed: int | None = None
    ) -> None:
        self.stddev = number_above("stddev", stddev, 0, or_equal=True)
        if groups is not None and (integer(groups) or 0) < 1:
            raise ValueError(
                "`groups` must be an integer of at least 1, or None for the greatest common "
                f"divisor of the widths. Received: {received('groups', groups)}."
            )
        self.groups = integer(groups)
        seed = seed if integer(seed) is None else integer(seed)
        if integer(seed) is None and not isinstance(seed, (keras.random.SeedGenerator, type(None))):
            raise ValueError(
                f"`seed` must be an integer or None. Received: {received('seed', seed)}."
            )
        self.seed = seed
        self._noise = initializers.RandomNormal(stddev=1.0, seed=seed)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"stddev": self.stddev, "groups": self.groups, "seed": self.seed}

    def __call__(self, shape: Any, dtype: Any = None):
        """Returns a kernel of shape `(*kernel_size, c_in, c_out)`."""
        *taps, width_in, width_out = shape
        groups = math.gcd(width_in, width_out) if self.groups is None else self.groups
        if width_in % groups or width_out % groups:
            raise ValueError(
                "The groups of IdentityConv must divide the numbers of input channels and of "
                f"filters. Received: groups={groups} for a kernel of shape {tuple(shape)}. Use "
                "groups=None for their greatest common divisor."
            )
        members = [np.arange(width) * groups // width for width in (width_in, width_out)]
        centre = tuple((size - 1) // 2 for size in taps)
        passes = np.zeros(shape, bool)
        passes[centre] = members[0][:, None] == members[1]
        noise = self._noise(tuple(shape), dtype=dtype)
        scale = groups / width_out
        return ops.where(passes, ops.cast(scale, noise.dtype), noise * (scale * self.stddev))
