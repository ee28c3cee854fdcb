"""Classification accuracy score: classifiers trained on samples and tested on real images.

It draws as many samples as there are training images, so it is computed only on request.
"""

from collections.abc import Callable

from mezzotint.evaluation.context import Case, Json
from mezzotint.evaluation.samples import limited
from mezzotint.metrics.cas import SEEDS, cas, real_cas, recipe_for
from mezzotint.runtime.device import pick_device
from mezzotint.runtime.distributed import current
from mezzotint.runtime.log import counted

__all__ = ["judge_cas"]


def judge_cas(case: Case) -> Json:
    """Train classifiers on as many samples as there are training images, and on those."""
    train = case.data.splits["train"]
    made = case.stream.samples(len(train)) if case.stream else case.everything
    made = limited(made, len(train), case.question.seed)
    assert made.labels is not None

    total = recipe_for(case.data).images

    def watch(what: str) -> Callable[[int, int], None]:
        lines = {seed: counted(f"cas: {what}, seed {seed}", total, case.say) for seed in SEEDS}
        return lambda seed, seen: lines[seed](seen)

    device = pick_device(case.question.pick.device)
    ours = cas(made.images, made.labels, case.data, device=device, watch=watch("synthetic"))
    with current().in_turn():
        real = real_cas(case.data, case.say, device, watch("real"))
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
            "recipe": recipe_for(case.data).digest,
            "seeds": list(SEEDS),
            "against": case.data.name,
            "fingerprint": case.data.fingerprint,
            "split": "test",
        },
    }
