import io
import json
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value, load_dataset
from PIL import Image as Pillow

from mezzotint.data import load
from mezzotint.data.readers import parquet
from mezzotint.data.readers.hub import FetchError, fetch, read_hub
from mezzotint.errors import DataError, InputError

RANDOM = np.random.default_rng(5)
PIXELS = RANDOM.integers(0, 256, (12, 4, 4), dtype=np.uint8)
LABELS = [2, 0, 1] * 4
FEATURES = Features(
    {"n": Value("int32"), "pic": Image(), "kind": ClassLabel(names=["x", "y", "z"])}
)


def png(array):
    stream = io.BytesIO()
    Pillow.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


def hub_set(rows=range(12), labels=LABELS, features=FEATURES):
    columns = {"n": list(rows), "pic": [{"bytes": png(PIXELS[i]), "path": None} for i in rows],
               "kind": [labels[i] for i in rows]}  # fmt: skip
    return Dataset.from_dict(columns, features=features)


def plain_parquet(path, rows, labels):
    image = pa.array([{"bytes": png(PIXELS[i]), "path": "x"} for i in rows])
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"a": pa.array(labels), "b": image}), path, row_group_size=2)


def test_columns_are_found_by_feature_and_pixels_agree(tmp_path):
    (tmp_path / "set" / "data").mkdir(parents=True)
    hub_set(range(8)).to_parquet(tmp_path / "set" / "data" / "train-00000-of-00002.parquet")
    hub_set(range(8, 10)).to_parquet(tmp_path / "set" / "data" / "train-00001-of-00002.parquet")
    hub_set(range(10, 12)).to_parquet(tmp_path / "set" / "data" / "test-00000-of-00001.parquet")
    data = load(str(tmp_path / "set"))
    assert np.array_equal(data.images[:, 0], PIXELS)
    assert (data.labels.tolist(), data.classes) == (LABELS, ("x", "y", "z"))
    assert data.splits["test"].tolist() == [10, 11]


def test_a_file_is_read_in_pieces_whatever_its_size(tmp_path):
    rows = [{"bytes": bytes(RANDOM.bytes(2500)), "path": "x"} for _ in range(20_000)]
    table = pa.table({"image": pa.array(rows), "label": pa.array([0, 1] * 10_000)})
    pq.write_table(table, tmp_path / "train.parquet", row_group_size=1000, compression="none")
    size = (tmp_path / "train.parquet").stat().st_size
    del rows, table
    before = pa.total_allocated_bytes()
    most = max(
        pa.total_allocated_bytes() - before
        for _ in parquet._pieces([tmp_path / "train.parquet"], "image")
    )
    assert size > 40e6
    assert most < size / 5


def test_parquet_and_the_hubs_own_object_give_one_fingerprint(tmp_path, monkeypatch):
    whole = DatasetDict(train=hub_set(range(9)), test=hub_set(range(9, 12)))
    (tmp_path / "set" / "train").mkdir(parents=True)
    (tmp_path / "set" / "test").mkdir(parents=True)
    for split, own in whole.items():
        own.to_parquet(tmp_path / "set" / split / "0000.parquet")
    monkeypatch.setattr("mezzotint.data.readers.hub.fetch", lambda repository: whole)
    local, remote = load(str(tmp_path / "set")), load("hf:some/body")
    assert remote.name == "hf:some/body"
    assert torch.equal(local.images, remote.images)
    assert local.fingerprint == remote.fingerprint
    own = load_dataset("parquet", data_dir=str(tmp_path / "set"), cache_dir=str(tmp_path / "hf"))
    monkeypatch.setattr("mezzotint.data.readers.hub.fetch", lambda repository: own)
    assert load("hf:some/body").fingerprint == local.fingerprint


def test_pictures_that_are_files_beside_the_table(tmp_path):
    for i, array in enumerate(PIXELS):
        folder = tmp_path / "pets" / "train" / "xyz"[LABELS[i]]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i:02}.png").write_bytes(png(array))
    whole = load_dataset(
        "imagefolder", data_dir=str(tmp_path / "pets"), cache_dir=str(tmp_path / "hf")
    )
    encoded = read_hub("pets", whole)
    assert encoded.classes == ("x", "y", "z")
    order = [i for label in range(3) for i in range(12) if LABELS[i] == label]
    contents = [p.content if isinstance(p.content, bytes) else p.content.read_bytes()
                for p in encoded.pictures()]  # fmt: skip
    assert contents == [png(PIXELS[i]) for i in order]


@pytest.mark.parametrize("labels", [[30, 4, 30, 100], ["dog", "cat", "dog", "eel"]])
def test_without_metadata_the_types_decide(tmp_path, labels):
    plain_parquet(tmp_path / "set" / "0000.parquet", range(4), labels)
    data = load(str(tmp_path / "set"))
    assert data.classes == tuple(str(value) for value in sorted(set(labels)))
    assert [data.classes[i] for i in data.labels] == [str(value) for value in labels]
    assert np.array_equal(data.images[:, 0], PIXELS[:4])


def test_a_test_split_without_labels_is_left_out(tmp_path, logged):
    whole = DatasetDict(train=hub_set(), test=hub_set(labels=[-1] * 12), extra=hub_set())
    encoded = read_hub("some", whole)
    assert list(encoded.splits) == ["train"]
    assert any("some, test has no labels" in line for line in logged)
    assert any("some, extra is of no split" in line for line in logged)


def message(call, kind=DataError):
    with pytest.raises(kind) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_mistakes_are_named(tmp_path):
    bad = tmp_path / "bad" / "train.parquet"
    bad.parent.mkdir()
    bad.write_bytes(b"PAR1 nonsense")
    assert str(bad) in message(lambda: load(str(bad.parent)))
    plain_parquet(tmp_path / "tests" / "test-0.parquet", range(2), ["a", "b"])
    assert "no train split" in message(lambda: load(str(tmp_path / "tests")))
    for name in "ab":
        plain_parquet(tmp_path / "two" / name / "train-0.parquet", range(2), ["a", "b"])
    assert "several data sets" in message(lambda: load(str(tmp_path / "two")), InputError)
    plain_parquet(tmp_path / "null" / "train.parquet", range(2), ["a", None])
    assert "row 1 has no known label" in message(lambda: load(str(tmp_path / "null")))
    wide = DatasetDict(train=hub_set(labels=[0, 1, 2] * 4).rename_column("kind", "n2"))
    no_image = DatasetDict(train=wide["train"].remove_columns("pic"))
    assert "0 image" in message(lambda: read_hub("w", no_image))
    pq.write_table(pa.table({"label": [1], "image": pa.array([{"bytes": b"?", "path": "p"}])}),
                   bad)  # fmt: skip
    assert "train, row 0 is truncated or no image" in message(lambda: load(str(bad.parent)))


def test_an_unreachable_hub_fails_at_once_and_leaves_no_trace(monkeypatch, logged):
    import datasets
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    with pytest.raises(FetchError):
        fetch("nobody/has-such-a-set")
    assert "does not answer" in logged[0]
    assert before == (constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE)


def test_two_threads_that_fetch_at_once_leave_no_trace(monkeypatch):
    """The first to begin ends first; what the second saved would be the first one's flag."""
    import datasets
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    seen, spans = [], {"a/first": 0.1, "b/second": 0.3}

    def load_dataset(name):
        seen.append((constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE))
        time.sleep(spans[name])
        return name

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda name: fetch(name), spans)) == list(spans)
    assert seen == [(True, True)] * 2
    assert before == (constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE)


def residual(folder, path):
    """A set of two pictures that the table names instead of holding."""
    rows = pa.array([{"bytes": None, "path": path}] * 2)
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"label": [0, 1], "image": rows}), folder / "train.parquet")


def test_pictures_beside_the_table_are_found_and_none_elsewhere(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "0.png").write_bytes(png(PIXELS[0]))
    (tmp_path / "secret.png").write_bytes(png(PIXELS[1]))
    (tmp_path / "set" / "link.png").symlink_to(tmp_path / "secret.png")
    residual(tmp_path / "set", "0.png")
    assert np.array_equal(load(str(tmp_path / "set")).images[0, 0], PIXELS[0])
    for path in ("../secret.png", str(tmp_path / "secret.png"), "link.png", "a/../../secret.png"):
        residual(tmp_path / "set", path)
        assert "not in" in message(lambda: load(str(tmp_path / "set")))


@pytest.mark.parametrize("facts", ["[]", "3", '{"info": 3}', '{"info": {"features": []}}', "{"])
def test_features_that_are_none_are_refused_or_found_by_type(tmp_path, facts):
    plain_parquet(tmp_path / "train.parquet", range(2), ["a", "b"])
    table = pq.read_table(tmp_path / "train.parquet")
    pq.write_table(
        table.replace_schema_metadata({"huggingface": facts}), tmp_path / "train.parquet"
    )
    if facts.endswith("[]}}"):  # nothing said
        assert load(str(tmp_path)).classes == ("a", "b")
    else:
        assert "fetch it again" in message(lambda: load(str(tmp_path)))


@pytest.mark.parametrize(
    ("feature", "values"),
    [
        ({"_type": "ClassLabel", "names": 5}, [0, 1]),
        ({"_type": "ClassLabel", "names": [["a"], ["b"]]}, [0, 1]),
        ({"_type": "ClassLabel", "names": ["a", "b"]}, ["a", "b"]),
        ({"_type": "ClassLabel", "names": ["a", "b"]}, [0, 2]),
    ],
)
def test_labels_that_do_not_count_class_names_are_refused(tmp_path, feature, values):
    plain_parquet(tmp_path / "train.parquet", range(2), values)
    table = pq.read_table(tmp_path / "train.parquet")
    features = {"a": feature, "b": {"_type": "Image"}}
    facts = json.dumps({"info": {"features": features}})
    pq.write_table(
        table.replace_schema_metadata({"huggingface": facts}), tmp_path / "train.parquet"
    )
    message(lambda: load(str(tmp_path)))


def test_an_image_column_of_something_else_is_refused(tmp_path):
    facts = json.dumps(
        {
            "info": {
                "features": {"a": {"_type": "Image"}, "b": {"_type": "Value", "dtype": "int64"}}
            }
        }
    )
    table = pa.table({"a": [1, 2], "b": [0, 1]}).replace_schema_metadata({"huggingface": facts})
    pq.write_table(table, tmp_path / "train.parquet")
    assert "image column a is int64" in message(lambda: load(str(tmp_path)))
