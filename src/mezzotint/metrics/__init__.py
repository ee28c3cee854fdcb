"""Metrics: tensors in, numbers with their protocol out.

Here: distances, coverage, accuracy, memorisation, recognition, and the registry that names them.
Not here: runs, files of samples and models; a metric sees images, features or callables.
"""
