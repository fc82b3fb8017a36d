"""Exporting trained models for servers: conversion, writing and verification."""

from low_rank_local_connectivity.export.exporting import MANIFEST, export_model
from low_rank_local_connectivity.export.formats import FORMATS

__all__ = [
    "FORMATS",
    "MANIFEST",
    "export_model",
]
