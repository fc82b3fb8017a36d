"""Fine-tuning of banks by the product of two small matrices, as Keras's convolutions have it."""

from typing import Any

import keras
from keras import initializers, ops

from low_rank_local_connectivity.ops.arguments import number_above, positive_int


class LowRankAdaptation(keras.Layer):
    """A layer whose banks can be frozen, and changed by a product of low rank.

    `banks + lora_alpha / rank * a @ b`, where the banks' last axis, over filters, is `b`'s.

    A subclass stores one variable, or a list of them, as `kernel_bases` when it is built. Reading
    `kernel_bases` afterwards gives what the layer computes with: the variables, or tensors that
    hold the products, too.
    """

    kernel_constraint: Any
    kernel_regularizer: Any
    lora_enabled = False

    @property
    def kernel_bases(self) -> Any:
        """The banks that the layer computes with."""
        if not self.lora_enabled:
            return self._kernel_bases
        adapted = [
            bank + (self.lora_alpha / self.lora_rank) * ops.matmul(a, b)
            for bank, a, b in zip(
                self._bank_variables(), self.lora_kernel_a, self.lora_kernel_b, strict=True
            )
        ]
        return adapted if isinstance(self._kernel_bases, list) else adapted[0]

    @kernel_bases.setter
    def kernel_bases(self, value: Any) -> None:
        self._kernel_bases = value

    def _bank_variables(self) -> list[Any]:
        several = isinstance(self._kernel_bases, list)
        return list(self._kernel_bases) if several else [self._kernel_bases]

    def enable_lora(
        self,
        rank: int,
        lora_alpha: float | None = None,
        a_initializer: Any = "he_uniform",
        b_initializer: Any = "zeros",
    ) -> None:
        """Freezes the banks and trains a product of low rank that is added to them.

        As `enable_lora` of Keras's convolutions: of each variable of banks, `(*taps, channels,
        filters)`, there are `lora_kernel_a`, `(*taps, channels, rank)`, and `lora_kernel_b`,
        `(rank, filters)`, in float32. Combining weights and biases go on training. A saved layer
        holds the sum, so that it loads like any other.

        Args:
            rank: Of the product, at least 1.
            lora_alpha: What the product is multiplied by, times `rank`; `rank` if None.
            a_initializer: Initializer of `a`.
            b_initializer: Initializer of `b`. With zeros the layer starts as it was.

        Raises:
            ValueError: If the layer is not built, has a constraint on the banks, or is adapted
                already.

        Example:
            >>> from low_rank_local_connectivity import LowRankLocallyConnected2D
            >>> layer = LowRankLocallyConnected2D(5, 3, spatial_rank=4)
            >>> layer.build((None, 8, 9, 2))
            >>> layer.enable_lora(2)
            >>> [tuple(weight.shape) for weight in layer.trainable_weights][-2:]
            [(3, 3, 2, 2), (2, 20)]

        Reference:
            Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022.
        """
        rank = positive_int("rank", rank)
        alpha = rank if lora_alpha is None else number_above("lora_alpha", lora_alpha, 0)
        self._require_adaptable()
        banks = self._bank_variables()
        self._tracker.unlock()
        pairs = [
            (
                self._add_lora(f"lora_kernel_a{number}", (*bank.shape[:-1], rank), a_initializer),
                self._add_lora(f"lora_kernel_b{number}", (rank, bank.shape[-1]), b_initializer),
            )
            for number, bank in zip(_numbers(banks), banks, strict=True)
        ]
        self.lora_kernel_a, self.lora_kernel_b = map(list, zip(*pairs, strict=True))
        for bank in banks:
            bank.trainable = False
        self._tracker.lock()
        self.lora_rank, self.lora_alpha = rank, alpha
        self.lora_enabled = True

    def _add_lora(self, name: str, shape: tuple[int, ...], initializer: Any) -> Any:
        return self.add_weight(
            name=name,
            shape=shape,
            initializer=initializers.get(initializer),
            dtype="float32",
            regularizer=self.kernel_regularizer,
            autocast=False,
        )

    def _require_adaptable(self) -> None:
        if not self.built:
            raise ValueError(
                f"enable_lora() needs the banks, so layer {self.name!r} must be built first. "
                "Received: a layer without weights. Call it, or build(input_shape)."
            )
        if self.kernel_constraint is not None:
            raise ValueError(
                "A constraint on the banks does not hold for what LoRA adds to them. Received: "
                f"kernel_constraint={self.kernel_constraint!r} of layer {self.name!r}. Leave out "
                "`kernel_constraint`."
            )
        if self.lora_enabled:
            raise ValueError(
                f"enable_lora() can be called once. Received: layer {self.name!r}, whose LoRA has "
                f"rank {self.lora_rank} already. Save and load the layer to start anew from the "
                "sum."
            )

    def _own_variables(self) -> list[Any]:
        """Returns the variables that the layer has without LoRA, in the order of their files."""
        added = {id(one) for one in (*self.lora_kernel_a, *self.lora_kernel_b)}
        variables = (*self._trainable_variables, *self._non_trainable_variables)
        return [one for one in variables if id(one) not in added]

    def save_own_variables(self, store: Any) -> None:
        """Stores the layer's variables, the banks as the layer computes with them."""
        if not self.lora_enabled:
            super().save_own_variables(store)
            return
        several = isinstance(self._kernel_bases, list)
        adapted = self.kernel_bases if several else [self.kernel_bases]
        sums = dict(zip(map(id, self._bank_variables()), adapted, strict=True))
        for index, variable in enumerate(self._own_variables()):
            store[str(index)] = sums.get(id(variable), variable)

    def load_own_variables(self, store: Any) -> None:
        """Reads the layer's variables; a product that is trained starts at zero again."""
        if not self.lora_enabled:
            super().load_own_variables(store)
            return
        for index, variable in enumerate(self._own_variables()):
            variable.assign(store[str(index)])
        for b in self.lora_kernel_b:
            b.assign(ops.zeros(b.shape))


def _numbers(banks: list[Any]) -> list[str]:
    """Returns what the names of each bank's variables end in."""
    return [""] if len(banks) == 1 else [f"_{index}" for index in range(len(banks))]
