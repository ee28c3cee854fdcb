"""Editing: pictures made from several images of a model.

Here: composition of numbers, words and grids.
Not here: plain sampling (`sampling`).
"""
