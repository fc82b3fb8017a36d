"""Converting and serving a model
==============================

A trained model is to answer outside of Keras. Export it, look at what was measured and verified,
and ask it with the runtime that will serve it; nothing of Keras is needed for that.
"""

# %%
# A small trained network with a low-rank layer.

import json
from pathlib import Path
from tempfile import mkdtemp

import keras
import numpy as np
import onnxruntime
from sklearn.datasets import load_digits

import low_rank_local_connectivity as lrlc

images, labels = load_digits(return_X_y=True)
images = images.reshape(-1, 8, 8, 1).astype("float32") / 16
train, test = slice(0, 1200), slice(1200, None)

model = keras.Sequential(
    [
        keras.Input((8, 8, 1), name="image"),
        keras.layers.Conv2D(16, 3, use_bias=False),
        keras.layers.BatchNormalization(),
        keras.layers.ReLU(),
        lrlc.LowRankLocallyConnected2D(16, 3, spatial_rank=4, activation="relu"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(10, name="logits"),
    ]
)
model.compile(
    keras.optimizers.Adam(0.01),
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
)
model.fit(images[train], labels[train], epochs=20, batch_size=64, verbose=0)

# %%
# The export converts the model: filters are mixed for every position, and batch normalisation is
# folded into the convolution before it. What was written is loaded by its own runtime and compared
# with the model.

folder = Path(mkdtemp()) / "served"
manifest = lrlc.export.export_model(model, folder, ["onnx", "litert"], sample=images[:32])
for name, entry in manifest["formats"].items():
    print(f"{name}: {entry['file']}, {entry['bytes']:,} bytes, off by {entry['difference']:.1e}")

# %%
# The manifest says what a client needs to know.

print(
    json.dumps({key: manifest[key] for key in ("form", "input", "output", "parameters")}, indent=1)
)

# %%
# ONNX Runtime answers as the model does.

session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
(logits,) = session.run(None, {"image": images[test]})
expected = model.predict(images[test], verbose=0)
print(f"largest difference {np.abs(logits - expected).max():.1e}")
print(f"test accuracy {np.mean(logits.argmax(-1) == labels[test]):.3f}")
