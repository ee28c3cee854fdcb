"""`train --from`: a run that begins with another's weights."""

import shutil

import pytest
import tomli_w
import torch

import mezzotint
from mezzotint.config.presets import load_preset
from mezzotint.errors import CheckpointError, InputError
from mezzotint.reporting.reading import read
from mezzotint.runs.run import Run
from mezzotint.runs.setup import TrainRequest, setup
from mezzotint.runs.trainer import Trainer
from mezzotint.training import checkpoint
from tiny_runs import TINY


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "small"
    return mezzotint.train("digits", out=out, size=4, budget="160images", settings=TINY)


def first_record(run, data):
    with Trainer(run, data) as trainer:
        return next(trainer.run())


def started(request):
    """The run, with the checkpoint that is there before the first step."""
    run, data = setup(request)
    first_record(run, data)
    return run


def request(out, base, **more):
    arguments = {"budget": "32images", "settings": TINY, "init_from": base}
    return TrainRequest("digits", out, **{**arguments, **more})


def test_a_run_of_another_size_begins_with_the_averaged_weights(small, tmp_path, logged):
    run = started(request(tmp_path / "run", small.path))
    numbers = sum(value.numel() for value in small.weights()[0].values())
    assert f"starting with {numbers:,} of {numbers:,} weights from {small.path}" in logged
    first = checkpoint.read(run.last)
    average = checkpoint.read(small.last).section("ema")
    assert first.facts["images_seen"] == 0
    for part in ("network", "ema"):
        held = first.section(part)
        assert all(torch.equal(held[name], average[name]) for name in average | held)


def test_what_does_not_fit_begins_at_random_and_is_named(small, tmp_path, logged):
    """Of images with three channels, the first and the last convolution."""
    colours = torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8)
    folder = tmp_path / "colours"
    mezzotint.imaging.save_folder(colours, torch.arange(40) % 10, list("0123456789"), folder)
    request_ = TrainRequest(str(folder), tmp_path / "run", budget="32images", settings=TINY)
    single = started(request_)
    request_ = TrainRequest(
        str(folder), tmp_path / "from", budget="32images", settings=TINY, init_from=small.path
    )
    run = started(request_)
    assert logged[-1].endswith("; random: first.weight, last.2.weight, last.2.bias")
    held, fresh, arguments = (
        checkpoint.read(file).section("network") for file in (run.last, single.last, small.last)
    )
    assert torch.equal(held["first.weight"], fresh["first.weight"])
    assert not torch.equal(held["first.bias"], fresh["first.bias"])
    assert held.keys() == arguments.keys()


def test_it_goes_on_without_the_option_and_not_from_elsewhere(small, tmp_path):
    out = tmp_path / "run"
    mezzotint.train("digits", out=out, budget="32images", settings=TINY, init_from=small.path)
    run = mezzotint.train("digits", out=out, budget="64images", settings=TINY)
    assert run.images_seen() == 64
    assert read(out).subtitle.endswith("started with the weights of small")
    assert Run.at(out).config.origin.init_from == str(small.path.resolve())
    with pytest.raises(
        InputError, match=r"started with .*small, not with .*run: leave out --from"
    ):
        setup(request(out, out))


def test_it_has_the_network_of_the_others_variant(tmp_path, logged):
    """Whatever its own budget, which as a new run would give it another."""
    file = tmp_path / "mine.toml"
    shorter = {"images": 100, "set": ["network.levels=[{width=16}]"]}
    file.write_text(tomli_w.dumps(load_preset("digits") | {"shorter": [shorter]}))

    def trained(name, images, base=None):
        return mezzotint.train(
            "digits",
            out=tmp_path / name,
            preset=str(file),
            budget=f"{images}images",
            settings=["training.batch=32"],
            init_from=base,
        )

    short = trained("short", 32)
    widths = [level.width for level in short.config.network.levels]
    assert widths == [16]
    stays = f"{file} keeps its settings for up to 99 images"
    for name, base, wanted in [
        ("on", short.path, [16]),
        ("short", None, [16]),  # goes on
        ("new", None, [48, 96]),
    ]:
        logged.clear()
        run = trained(name, 128, base)
        assert [level.width for level in run.config.network.levels] == wanted
        assert (stays in logged) is (wanted == [16])


def test_with_its_checkpoints_lost_it_begins_there_again(small, tmp_path):
    out = tmp_path / "run"
    once = mezzotint.train(
        "digits", out=out, budget="32images", settings=TINY, init_from=small.path
    )
    after = checkpoint.read(once.last)
    shutil.rmtree(out / "checkpoints")
    again = mezzotint.train("digits", out=out, budget="32images", settings=TINY)
    found = checkpoint.read(again.last)
    assert all(torch.equal(found.tensors[name], after.tensors[name]) for name in after.tensors)


def test_of_damaged_weights_the_backup_counts_and_that_is_said(small, tmp_path):
    base = Run.at(shutil.copytree(small.path, tmp_path / "base"))
    shutil.copy(base.last, checkpoint.backup_path(base.last))
    base.last.write_bytes(base.last.read_bytes()[:-100])
    run, data = setup(request(tmp_path / "run", base.path))
    assert "going on from last.previous.safetensors" in first_record(run, data).text


@pytest.mark.parametrize(
    ("settings", "base", "kind", "said"),
    [
        (TINY[2:], "small", InputError, r"of this network's [\d,]+ weights have a counterpart"),
        (TINY, "nowhere", CheckpointError, "is no run"),
    ],
)
def test_a_run_that_cannot_be_begun_from_is_refused(small, tmp_path, settings, base, kind, said):
    out = tmp_path / "run"
    request_ = request(out, small.path.with_name(base), settings=settings)
    with pytest.raises(kind, match=said):
        setup(request_)
    assert not out.exists()
