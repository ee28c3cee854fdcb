"""Fine-tuning: a trained run becomes another one.

Here: tuning to a reward, low-rank changes of weights, the run that comes of it.
Not here: training from data (`training`, `runs`).
"""
