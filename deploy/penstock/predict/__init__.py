"""Predictions of a trained surrogate at one or many points, and the files that they are written to."""

from penstock.predict.files import FORMATS, write_predictions
from penstock.predict.points import read_points

__all__ = ["FORMATS", "read_points", "write_predictions"]
