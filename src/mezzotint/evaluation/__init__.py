"""Evaluation: everything that can be said about samples, as one JSON object and pictures.

Here: requests, samples of runs and files, the analyses, sweeps, selection, evaluation.json.
Not here: the numbers themselves (`metrics`).
"""
