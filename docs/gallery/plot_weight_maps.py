"""Where does a model use which filters?
=====================================

The combining weights of a low-rank layer are maps: one for each bank, over the positions of the
image. Draw them when you want to see what a trained layer made of the freedom to differ from place
to place.
"""

# %%
# A network with a low-rank second layer, for scikit-learn's 8x8 digits enlarged to 16x16, so that
# there are positions to see.

from pathlib import Path
from tempfile import mkdtemp

import keras
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import low_rank_local_connectivity as lrlc

images, labels = load_digits(return_X_y=True)
images = images.reshape(-1, 8, 8, 1).astype("float32").repeat(2, 1).repeat(2, 2) / 16
train, test = slice(0, 1200), slice(1200, None)

model = keras.Sequential(
    [
        keras.Input((16, 16, 1)),
        keras.layers.Conv2D(16, 3, activation="relu", padding="same"),
        keras.layers.BatchNormalization(),
        lrlc.LowRankLocallyConnected2D(16, 3, spatial_rank=4, padding="same", name="low_rank"),
        keras.layers.BatchNormalization(),
        keras.layers.ReLU(),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(10),
    ]
)
model.compile(
    keras.optimizers.Adam(0.01),
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
model.fit(images[train], labels[train], epochs=15, batch_size=64, verbose=0)
print(f"test accuracy {model.evaluate(images[test], labels[test], verbose=0)[1]:.3f}")

# %%
# :func:`~low_rank_local_connectivity.plots.combining_weight_maps` draws every low-rank layer of a
# model into a file.

path = Path(mkdtemp()) / "maps.png"
print(lrlc.plots.combining_weight_maps(model, path))

figure, axis = plt.subplots(figsize=(7, 2.4), layout="constrained")
axis.imshow(plt.imread(path))
axis.axis("off")
plt.show()

# %%
# The maps are sums of a row's and a column's logits, under a softmax. With ``additive_axes=()``
# each position has logits of its own. The numbers themselves:

weights = keras.ops.convert_to_numpy(model.get_layer("low_rank").combining_weights())
print(weights.shape, "which sum to", np.unique(weights.sum(-1).round(5)))
print("largest share of one bank at a position:", weights.max().round(3))
