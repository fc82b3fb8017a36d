"""What does a position see?
=========================

Before you choose kernels, strides and dilations, or a margin for measuring equivariance, ask how
far a layer sees. :func:`~low_rank_local_connectivity.inspection.receptive_field` answers from
shapes, for any model of Keras, without running it.
"""

# %%
# One of scikit-learn's photographs, and a network with a dilated context.

import keras
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle
from sklearn.datasets import load_sample_image

import low_rank_local_connectivity as lrlc

image = load_sample_image("china.jpg")[:420, :420] / 255
model = keras.Sequential(
    [
        keras.Input((420, 420, 3)),
        keras.layers.Conv2D(8, 7, strides=2, padding="same", name="stem"),
        keras.layers.MaxPooling2D(2, name="pool"),
        lrlc.LowRankLocallyConnected2D(8, 3, spatial_rank=2, padding="same", name="low_rank"),
        lrlc.DilatedContext2D(8, dilations=(1, 2, 4), name="context"),
    ]
)
rows = lrlc.inspection.receptive_field(model)
for row in rows:
    print(f"{row.layer:10} sees {row.sizes[0]:3} x {row.sizes[1]:3} pixels, every {row.strides[0]}")

# %%
# The squares that the middle position of each layer reads.

figure, axis = plt.subplots(figsize=(5, 5), layout="constrained")
axis.imshow(image)
for row, layer, colour in zip(rows, model.layers, "wycr", strict=True):
    middle = layer.output.shape[1] // 2
    corner = [
        start + stride * middle for start, stride in zip(row.starts, row.strides, strict=True)
    ]
    box = Rectangle(corner[::-1], *row.sizes[::-1], fill=False, edgecolor=colour, linewidth=2)
    axis.add_patch(box)
    axis.annotate(row.layer, (corner[1], corner[0] - 4), color=colour)
axis.axis("off")
plt.show()

# %%
# That nothing else matters can be tried: change the picture outside of what the position sees, and
# its features stay.

row, middle = rows[-1], model.layers[-1].output.shape[1] // 2
top, left = (start + stride * middle for start, stride in zip(row.starts, row.strides, strict=True))
inside = np.zeros(image.shape, bool)
inside[top : top + row.sizes[0], left : left + row.sizes[1]] = True
changed = np.where(inside, image, 0.0)
before, after = (model.predict(x[None], verbose=0)[0, middle, middle] for x in (image, changed))
print("largest change:", np.abs(before - after).max())
