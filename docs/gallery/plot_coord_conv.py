"""Coordinates as an input: CoordConv
==================================

Two numbers name a pixel, and a network has to draw it. A convolution, which is the same everywhere,
cannot tell where it is drawing; one that sees coordinates as channels can. Use ``CoordConv2D``
where position is an input or an output.
"""

# %%
# All pixels of a 16x16 canvas; every fifth is kept for testing.

import keras
import matplotlib.pyplot as plt
import numpy as np

import low_rank_local_connectivity as lrlc

side = 16
places = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij"), -1).reshape(-1, 2)
targets = side * places[:, 0] + places[:, 1]
inputs = (2 * places / (side - 1) - 1).astype("float32")
held_out = np.equal(np.arange(len(places)) % 5, 2)


def network(first) -> keras.Model:
    """Returns a network that spreads two numbers over the canvas and scores every pixel."""
    model = keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Reshape((1, 1, 2)),
            keras.layers.UpSampling2D(side),
            first,
            keras.layers.Conv2D(32, 1, activation="relu"),
            keras.layers.Conv2D(1, 1),
            keras.layers.Flatten(),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    return model


networks = {
    "convolution": network(keras.layers.Conv2D(32, 1, activation="relu")),
    "CoordConv": network(lrlc.CoordConv2D(32, 1, activation="relu")),
}
for name, model in networks.items():
    shown = np.repeat(np.flatnonzero(~held_out), 10)
    model.fit(inputs[shown], targets[shown], epochs=20, batch_size=64, verbose=0)
    seen = model.evaluate(inputs[~held_out], targets[~held_out], verbose=0)[1]
    unseen = model.evaluate(inputs[held_out], targets[held_out], verbose=0)[1]
    print(
        f"{name}: {100 * seen:.1f} % of the pixels it was shown, {100 * unseen:.1f} % of the others"
    )

# %%
# What the two answer for one pixel that neither has seen.

pixel = int(np.flatnonzero(held_out)[20])
figure, panels = plt.subplots(1, 2, figsize=(6, 3), layout="constrained")
for panel, (name, model) in zip(panels, networks.items(), strict=True):
    scores = model.predict(inputs[pixel : pixel + 1], verbose=0).reshape(side, side)
    panel.imshow(np.exp(scores - scores.max()))
    panel.plot(*places[pixel][::-1], "r+", markersize=12)
    panel.set_title(name)
    panel.axis("off")
plt.show()
