"""Asks the server for two of scikit-learn's digits."""

import json
import urllib.request
from typing import Any

from low_rank_local_connectivity.data import DIGITS

test: Any = DIGITS.read(None, False)["test"]
# From 0...16 to -1...1, what the network was trained on: "sample_range" in manifest.json.
images = test.images[:2] / 8 - 1
image = {
    "name": "image",
    "shape": images.shape,
    "datatype": "FP32",
    "data": images.ravel().tolist(),
}
request = urllib.request.Request(
    "http://127.0.0.1:8080/v2/models/digits/infer",
    json.dumps({"inputs": [image]}).encode(),
    {"Content-Type": "application/json"},
)
with urllib.request.urlopen(request) as answer:
    (logits,) = json.load(answer)["outputs"]
print(logits["name"], logits["shape"], [round(value, 2) for value in logits["data"]])
print("labels", test.labels[:2].tolist())
