"""A pretrained convolution, relaxed and fine-tuned
================================================

You have a trained convolutional network, and suspect that position matters in your images. Replace
one of its convolutions by a low-rank layer that computes the same, and train on: nothing is lost at
the start, and the layer may depart from the convolution where that helps.
"""

# %%
# The network is trained on scikit-learn's digits, in the middle of a 12x12 canvas.

import keras
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import low_rank_local_connectivity as lrlc

images, labels = load_digits(return_X_y=True)
images = np.pad(
    images.reshape(-1, 8, 8, 1).astype("float32") / 16, [(0, 0), (2, 2), (2, 2), (0, 0)]
)
train, test = slice(0, 1000), slice(1000, None)


def compiled(model: keras.Model, rate: float) -> keras.Model:
    """Returns a model that is ready to be trained."""
    model.compile(
        keras.optimizers.Adam(rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def accuracy(model: keras.Model) -> float:
    """Returns the share of test images that a model names rightly."""
    return model.evaluate(images[test], labels[test], verbose=0)[1]


pretrained = keras.Sequential(
    [
        keras.Input((12, 12, 1)),
        keras.layers.Conv2D(12, 3, activation="relu", name="first"),
        keras.layers.Conv2D(12, 3, activation="relu", name="second"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(10, name="logits"),
    ]
)
compiled(pretrained, 0.01).fit(images[train], labels[train], epochs=25, batch_size=64, verbose=0)
print(f"convolution: test accuracy {accuracy(pretrained):.3f}")

# %%
# :func:`~low_rank_local_connectivity.conversion.from_convolution` makes the layer, and
# :func:`~low_rank_local_connectivity.conversion.convert` puts it in the place of the second
# convolution.


def relax(layer: keras.Layer) -> keras.Layer | None:
    """Returns a low-rank layer for the second convolution, and keeps all others."""
    if layer.name != "second":
        return None
    return lrlc.conversion.from_convolution(layer, spatial_rank=4)


relaxed = compiled(lrlc.conversion.convert(pretrained, relax, report=None), 0.003)
difference = np.abs(
    relaxed.predict(images[test], verbose=0) - pretrained.predict(images[test], verbose=0)
)
print(f"relaxed: test accuracy {accuracy(relaxed):.3f}, logits off by {difference.max():.1e}")

# %%
# Both are trained for as many epochs more, so that what the relaxed network gains is not due to
# longer training alone.

compiled(pretrained, 0.003)
names = {"convolution": pretrained, "relaxed": relaxed}
losses = {
    name: model.fit(images[train], labels[train], epochs=20, batch_size=64, verbose=0).history[
        "loss"
    ]
    for name, model in names.items()
}
print(
    f"convolution, trained on: {accuracy(pretrained):.3f}, {pretrained.count_params():,} parameters"
)
print(f"relaxed, trained on:     {accuracy(relaxed):.3f}, {relaxed.count_params():,} parameters")

figure, axis = plt.subplots(figsize=(6, 3), layout="constrained")
for name, values in losses.items():
    axis.plot(range(1, 1 + len(values)), values, label=name)
axis.set(xlabel="further epoch", ylabel="training loss")
axis.legend()
plt.show()

# %%
# The command does the same from files: train convolutions, then start a run from their weights with
# ``--layer_types=conv2d,conv2d,low_rank_locally_connected2d --weights=runs/convolutions``.
