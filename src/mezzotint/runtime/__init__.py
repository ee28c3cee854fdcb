"""Run-time support: files, randomness, processes, devices.

Here: atomic files, checksums, the cache's place, random numbers, signals, torchrun, CUDA graphs.
Not here: anything that knows what an image or a network is.
"""
