"""Is a class drawn badly because it is rare? Train a run's twin with one class thinned out.

    python benchmarks/frequency.py runs/mnist 5 --out runs/mnist-few-fives

The twin has the run's configuration, seed and number of images seen, and a tenth of one class's
training images. Both draw the same number of images a class; the change of that class stands
beside those of the others, which say what changes from one training to the next anyway. Labels are
left alone otherwise, so the model is asked for the rare class as often as for the others.
"""

import argparse
import dataclasses
from pathlib import Path

import torch

from mezzotint.cli.stderr import log_to_stderr
from mezzotint.config.tables import to_table
from mezzotint.data import find_class, load
from mezzotint.metrics import difficulty
from mezzotint.metrics.extractors.extractor import classifier_for
from mezzotint.metrics.kernel import kernel_distance
from mezzotint.runs.facts import DataFacts, RunConfig
from mezzotint.runs.run import Run
from mezzotint.runs.trainer import Trainer
from mezzotint.runtime.rng import generator
from mezzotint.sampling.model import Model, SampleBatch
from mezzotint.training import Stepped


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("label")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--share", type=float, default=0.1, help="of the class's images to keep")
    parser.add_argument("--n", type=int, default=500, help="samples a class")
    arguments = parser.parse_args()
    run = Run.at(arguments.run)
    data = load(
        run.config.origin.source, size=run.config.origin.size, limit=run.config.origin.limit
    )
    label = find_class(data.classes, arguments.label)
    rows = difficulty.thinned(
        data.labels, data.splits["train"], label, arguments.share, generator("thinned")
    )
    few = dataclasses.replace(data, splits={**data.splits, "train": rows})
    tables = {**to_table(run.config), "data": DataFacts.of(few)}
    twin = Run(arguments.out, RunConfig.model_validate(tables))
    total = twin.config.machine.images
    with Trainer(twin, few) as trainer:
        for record in trainer.run():
            if isinstance(record, Stepped) and record.images_seen % 12_800 == 0:
                print(f"{record.images_seen:,} of {total:,} images", flush=True)
    classifier = classifier_for(data)
    held, truth = data.split("test")

    def evaluated(model: Model) -> list[difficulty.Quality]:
        """Accuracy and kernel distance of every class."""
        labels = torch.arange(len(data.classes)).repeat_interleave(arguments.n)
        images = model.sample_batch(SampleBatch.of(labels))
        right = classifier.read(images).probabilities.argmax(1) == labels
        far = []
        for index in range(len(data.classes)):
            features = [
                classifier.features(x) for x in (images[labels == index], held[truth == index])
            ]
            far.append(kernel_distance(*features, generator("kernel")).value)
        near = [
            float(right[labels == index].double().mean()) for index in range(len(data.classes))
        ]
        return [
            difficulty.Quality("label accuracy", "higher", tuple(near)),
            difficulty.Quality("kernel distance", "lower", tuple(far)),
        ]

    for before, after in zip(evaluated(run.model()[0]), evaluated(twin.model()[0]), strict=True):
        print(difficulty.frequency_effect(before, after, data.classes, label).sentence)


if __name__ == "__main__":
    with log_to_stderr():
        main()
