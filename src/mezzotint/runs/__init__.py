"""Runs: a training's directory, from the first step to its pictures.

Here: the directory, its configuration, setup, the trainer, metrics in training, progress, speed.
Not here: the step itself (`training`) and the evaluation of samples (`evaluation`).
"""
