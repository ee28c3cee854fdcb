"""Sampling: a model that draws images, uint8 out.

Here: the model, its guidance by a prompt, and trajectories as pictures.
Not here: run directories (`runs`) and the samplers' mathematics (`diffusion`).
"""
