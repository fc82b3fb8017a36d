"""A file of Keras 2, brought back
===============================

Keras 3 has no ``LocallyConnected2D`` and cannot load models that hold one. This loads such a file
without Keras 2, and goes on with it: new answers, more training, a file of Keras 3.
"""

# %%
# To have such a file, this page writes one with ``tf_keras``, the last Keras 2. You have yours;
# skip this.

from pathlib import Path
from tempfile import mkdtemp

import keras
import numpy as np
import tf_keras
from sklearn.datasets import load_digits

import low_rank_local_connectivity as lrlc

images, labels = load_digits(return_X_y=True)
images = images.reshape(-1, 8, 8, 1).astype("float32") / 16

old = tf_keras.Sequential(
    [
        tf_keras.Input((8, 8, 1)),
        tf_keras.layers.LocallyConnected2D(8, 3, activation="relu", implementation=1),
        tf_keras.layers.Flatten(),
        tf_keras.layers.Dense(10),
    ]
)
loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
old.compile("adam", loss)
old.fit(images[:1200], labels[:1200], epochs=15, verbose=0)
folder = Path(mkdtemp())
old.save(folder / "old.h5")

# %%
# One call loads it, and the model gives the same answers.

model = lrlc.legacy.load_model(folder / "old.h5")
print([type(layer).__name__ for layer in model.layers])
difference = np.abs(model.predict(images, verbose=0) - old.predict(images, verbose=0)).max()
print(f"largest difference {difference:.1e}")

# %%
# It is a model of Keras 3 now: train it, save it, load it.

model.compile(
    "adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
)
before = model.evaluate(images[1200:], labels[1200:], verbose=0)[1]
model.fit(images[:1200], labels[:1200], epochs=15, verbose=0)
after = model.evaluate(images[1200:], labels[1200:], verbose=0)[1]
print(f"test accuracy {before:.3f}, after more training {after:.3f}")
model.save(folder / "new.keras")
for file in ("old.h5", "new.keras"):
    print(f"{file}: {(folder / file).stat().st_size:,} bytes")
print(type(keras.saving.load_model(folder / "new.keras").layers[0]))
