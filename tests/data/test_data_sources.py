import io
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from mezzotint.data import SOURCES, load
from mezzotint.data.readers.digits import read_digits
from mezzotint.data.readers.hub import FetchError
from mezzotint.errors import DataError, InputError


def message(*args, kind=InputError, **options):
    with pytest.raises(kind) as error:
        load(*args, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_digits_are_scikit_learns():
    published = pytest.importorskip("sklearn.datasets").load_digits()
    data = load("digits")
    assert np.array_equal(data.images[:, 0].numpy(), np.floor(published.images * 255 / 16 + 0.5))
    assert np.array_equal(data.labels, published.target)
    assert data.labels.dtype == torch.int64
    assert data.classes == tuple(str(name) for name in published.target_names)
    assert sum(len(own) for own in data.splits.values()) == 1797


def test_digits_keep_the_fingerprint_that_runs_and_classifiers_know():
    # As the version that read them from scikit-learn made them.
    assert load("digits").fingerprint == "f4dc6a30fb039efc006728cd392ca04a"
    assert read_digits().digest == "4fad935d357e372f693715d99ce69ec9a372cc88"


def test_the_statistics_are_numpys():
    data = load("digits", limit=200)
    pixels = data.split("train")[0].numpy().astype(np.float64) / 127.5 - 1
    assert data.mean == pytest.approx(pixels.mean(), abs=1e-12)
    assert data.deviation == pytest.approx(pixels.std(), abs=1e-12)


def test_a_limit_balances_classes_and_changes_the_fingerprint():
    whole, small = load("digits"), load("digits", limit=25)
    counts = torch.bincount(small.split("train")[1], minlength=10)
    assert counts.sum() == 25
    assert counts.max() - counts.min() == 1
    assert len(small.splits["validation"]) == 10
    assert torch.equal(small.splits["test"], whole.splits["test"])
    prints = {whole.fingerprint, small.fingerprint, load("digits", size=16).fingerprint}
    assert len(prints) == 3
    assert load("digits").fingerprint == whole.fingerprint
    assert "limit 9" in message("digits", limit=9)


def test_size_resizes_as_pillow_does():
    small, large = load("digits"), load("digits", size=16)
    assert large.images.shape == (1797, 1, 16, 16)
    image = Image.fromarray(small.images[5, 0].numpy())
    expected = np.asarray(image.resize((16, 16), Image.Resampling.BICUBIC))
    assert np.array_equal(large.images[5, 0], expected)
    assert "size 0" in message("digits", size=0)


@pytest.fixture(scope="module")
def loaded(real, tmp_path_factory):
    """Real sets (of CIFAR-10's train split a fifth), decoded once for this module."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "mnist").symlink_to((real / "mnist").resolve())
    (folder / "cifar10").mkdir()
    for file in (real / "cifar10").glob("*.parquet"):
        pq.write_table(pq.read_table(file).slice(0, 10000), folder / "cifar10" / file.name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEZZOTINT_CACHE", str(tmp_path_factory.mktemp("decoded")))
        return {name: load(name, data_dir=folder) for name in ("mnist", "cifar10")}


@pytest.mark.slow
def test_mnist_has_its_published_counts(loaded):
    data = loaded["mnist"]
    assert {name: len(own) for name, own in data.splits.items()} == {
        "train": 50000, "validation": 10000, "test": 10000,
    }  # fmt: skip
    train = torch.bincount(data.labels[:60000])
    assert train.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    test = torch.bincount(data.split("test")[1])
    assert test.tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    # The commonly published 0.1307 and 0.3081 in [0, 1], of all 60,000; here of 50,000.
    assert (data.mean + 1) / 2 == pytest.approx(0.1307, abs=1e-3)
    assert data.deviation / 2 == pytest.approx(0.3081, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_rows_are_pillows(loaded, real, name):
    data = loaded[name]
    table = pq.read_table(next((real / name).glob("test*.parquet")))
    for row in (0, 123, 9999):
        entry = table.slice(row, 1).to_pylist()[0]
        encoded = next(value for value in entry.values() if isinstance(value, dict))
        image = np.asarray(Image.open(io.BytesIO(encoded["bytes"])))
        index = data.splits["test"][row]
        assert np.array_equal(data.images[index].permute(1, 2, 0).squeeze(), image)
        assert entry["label"] == data.labels[index]


@pytest.mark.slow
def test_cifar_flips_and_has_its_classes(loaded):
    data = loaded["cifar10"]
    assert data.images.shape == (20000, 3, 32, 32)
    assert (data.augment.flip, loaded["mnist"].augment.flip) == (True, False)
    arguments = torch.bincount(data.labels[:10000])
    validation = torch.bincount(data.labels[data.splits["validation"]])
    assert validation.sum() == 2000
    assert (validation - arguments / 5).abs().max() < 1
    assert torch.bincount(data.split("test")[1]).tolist() == [1000] * 10
    assert data.class_index("Frog") == 6


def test_a_named_set_is_found_by_option_then_environment(tmp_path, monkeypatch):
    for root, level in (("option", 10), ("environment", 20)):
        for name in "0123456789":
            folder = tmp_path / root / "mnist" / name
            folder.mkdir(parents=True)
            Image.fromarray(np.full((4, 4), level, np.uint8)).save(folder / "0.png")
    monkeypatch.setenv("MEZZOTINT_DATA", str(tmp_path / "environment"))
    assert (load("mnist", data_dir=tmp_path / "option").images == 10).all()
    assert (load("mnist", data_dir=tmp_path / "nowhere").images == 20).all()
    environment = tmp_path / "environment"
    (environment / "mnist").rename(environment / "fashion-mnist")
    data = load("fashion-mnist")
    assert data.classes == SOURCES["fashion-mnist"].classes
    (environment / "fashion-mnist" / "extra").mkdir()
    Image.new("L", (4, 4)).save(environment / "fashion-mnist" / "extra" / "0.png")
    assert "11 classes instead of 10" in message("fashion-mnist", kind=DataError)


def test_a_set_that_is_nowhere_says_where_and_how(tmp_path, monkeypatch):
    def unreachable(repository):
        raise FetchError("no network")

    monkeypatch.setattr("mezzotint.data.readers.hub.fetch", unreachable)
    text = message("mnist", data_dir=tmp_path, kind=DataError)
    for part in (str(tmp_path / "mnist"), "no network", "ylecun/mnist", "--data-dir"):
        assert part in text
    assert "some/thing" in message("hf:some/thing", kind=DataError)
    assert "hf:ylecun/mnist" in message("hf:mnist")


def test_unknown_sources_are_named(tmp_path):
    assert "did you mean 'fashion-mnist'" in message("fashon-mnist")
    (tmp_path / "x.zip").write_bytes(b"")
    assert "is a file" in message(str(tmp_path / "x.zip"))
    (tmp_path / "nothing").mkdir()
    assert "class subfolders" in message(str(tmp_path / "nothing"), kind=DataError)


def test_importing_the_room_brings_nothing_heavy():
    heavy = "datasets pyarrow PIL platformdirs huggingface_hub"
    code = f"import sys, mezzotint.data; print([m for m in '{heavy}'.split() if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
