"""Curation: which images to keep, and what keeping them did."""

from mezzotint.curation.select import Effect, Kept, best_of, effect, refilled

__all__ = ["Effect", "Kept", "best_of", "effect", "refilled"]
