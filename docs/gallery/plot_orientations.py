"""Images in any orientation
=========================

A network with filters in four orientations gives the same answer for an image and for its quarter
turns, without having seen a turned image in training. Use it where a picture has no upright: cells,
satellites, parts on a belt.
"""

# %%
# Scikit-learn's digits, upright in training. Two networks of about as many parameters.

import keras
import numpy as np
from sklearn.datasets import load_digits

import low_rank_local_connectivity as lrlc

images, labels = load_digits(return_X_y=True)
images = np.pad(
    images.reshape(-1, 8, 8, 1).astype("float32") / 16, [(0, 0), (2, 2), (2, 2), (0, 0)]
)
train, test = slice(0, 1200), slice(1200, None)

convolutional = keras.Sequential(
    [
        keras.Input((12, 12, 1)),
        keras.layers.Conv2D(16, 3, activation="relu"),
        keras.layers.Conv2D(16, 3, activation="relu"),
        keras.layers.Conv2D(16, 3, activation="relu"),
        keras.layers.GlobalMaxPooling2D(),
        keras.layers.Dense(10),
    ]
)
turned = keras.Sequential(
    [
        keras.Input((12, 12, 1)),
        lrlc.GroupLiftConv2D(8, 3, activation="relu"),
        lrlc.GroupConv2D(8, 3, activation="relu"),
        lrlc.GroupConv2D(8, 3, activation="relu"),
        lrlc.GroupPooling2D("max"),
        keras.layers.GlobalMaxPooling2D(),
        keras.layers.Dense(10),
    ]
)
networks = {"convolution": convolutional, "filters in 4 orientations": turned}

# %%
# Both learn; then the test images are turned.

for name, model in networks.items():
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.005), loss)
    model.fit(images[train], labels[train], epochs=12, batch_size=64, verbose=0)
    print(f"{name}, {model.count_params():,} parameters")
    upright = model.predict(images[test], verbose=0)
    for quarters in range(4):
        turns = np.rot90(images[test], quarters, axes=(1, 2))
        logits = model.predict(turns, verbose=0)
        right = np.mean(logits.argmax(-1) == labels[test])
        change = np.abs(logits - upright).max() / np.abs(upright).max()
        print(f"  turned by {90 * quarters:3}: {100 * right:.1f} %, logits change by {change:.0e}")

# %%
# What is gained when images are turned is lost when they are upright: a network that cannot tell
# how an image is turned cannot tell a 6 from a 9 either.
#
# For serving, :func:`~low_rank_local_connectivity.conversion.to_plain_convolutions` turns the
# filters once and for all.

plain = lrlc.conversion.to_plain_convolutions(turned)
difference = np.abs(
    plain.predict(images[test], verbose=0) - turned.predict(images[test], verbose=0)
)
print(f"{[type(layer).__name__ for layer in plain.layers]}, off by {difference.max():.0e}")
