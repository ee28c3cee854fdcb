"""The smallest network on the embedded digits, trained for a few images."""

import pytest

import mezzotint

TINY = (
    "network.levels=[{width=8}]",
    "network.embedding={width=16, features=8}",
    "training.batch=16",
    "training.model_guidance.max_scale=1",
    "sampling.guidance=1",
    "training.learning_rate=0.01",
    "training.preview_every=0",
    "training.validation_images=16",
)


def trained(out, *more, budget="64images"):
    """A run at `out`, with more settings; in float32 on every machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mezzotint.kernels.precision.has_bf16_units", lambda: False)
        return mezzotint.train("digits", out=out, budget=budget, settings=(*TINY, *more))
