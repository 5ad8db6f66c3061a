"""Certainty: how sure a model may be, and whether an image is like those that it was trained on."""
