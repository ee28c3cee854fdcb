"""Classification accuracy score: classifiers trained on samples and tested on real images.

It draws as many samples as there are training images, so it is computed only on request.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from mezzotint.evaluation.context import EvaluationContext, Json
from mezzotint.evaluation.samples import limited
from mezzotint.metrics.cas import SEEDS, cas, real_cas, recipe_for
from mezzotint.runtime.device import resolve_device
from mezzotint.runtime.distributed import current_ranks
from mezzotint.runtime.progress_bar import progress

__all__ = ["analyse"]


def analyse(context: EvaluationContext) -> Json:
    """Train classifiers on as many samples as there are training images, and on those."""
    train = context.data.splits["train"]
    made = context.stream.samples(len(train)) if context.stream else context.everything
    made = limited(made, len(train), context.request.seed)
    assert made.labels is not None
    total = recipe_for(context.data).images

    device = resolve_device(context.request.checkpoint.device)
    with _progress("synthetic", total) as watch:
        ours = cas(made.images, made.labels, context.data, device=device, watch=watch)
    with current_ranks().rank0_first(), _progress("real", total) as watch:
        real = real_cas(context.data, device, watch)
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


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[int, int], None]]:
    """Show the trainings one after the other; yields a function of the seed and images seen."""
    updates: dict[int, Callable[[int], None]] = {}
    with ExitStack() as stack:

        def watch(seed: int, seen: int) -> None:
            if seed not in updates:
                stack.close()  # the training before has ended
                updates[seed] = stack.enter_context(progress(f"cas: {what}, seed {seed}", total))
            updates[seed](seen)

        yield watch
