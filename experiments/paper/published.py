"""The paper's accuracies in percent, with their standard errors, by dataset and row.

Source: Elsayed, Ramachandran, Shlens, Kornblith, "Revisiting Spatial Invariance with Low-Rank
Local Connectivity", ICML 2020: tables 1 to 3 for the small images, table 4 for ImageNet.
"""

_SMALL = ("mnist", "cifar10", "celeba32")

# Per row, mean and error for each of the small datasets.
_TABLES_1_TO_3 = {
    "convolution": ((98.84, 0.01), (78.80, 0.12), (96.66, 0.04)),
    "convolution + spatial bias, layer 1": ((99.37, 0.01), (80.94, 0.10), (97.08, 0.02)),
    "convolution + spatial bias, layer 2": ((99.25, 0.02), (80.60, 0.05), (97.06, 0.03)),
    "convolution + spatial bias, layer 3": ((99.07, 0.02), (79.94, 0.12), (96.76, 0.02)),
    "convolution + spatial bias, all layers": ((99.36, 0.01), (80.89, 0.08), (97.12, 0.03)),
    "LRLC, layer 1": ((99.39, 0.02), (80.94, 0.10), (97.25, 0.02)),
    "LRLC, layer 2": ((99.42, 0.02), (80.67, 0.09), (97.53, 0.01)),
    "LRLC, layer 3": ((99.51, 0.01), (82.70, 0.08), (97.73, 0.02)),
    "LRLC, all layers": ((99.45, 0.01), (81.03, 0.11), (97.51, 0.03)),
    "input-dependent LRLC, layer 3": ((99.57, 0.01), (84.91, 0.07), (97.49, 0.03)),
    "CoordConv": ((99.46, 0.01), (81.29, 0.13), (97.40, 0.02)),
    "locally connected, layer 1": ((98.74, 0.01), (62.54, 0.14), (96.32, 0.02)),
    "locally connected, layer 2": ((98.72, 0.02), (69.29, 0.09), (97.19, 0.02)),
    "locally connected, layer 3": ((99.10, 0.01), (71.86, 0.10), (97.31, 0.01)),
    "wide convolution, layer 3": ((99.10, 0.02), (82.40, 0.10), (97.20, 0.02)),
}
_TABLE_4 = {
    "convolution, inserted": (77.22, 0.03),
    "convolution": (76.93, 0.07),
    "CoordConv, inserted": (77.23, 0.03),
    "CoordConv, conv5": (77.07, 0.08),
    "LRLC, inserted": (77.47, 0.03),
    "LRLC, conv5": (77.08, 0.02),
    "input-dependent LRLC, inserted": (77.45, 0.03),
    "input-dependent LRLC, conv5": (77.80, 0.02),
    "wide convolution, inserted": (77.48, 0.05),
    "wide convolution, conv5": (78.54, 0.04),
}

PUBLISHED: dict[str, dict[str, tuple[float, float]]] = {
    dataset: {row: values[index] for row, values in _TABLES_1_TO_3.items()}
    for index, dataset in enumerate(_SMALL)
} | {"imagenet2012": _TABLE_4}
