"""Extractors: networks that turn images into features.

Here: the data set's own classifier, large pretrained networks, and the weights that are shipped.
Not here: what is computed from features (`metrics`).
"""
