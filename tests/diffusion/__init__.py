"""Tests of mezzotint.diffusion: every answer is compared with one obtained another way."""
