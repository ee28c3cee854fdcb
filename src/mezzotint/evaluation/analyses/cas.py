"""Classification accuracy score: classifiers trained on samples and tested on real images.

It draws as many samples as there are training images, so it is computed only on request.
"""

from collections.abc import Callable

from mezzotint.evaluation.context import EvaluationContext, Json
from mezzotint.evaluation.samples import limited
from mezzotint.metrics.cas import SEEDS, cas, real_cas, recipe_for
from mezzotint.runtime.device import resolve_device
from mezzotint.runtime.distributed import current_ranks
from mezzotint.runtime.log import progress_lines

__all__ = ["analyse"]


def analyse(context: EvaluationContext) -> Json:
    """Train classifiers on as many samples as there are training images, and on those."""
    train = context.data.splits["train"]
    made = context.stream.samples(len(train)) if context.stream else context.everything
    made = limited(made, len(train), context.request.seed)
    assert made.labels is not None

    total = recipe_for(context.data).images

    def watch(what: str) -> Callable[[int, int], None]:
        lines = {
            seed: progress_lines(f"cas: {what}, seed {seed}", total, context.say) for seed in SEEDS
        }
        return lambda seed, seen: lines[seed](seen)

    device = resolve_device(context.request.checkpoint.device)
    ours = cas(made.images, made.labels, context.data, device=device, watch=watch("synthetic"))
    with current_ranks().rank0_first():
        real = real_cas(context.data, context.say, device, watch("real"))
    return {
        "title": "classification accuracy score",
        "value": ours.mean,
        "error": ours.spread,
        "better": "higher",
        "floor": real.mean,
        "anchors": {},
        "accuracies": list(ours.accuracies),
        "real": list(real.accuracies),
        "protocol": {
            "metric": "cas",
            "n": len(made.images),
            "recipe": recipe_for(context.data).digest,
            "seeds": list(SEEDS),
            "against": context.data.name,
            "fingerprint": context.data.fingerprint,
            "split": "test",
        },
    }
