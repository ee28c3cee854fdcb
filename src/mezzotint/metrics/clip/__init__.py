"""CLIP: how well images fit words.

Here: published CLIPs, the small CLIP of a data set, its captions, scores and log-likelihoods.
Not here: guidance by a prompt (`sampling.prompt`) and tuning (`finetuning`).
"""
