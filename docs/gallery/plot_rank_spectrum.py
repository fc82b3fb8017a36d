"""How much spatial rank does a layer use?
=======================================

A trained locally connected layer has a filter for every position. The singular values of all of
them, side by side, say how many shared banks it would take to mix them: read this before you
replace one by a low-rank layer, or to choose ``spatial_rank``.
"""

# %%
# A locally connected network for scikit-learn's 8x8 digits. Half of the images are kept for
# testing.

import keras
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import low_rank_local_connectivity as lrlc

images, labels = load_digits(return_X_y=True)
images = images.reshape(-1, 8, 8, 1).astype("float32") / 16
train, test = slice(0, 900), slice(900, None)

model = keras.Sequential(
    [
        keras.Input((8, 8, 1)),
        keras.layers.Conv2D(16, 3, activation="relu", padding="same"),
        lrlc.LocallyConnected2D(16, 3, activation="relu", name="local"),
        keras.layers.Flatten(),
        keras.layers.Dense(10),
    ]
)
model.compile(
    keras.optimizers.Adam(0.003),
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
model.fit(images[train], labels[train], epochs=20, batch_size=64, verbose=0)
accuracy = model.evaluate(images[test], labels[test], verbose=0)[1]
print(f"test accuracy {accuracy:.3f}")

# %%
# :func:`~low_rank_local_connectivity.conversion.spatial_spectrum` returns its singular values, as
# many as there are positions. Here they are all of a size: filters start at random, independently
# at every position, and what they learn is little beside that. A layer with such a spectrum does
# not have a low rank. Whether it needs a high one is another question.

local = model.get_layer("local")
spectrum = lrlc.conversion.spatial_spectrum(local)

# %%
# How much accuracy is left at each rank?
# :func:`~low_rank_local_connectivity.conversion.to_low_rank` gives the nearest layer of that rank,
# without training.


def at_rank(rank: int) -> tuple[float, int]:
    """Returns the accuracy with the layer at a rank, and the layer's parameters."""
    factorised = lrlc.conversion.to_low_rank(local, spatial_rank=rank)
    smaller = lrlc.conversion.convert(
        model, lambda layer: factorised if layer is local else None, report=None
    )
    answers = smaller.predict(images[test], verbose=0).argmax(-1)
    return float(np.mean(answers == labels[test])), factorised.count_params()


ranks = [1, 2, 4, 8, 16, 36]
found = [at_rank(rank) for rank in ranks]
for rank, (right, parameters) in zip(ranks, found, strict=True):
    print(f"rank {rank:2}: accuracy {right:.3f}, {parameters:6,} parameters")
print(f"as trained: {accuracy:.3f}, {local.count_params():6,} parameters")

# %%
# It does not: cut off without training, each bank costs accuracy, but trained for ten epochs more
# four of them have nearly all of it back, with an eighth of the parameters.

factorised = lrlc.conversion.to_low_rank(local, spatial_rank=4)
smaller = lrlc.conversion.convert(
    model, lambda layer: factorised if layer is local else None, report=None
)
smaller.compile(
    keras.optimizers.Adam(0.001),
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
smaller.fit(images[train], labels[train], epochs=10, batch_size=64, verbose=0)
tuned = smaller.evaluate(images[test], labels[test], verbose=0)[1]
print(f"rank 4, trained for 10 epochs more: {tuned:.3f}")

figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
left.semilogy(1 + np.arange(len(spectrum)), spectrum / spectrum[0], ".-")
left.set(xlabel="number of the singular value", ylabel="share of the largest")
right.plot(ranks, [100 * one for one, _ in found], "o-", label="truncated")
right.plot([4], [100 * tuned], "*", markersize=12, label="truncated and trained on")
right.axhline(100 * accuracy, color="gray", linestyle=":", label="as trained")
right.set(xlabel="rank K", ylabel="test accuracy, %", xscale="log")
right.set_xticks(ranks, ranks)
right.minorticks_off()
right.legend()
plt.show()
