"""Styles: what an image is like, apart from its class.

Here: the measures of an image, a style's levels, and which styles fit a data set.
Not here: the words for them (`metrics.clip.captions`).
"""
