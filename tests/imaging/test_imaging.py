"""Pictures against pixel positions computed by hand and files read back by other means."""

import errno
import json
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from mezzotint import imaging
from mezzotint.errors import DataError, DivergenceError, InputError


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


# --- values ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_value_survives_the_round_trip(dtype):
    values = torch.arange(256, dtype=torch.uint8)
    x = imaging.to_float(values)
    assert x.dtype == torch.float32
    assert (x[0], x[255]) == (-1, 1)
    assert torch.equal(imaging.to_uint8(x.to(dtype)), values)


def test_to_uint8_clamps_and_rounds_to_nearest():
    # 127.5 (x + 1) for x = -0.5 is 63.75, for 0.25 is 159.375
    x = torch.tensor([-7.0, -1.0, -0.5, 0.25, 1.0, 1.001, 300.0])
    assert imaging.to_uint8(x).tolist() == [0, 0, 64, 159, 255, 255, 255]


def test_half_precision_is_converted_before_the_arithmetic():
    x = torch.linspace(-1, 1, 301).half()
    expected = np.rint((x.numpy().astype(np.float64) + 1) * 127.5)
    assert imaging.to_uint8(x).tolist() == expected.tolist()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_to_uint8_counts_what_is_not_finite(bad):
    x = torch.zeros(2, 3)
    x[0, 1] = x[1, 2] = bad
    with pytest.raises(DivergenceError, match="2 of 6 values are NaN or infinite"):
        imaging.to_uint8(x)


def test_the_two_ranges_cannot_be_mistaken():
    with pytest.raises(InputError, match="allowed: torch.uint8"):
        imaging.to_float(torch.zeros(3))
    with pytest.raises(InputError, match="allowed: floating point"):
        imaging.to_uint8(torch.zeros(3, dtype=torch.uint8))


# --- sheets ---------------------------------------------------------------------------------


def test_scale_for_the_sizes_we_know():
    assert [imaging.scale_for(width) for width in (1, 8, 28, 32, 64, 84, 1000)] == [
        *(8, 8, 3, 3, 2, 1, 1)
    ]


def test_grid_of_five_by_hand():
    images = torch.arange(1, 6, dtype=torch.uint8).view(5, 1, 1, 1)
    w = 255
    assert imaging.grid(images, 3, gap=1)[0].tolist() == [
        [1, w, 2, w, 3],
        [w, w, w, w, w],
        [4, w, 5, w, w],
    ]
    assert imaging.grid(images[:2], 2, scale=2, gap=0)[0].tolist() == [[1, 1, 2, 2]] * 2


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width", "scale", "gap"), [(5, 7, 3, 2), (8, 8, 1, 0)])
def test_grid_puts_every_pixel_where_it_belongs(channels, height, width, scale, gap):
    images = noise(7, channels, height, width)
    page = imaging.grid(images, 4, scale=scale, gap=gap)
    rows_and_columns = (2 * height * scale + gap, 4 * width * scale + 3 * gap)
    assert page.shape == (channels, *rows_and_columns)
    expected = np.full(page.shape, 255)
    for i in range(7):
        top, left = (i // 4) * (height * scale + gap), (i % 4) * (width * scale + gap)
        for y in range(height * scale):
            for x in range(width * scale):
                pixel = images[i, :, y // scale, x // scale].numpy()
                expected[:, top + y, left + x] = pixel
    assert (page.numpy() == expected).all()


def test_grid_is_no_wider_than_its_images():
    assert imaging.grid(noise(2, 1, 4, 4), 10, gap=2).shape == (1, 4, 10)


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (torch.zeros(2, 1, 4, 4), {"columns": 2}, "must be uint8"),
        (noise(2, 4, 4), {"columns": 2}, "must be uint8"),
        (noise(2, 2, 4, 4), {"columns": 2}, "C = 1 or 3"),
        (noise(0, 1, 4, 4), {"columns": 2}, "at least one image"),
        (noise(2, 1, 4, 4), {"columns": 0}, "columns is 0"),
        (noise(2, 1, 4, 4), {"columns": 2, "scale": 0}, "scale is 0"),
        (noise(2, 1, 4, 4), {"columns": 2, "gap": -1}, "gap is -1"),
    ],
)
def test_grid_refuses(images, options, message):
    with pytest.raises(InputError, match=message):
        imaging.grid(images, **options)


def ink(page: torch.Tensor) -> torch.Tensor:
    """Where the page (C, H, W) is darker than paper, bool (H, W)."""
    return (page < 255).any(0)


@pytest.mark.parametrize("channels", [1, 3])
def test_labelled_grid_is_the_plain_grid_with_names_left_of_it(channels):
    images = noise(6, channels, 10, 12)
    page = imaging.labelled_grid([("Bag", images[:3]), ("Coat", images[3:])], scale=3, gap=2)
    plain = imaging.grid(images, 3, scale=3, gap=2)
    (_, height, width), edge = plain.shape, 6
    left = page.shape[2] - edge - width
    assert page.shape[1] == height + 2 * edge
    assert torch.equal(page[:, edge : edge + height, left : left + width], plain)
    names = ink(page[:, :, : left - edge])
    rows = names.any(1).nonzero().flatten().tolist()
    assert all(edge <= y < edge + 30 or edge + 32 <= y < edge + 62 for y in rows)
    for top in (edge, edge + 32):  # each name is in the middle of its row of 30 pixels
        inked = [y - top for y in rows if top <= y < top + 30]
        assert 15 - 9 <= min(inked) < 15 < max(inked) < 15 + 9
    columns = names.any(0).nonzero()
    assert columns.min() >= edge  # the longest name is not cut off
    assert not ink(page[:, :, left - edge : left]).any()


def test_rows_of_a_labelled_grid_may_differ_in_length():
    page = imaging.labelled_grid([("a", noise(1, 1, 30, 30)), ("b", noise(3, 1, 30, 30))], scale=1)
    assert (page[0, 6:36, -6 - 62 : -6] == 255).all()


def test_tiny_images_leave_room_for_their_names():
    tiny = torch.zeros(1, 1, 2, 2, dtype=torch.uint8)
    page = imaging.labelled_grid([("Mgy", tiny)] * 3, scale=1)
    name_rows = ink(page[:, :, :-10]).any(1).tolist()
    blocks = "".join("x" if row else " " for row in name_rows).split()
    assert len(blocks) == 3  # three names, none touching the next


def test_names_outside_ascii_are_drawn_in_ascii():
    image = noise(1, 1, 20, 20)
    drawn = imaging.labelled_grid([("Café σ\n漢", image)], scale=1)
    assert torch.equal(drawn, imaging.labelled_grid([("Cafe sigma ?", image)], scale=1))


def test_a_sheet_refuses_mixed_shapes_and_nothing_at_all():
    with pytest.raises(InputError, match="share one shape"):
        imaging.labelled_grid([("a", noise(1, 1, 4, 4)), ("b", noise(1, 3, 4, 4))])
    with pytest.raises(InputError, match="at least one row"):
        imaging.labelled_grid([])


@pytest.mark.parametrize("channels", [1, 3])
def test_strip_has_a_column_for_each_moment_and_alternates_its_bands(channels):
    x = [noise(2, channels, 20, 20, seed=s) // 2 for s in range(3)]  # never white
    x0 = [noise(2, channels, 20, 20, seed=s + 9) // 2 for s in range(3)]
    page = imaging.strip(x, ["2", "1", "0"], estimates=x0, scale=2, gap=2)
    top, left = 6 + 19 + 6, page.shape[2] - 6 - (3 * 40 + 2 * 2)
    tops = [top, top + 42, top + 84 + 6, top + 126 + 6]  # 6 more between two images
    assert page.shape[1] == tops[-1] + 40 + 6
    for row, y in enumerate(tops):
        image, band = row // 2, (x, x0)[row % 2]
        for moment in range(3):
            cell = page[:, y : y + 40, left + 42 * moment :][:, :, :40]
            enlarged = np.kron(band[moment][image].numpy(), np.ones((1, 2, 2)))
            assert (cell.numpy() == enlarged).all()
    for moment in range(3):  # a caption, centred over its column
        columns = ink(page[:, :top, left + 42 * moment :][:, :, :40]).any(0).nonzero()
        assert abs(float(columns.min() + columns.max()) / 2 - 20) < 4
    titles = ink(page[:, :, : left - 6]).any(1)
    assert all(titles[y : y + 40].any() for y in tops)


def test_one_band_has_no_titles():
    frames = [noise(2, 1, 30, 30), noise(2, 1, 30, 30)]
    assert imaging.strip(frames, ["a", "b"], scale=1, gap=2).shape[2] == 6 + 30 + 2 + 30 + 6


def test_long_captions_widen_the_columns_and_do_not_touch():
    frames = [torch.zeros(1, 1, 8, 8, dtype=torch.uint8)] * 2
    page = imaging.strip(frames, ["evaluation 10 of 12"] * 2, scale=1)
    inked = ink(page[:, :25]).any(0).nonzero().flatten()
    gaps = inked.diff()
    assert inked.min() >= 6
    assert inked.max() < page.shape[2] - 6
    assert gaps.max() >= 12  # between the captions; a space within one is about 5


def test_strip_refuses_what_does_not_match():
    frame = noise(2, 1, 4, 4)
    for frames, captions, estimates in (
        ([frame, frame], ["a"], None),
        ([frame], ["a"], [frame, frame]),
        ([frame, noise(3, 1, 4, 4)], ["a", "b"], None),
        ([], [], None),
    ):
        with pytest.raises(InputError, match="one caption per moment"):
            imaging.strip(frames, captions, estimates=estimates)
    with pytest.raises(InputError, match="must be uint8"):
        imaging.strip([frame.float()], ["a"])


# --- files ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_png_is_lossless(tmp_path, channels, mode):
    image = noise(channels, 9, 13)
    path = imaging.save_png(image, tmp_path / "new" / "a.png")
    with Image.open(path) as picture:
        assert (picture.mode, picture.size) == (mode, (13, 9))
        pixels = np.asarray(picture).reshape(9, 13, channels)
        assert torch.equal(imaging.from_pillow(picture), image)
    assert (pixels.transpose(2, 0, 1) == image.numpy()).all()
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]


def test_from_pillow_makes_rgb_of_other_modes():
    picture = Image.new("RGBA", (2, 1), (10, 20, 30, 255))
    assert imaging.from_pillow(picture).tolist() == [[[10, 10]], [[20, 20]], [[30, 30]]]


@pytest.mark.parametrize("suffix", ["gif", "webp"])
@pytest.mark.parametrize("channels", [1, 3])
def test_animation_frames_and_durations(tmp_path, suffix, channels):
    frames = [noise(channels, 16, 20, seed=s) for s in range(5)]
    path = tmp_path / f"a.{suffix}"
    assert imaging.save_animation(frames, path, seconds_per_frame=0.12) == path
    with Image.open(path) as movie:
        assert movie.format == suffix.upper()
        assert movie.n_frames == 5
        assert movie.info["loop"] == 0
        read = []
        for page in ImageSequence.Iterator(movie):
            read.append(np.asarray(page.convert("RGB"), dtype=int).transpose(2, 0, 1))
            assert page.info["duration"] == 120
    if suffix == "webp" or channels == 1:
        for frame, pixels in zip(frames, read, strict=True):
            assert (pixels == frame.numpy()).all()  # grey is broadcast to RGB


def test_gif_time_is_in_hundredths_and_equal_frames_are_held(tmp_path):
    a, b = noise(1, 8, 8), noise(1, 8, 8, seed=1)
    imaging.save_animation([a, b, b, b], tmp_path / "a.gif", seconds_per_frame=0.034)
    with Image.open(tmp_path / "a.gif") as movie:
        durations = [page.info["duration"] for page in ImageSequence.Iterator(movie)]
    assert durations == [30, 90]


def test_animation_refuses(tmp_path):
    a = noise(1, 8, 8)
    with pytest.raises(InputError, match="end in .gif or .webp"):
        imaging.save_animation([a], tmp_path / "a.mp4", seconds_per_frame=0.1)
    with pytest.raises(InputError, match="seconds_per_frame is 0"):
        imaging.save_animation([a], tmp_path / "a.gif", seconds_per_frame=0)
    with pytest.raises(InputError, match="all of one shape"):
        imaging.save_animation([a, noise(1, 8, 9)], tmp_path / "a.gif", seconds_per_frame=0.1)
    with pytest.raises(InputError, match="at least one frame"):
        imaging.save_animation([], tmp_path / "a.gif", seconds_per_frame=0.1)
    with pytest.raises(InputError, match="end in .png"):
        imaging.save_png(a, tmp_path / "a.jpg")
    with pytest.raises(InputError, match=r"must be uint8 \(C, H, W\)"):
        imaging.save_png(a[None], tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_folder_names_are_safe_and_unlike():
    classes = [
        "T-shirt/top",
        "T-shirt:top",
        "t-SHIRT_top",
        "../..",
        "Ankle boot",
        "été",
        "",
        "...",
    ]
    names = imaging.folder_names(classes)
    assert names == [
        *("T-shirt_top", "T-shirt_top_2", "t-SHIRT_top_3"),
        *("_", "Ankle_boot", "été", "class", "class_2"),
    ]
    assert imaging.folder_names(["manifest.jsonl", "manifest.jsonl_2"]) == [
        *("manifest.jsonl_2", "manifest.jsonl_2_2")
    ]
    assert len(imaging.folder_names(["x" * 500])[0]) == 60


def test_folder_and_manifest_tell_every_image_apart(tmp_path):
    images, labels = noise(5, 3, 6, 6), torch.tensor([2, 0, 2, 2, 0])
    extra = [{"seed": 7, "score": i / 2} for i in range(5)]
    classes = ["T-shirt/top", "unused", "Bag"]
    manifest = imaging.save_folder(images, labels, classes, tmp_path / "out", extra)
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    assert [row["file"] for row in rows] == [
        *("Bag/00000.png", "T-shirt_top/00000.png", "Bag/00001.png"),
        *("Bag/00002.png", "T-shirt_top/00001.png"),
    ]
    assert rows[1] == {
        **{"file": "T-shirt_top/00000.png", "label": 0, "class": "T-shirt/top", "index": 1},
        **{"seed": 7, "score": 0.5},
    }
    for row in rows:
        with Image.open(tmp_path / "out" / row["file"]) as picture:
            pixels = np.asarray(picture).transpose(2, 0, 1)
        assert (pixels == images[row["index"]].numpy()).all()
    files = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*")}
    assert files == {row["file"] for row in rows} | {"manifest.jsonl"}


def test_a_folder_is_never_overwritten(tmp_path):
    images, labels = noise(2, 1, 4, 4), torch.tensor([0, 1])
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "00000.png").write_text("a photograph of somebody's own")
    with pytest.raises(InputError, match="already holds b; choose a new folder"):
        imaging.save_folder(images, labels, ["a", "b"], tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["b"]
    imaging.save_folder(images, labels, ["c", "d"], tmp_path)
    with pytest.raises(InputError, match=r"already holds manifest\.jsonl"):
        imaging.save_folder(images, labels, ["e", "f"], tmp_path)


def test_folder_refuses_before_it_writes(tmp_path):
    images, labels = noise(2, 1, 4, 4), torch.tensor([0, 1])
    out = tmp_path / "out"
    with pytest.raises(InputError, match="labels are 0 to 1, but the 1 classes"):
        imaging.save_folder(images, labels, ["a"], out)
    with pytest.raises(InputError, match="labels are -1 to 1"):
        imaging.save_folder(images, torch.tensor([1, -1]), ["a", "b"], out)
    with pytest.raises(InputError, match="one an image"):
        imaging.save_folder(images, labels[:1], ["a", "b"], out)
    with pytest.raises(InputError, match="extra has 1 entries for 2"):
        imaging.save_folder(images, labels, ["a", "b"], out, [{}])
    with pytest.raises(InputError, match="extra may not set label"):
        imaging.save_folder(images, labels, ["a", "b"], out, [{"label": 3}, {}])
    assert not out.exists()


def test_npz_has_exactly_the_agreed_keys_and_types(tmp_path):
    images, labels = noise(3, 3, 5, 4), torch.tensor([1, 0, 1], dtype=torch.int32)
    styles = torch.tensor([[0.5, 1], [2, 3], [4, 5]], dtype=torch.float64)
    meta = {"seed": 3, "evaluations": 12, "classes": ["a", "Ü"], "guidance": None}
    names = ["thickness", "slant"]
    path = imaging.save_npz(tmp_path / "s.npz", images, labels, meta, styles, names)
    with zipfile.ZipFile(path) as archive:
        assert set(archive.namelist()) == {f"{key}.npy" for key in imaging.npz.NPZ_KEYS}
    with np.load(path, allow_pickle=False) as file:
        assert (file["images"].dtype, file["images"].shape) == (np.uint8, (3, 3, 5, 4))
        assert (file["labels"].dtype, file["labels"].tolist()) == (np.int64, [1, 0, 1])
        assert (file["styles"].dtype, file["styles"].shape) == (np.float32, (3, 2))
        assert file["style_names"].tolist() == names
        assert json.loads(str(file["meta"])) == meta
    samples = imaging.load_npz(path)
    assert torch.equal(samples.images, images)
    assert torch.equal(samples.labels, labels.long())
    assert torch.equal(samples.styles, styles.float())
    assert (samples.style_names, samples.meta) == (tuple(names), meta)


def test_npz_without_styles(tmp_path):
    path = imaging.save_npz(tmp_path / "s.npz", noise(2, 1, 4, 4), torch.tensor([0, 1]), {})
    samples = imaging.load_npz(path)
    assert (samples.styles.shape, samples.styles.dtype) == ((2, 0), torch.float32)
    assert (samples.style_names, samples.meta) == ((), {})


def test_npz_refuses(tmp_path):
    images, labels = noise(2, 1, 4, 4), torch.tensor([0, 1])
    with pytest.raises(InputError, match="end in .npz"):
        imaging.save_npz(tmp_path / "s.npy", images, labels, {})
    with pytest.raises(InputError, match="labels must be integers"):
        imaging.save_npz(tmp_path / "s.npz", images, labels.float(), {})
    with pytest.raises(InputError, match=r"styles must be \(2, 0\)"):
        imaging.save_npz(tmp_path / "s.npz", images, labels, {}, torch.zeros(2, 1))
    assert not list(tmp_path.iterdir())


def test_an_npz_that_unpacks_to_more_than_anybody_has_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("images.npy", bytes(2**20))
    monkeypatch.setattr("mezzotint.imaging.npz.LARGEST_NPZ", 2**19)
    with pytest.raises(DataError, match="unpacks to"):
        imaging.load_arrays(path)


def test_nothing_pickled_is_loaded(tmp_path):
    np.savez(tmp_path / "x.npz", images=np.array([{"a": 1}], object))
    with pytest.raises(DataError, match="allow_pickle"):
        imaging.load_arrays(tmp_path / "x.npz")


@pytest.mark.parametrize("change", [{"meta": np.array("[1")}, {"labels": np.array(["a", "b"])}])
def test_an_npz_with_other_things_in_it_is_refused(tmp_path, change):
    path = imaging.save_npz(tmp_path / "s.npz", noise(2, 1, 4, 4), torch.tensor([0, 1]), {})
    with np.load(path) as file:
        kept = dict(file)
    np.savez(path, **{**kept, **change})
    with pytest.raises(DataError, match="no samples of ours"):
        imaging.load_npz(path)


def test_load_npz_says_what_is_wrong_with_a_file(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        imaging.load_npz(tmp_path / "none.npz")
    np.savez(tmp_path / "other.npz", images=np.zeros(3), labels=np.zeros(3))
    with pytest.raises(DataError, match="lacks styles, style_names, meta"):
        imaging.load_npz(tmp_path / "other.npz")
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "text.npz").write_text("not an archive")
    path = imaging.save_npz(tmp_path / "s.npz", noise(2, 1, 4, 4), torch.tensor([0, 1]), {})
    (tmp_path / "torn.npz").write_bytes(path.read_bytes()[:200])
    (tmp_path / "empty.npz").touch()
    for name in ("array.npy", "text.npz", "torn.npz", "empty.npz"):
        with pytest.raises(DataError, match="cannot be read as .npz"):
            imaging.load_npz(tmp_path / name)


def test_memory_that_runs_out_is_no_broken_file(tmp_path, monkeypatch):
    path = imaging.save_npz(tmp_path / "s.npz", noise(2, 1, 4, 4), torch.tensor([0, 1]), {})
    for error in (OSError(errno.ENOMEM, "Cannot allocate memory"), MemoryError()):

        def fail(*args, error=error, **options):
            raise error

        monkeypatch.setattr(np, "load", fail)
        with pytest.raises(type(error)) as caught:
            imaging.load_arrays(path)
        assert caught.value is error


@pytest.mark.parametrize("name", ["images", "samples", "x", "arr_0", "whatever"])
@pytest.mark.parametrize(
    "order", ["nchw->nchw", "nchw->nhwc"], ids=["channels first", "channels last"]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_arrays_of_any_program_become_one_layout(tmp_path, name, order, channels):
    images, labels = noise(4, channels, 6, 5), torch.tensor([3, 0, 90, 3])
    np.savez(tmp_path / "a.npz", y=labels.numpy().astype(np.uint8),
             **{name: np.einsum(order, images.numpy())})  # fmt: skip
    found = imaging.load_image_arrays(tmp_path / "a.npz")
    assert torch.equal(found.images, images)
    assert found.images.is_contiguous()
    assert torch.equal(found.labels, labels)
    assert found.styles == {}


def test_arrays_of_ours_keep_their_styles(tmp_path):
    images, labels = noise(2, 1, 4, 4), torch.tensor([1, 0])
    styles = torch.tensor([[0.5, float("nan")], [2, 3]])
    path = imaging.save_npz(tmp_path / "s.npz", images, labels, {}, styles, ["a", "b"])
    found = imaging.load_image_arrays(path)
    assert list(found.styles) == ["a", "b"]
    for column, values in zip(styles.T, found.styles.values(), strict=True):
        assert values.dtype == torch.float64
        assert torch.equal(values.nan_to_num(-1), column.double().nan_to_num(-1))
    wrong = {**np.load(path), "styles": np.zeros((2, 3))}
    np.savez(path, **wrong)
    with pytest.raises(DataError, match=r"styles float64 \(2, 3\) for 2 images and 2 names"):
        imaging.load_image_arrays(path)


def test_shapes_are_said_in_words():
    assert imaging.describe_shape((1, 28, 20)) == "28x20 grey"
    assert imaging.describe_shape(torch.zeros(2, 3, 4, 5).shape[1:]) == "4x5 RGB"
    assert imaging.describe_shape((4, 8, 8)) == "8x8 4 channels"
