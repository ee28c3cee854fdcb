"""Features in the cache, against those of an extractor that counts what it reads."""

import dataclasses
import zipfile

import numpy as np
import pytest
import torch

from mezzotint.evaluation.evaluate import execute
from mezzotint.evaluation.request import EvaluateRequest
from mezzotint.imaging import save_npz
from mezzotint.metrics.extractors.classifier import Classifier
from mezzotint.metrics.extractors.kept import kept_features


class Means:
    """Features that can be computed by hand: the mean of each half of an image."""

    name, resize = "means", "none"

    def __init__(self, digest="a"):
        self.digest, self.read = digest, 0

    def features(self, images):
        self.read += len(images)
        return images.float().flatten(1).unflatten(1, (2, -1)).mean(2)


@pytest.fixture
def rows(digits):
    return digits.splits["train"]


def test_the_second_time_nothing_is_read(cache, digits, rows, quiet):
    extractor = Means()
    first = kept_features(extractor, digits, rows)
    second = kept_features(extractor, digits, rows)
    assert extractor.read == len(rows)
    assert second.dtype == torch.float32
    assert torch.equal(first, second)
    assert torch.equal(second, Means().features(digits.images[rows]))
    (file,) = cache.glob("*")
    assert file.name.startswith(f"features-{digits.fingerprint}-")


def test_other_rows_data_or_extractors_have_files_of_their_own(cache, digits, rows, quiet):
    kept_features(Means(), digits, rows)
    other = dataclasses.replace(digits, images=255 - digits.images, fingerprint="another")
    for extractor, data, some in (
        (Means("b"), digits, rows),
        (Means(), digits, rows[1:]),
        (Means(), digits, rows.flip(0)),
        (Means(), other, rows),
    ):
        found = kept_features(extractor, data, some)
        assert torch.equal(found, Means().features(data.images[some]))
        assert extractor.read == len(some)
    resized = Means()
    resized.resize = "bicubic to 224"
    kept_features(resized, digits, rows)
    assert resized.read == len(rows)
    assert len(list(cache.glob("*"))) == 6


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other", "few", "double", "flat"])
def test_a_damaged_file_is_made_anew(cache, digits, rows, damage, quiet):
    expected = kept_features(Means(), digits, rows)
    (file,) = cache.glob("*")
    whole = file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        assert archive.namelist() == ["features.npy"]
    middle = len(whole) // 2
    if damage in ("other", "few", "double", "flat"):
        arrays = {
            "other": {"images": expected.numpy()},
            "few": {"features": expected[1:].numpy()},
            "double": {"features": expected.double().numpy()},
            "flat": {"features": expected[:, 0].numpy()},
        }[damage]
        np.savez(file, **arrays)
    else:
        flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        file.write_bytes({"cut": whole[:middle], "flipped": flipped, "empty": b""}[damage])
    extractor = Means()
    assert torch.equal(kept_features(extractor, digits, rows), expected)
    assert extractor.read == len(rows)
    assert torch.equal(kept_features(extractor, digits, rows), expected)
    assert extractor.read == len(rows)


def test_a_cache_that_cannot_be_written_is_a_line(tmp_path, digits, rows, monkeypatch, logged):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MEZZOTINT_CACHE", str(tmp_path / "file" / "cache"))
    extractor = Means()
    for _ in range(2):
        found = kept_features(extractor, digits, rows)
        assert torch.equal(found, Means().features(digits.images[rows]))
    assert extractor.read == 2 * len(rows)
    assert len(logged) == 2
    assert "keeps no features (Not a directory)" in logged[0]


def test_a_second_evaluation_reads_no_training_image(cache, digits, tmp_path, monkeypatch):
    images, labels = digits.split("test")
    path = save_npz(tmp_path / "samples.npz", images[:100], labels[:100], {})
    read, whole = [], Classifier.read

    def counted(classifier, images):
        read.append(len(images))
        return whole(classifier, images)

    monkeypatch.setattr(Classifier, "read", counted)
    found = []
    for _ in range(2):
        read.append("evaluation")
        asked = EvaluateRequest(
            path, against="digits", metrics=("memorisation",), extractor="classifier"
        )
        found.append(execute(asked).to_json()["memorisation"])
    count = len(digits.splits["train"])
    held = sum(len(digits.splits[name]) for name in ("validation", "test"))
    second = read.index("evaluation", 1)
    assert read[1:second].count(count) == 1
    assert read[1:second].count(held) == 1
    assert not {count, held} & set(read[second:])
    assert found[0] == found[1]
