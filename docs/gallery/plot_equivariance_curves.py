"""How equivariant is a trained network?
=====================================

Two networks for handwritten digits, alike but for their padding. How far do the logits of each
change when the image moves? Measure this before you trust a network with objects that are not in
the middle.
"""

# %%
# Digits in the middle of a 20x20 canvas; three convolutions, padded as usual or by a filter's whole
# reach.

import keras
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import low_rank_local_connectivity as lrlc
from low_rank_local_connectivity import equivariance

images, labels = load_digits(return_X_y=True)
images = np.pad(
    images.reshape(-1, 8, 8, 1).astype("float32") / 16, [(0, 0), (6, 6), (6, 6), (0, 0)]
)
train, test = slice(0, 1200), slice(1200, None)


def network(convolution) -> keras.Model:
    """Returns a trained network of three layers of a kind."""
    model = keras.Sequential(
        [
            keras.Input((20, 20, 1)),
            *(convolution() for _ in range(3)),
            keras.layers.GlobalMaxPooling2D(),
            keras.layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.005), loss)
    model.fit(images[train], labels[train], epochs=8, batch_size=64, verbose=0)
    return model


networks = {
    "same padding": network(lambda: keras.layers.Conv2D(16, 3, padding="same", activation="relu")),
    "full convolution": network(lambda: lrlc.FullConv2D(16, 3, activation="relu")),
}

# %%
# The invariance error of the logits as digits move to the left and to the right. At 6 pixels they
# touch the border. (:func:`~low_rank_local_connectivity.plots.equivariance_curves` draws such
# curves into a file.)

moves = range(-6, 7)
shifts = [equivariance.Shift(0, columns) for columns in moves]
errors = {
    name: equivariance.curve(model, images[test][:200], shifts, kind="invariance")
    for name, model in networks.items()
}
figure, axis = plt.subplots(figsize=(6, 3.5), layout="constrained")
for name, curve in errors.items():
    axis.errorbar(curve.values, curve.mean, 2 * curve.standard_error, marker=".", label=name)
axis.set(xlabel="shift, pixels", ylabel="invariance error of the logits")
axis.legend()
plt.show()

# %%
# Full convolutions give the same logits wherever the digit is: their global maximum sees the same
# numbers. Zeros that ``same`` padding adds cut off part of what a filter would answer at the
# border.

for name, curve in errors.items():
    print(f"{name}: largest mean error {curve.mean.max():.1e}")
