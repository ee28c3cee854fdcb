"""Runs made before Philox: they draw with torch's generators, today and after going on."""

import shutil

import pytest
import torch

import mezzotint
from mezzotint.config import legacy
from mezzotint.errors import InputError
from mezzotint.runs.run import Run
from mezzotint.runs.setup import TrainRequest, setup
from mezzotint.runtime import checksum
from mezzotint.training import checkpoint
from tiny_runs import TINY, trained

LINE = 'noise = "philox"\n'


@pytest.fixture
def old_run(tiny_run, tmp_path):
    """A run whose files do not name a generator."""
    run = Run.at(shutil.copytree(tiny_run.path, tmp_path / "old"))
    text = checksum.strip_text_checksum((run.path / "config.toml").read_text())
    assert LINE in text
    text = text.replace(LINE, "")
    (run.path / "config.toml").write_text(checksum.text_with_checksum(text))
    for file in (run.last, run.best):
        saved = checkpoint.read(file)
        checkpoint.write(file, saved.tensors, {**saved.facts, "config": text})
    return Run.at(run.path)


def test_an_old_run_draws_the_images_it_drew(old_run, tiny_run):
    drawn = mezzotint.load(old_run).sample(n=5, seed=3)
    new = mezzotint.load(tiny_run)
    assert torch.equal(drawn, new.sample(n=5, seed=3, noise="torch"))
    assert not torch.equal(drawn, new.sample(n=5, seed=3))


def test_the_copy_in_a_checkpoint_does_not_name_it_either(old_run, logged):
    (old_run.path / "config.toml").unlink()
    assert Run.at(old_run.path).config.sampling.noise == "torch"
    assert "the copy in" in logged[0]


def test_a_table_without_sampling_is_an_old_runs(old_run):
    table = {name: getattr(old_run.config, name) for name in type(old_run.config).model_fields}
    del table["sampling"]
    assert legacy.current_run(table)["sampling"]["noise"] == "torch"


def test_an_old_run_goes_on_with_todays_command_and_keeps_its_generator(old_run):
    run = trained(old_run.path, budget="96images")
    assert run.images_seen() == 96
    assert Run.at(old_run.path).config.sampling.noise == "torch"
    assert 'noise = "torch"' in (old_run.path / "config.toml").read_text()


def test_another_generator_for_a_run_that_is_there_is_refused(old_run, tiny_run, tmp_path):
    new = shutil.copytree(tiny_run.path, tmp_path / "new")
    for path, own, other in ((old_run.path, "torch", "philox"), (new, "philox", "torch")):
        request = TrainRequest(
            "digits", path, budget="96images", settings=(*TINY, f"sampling.noise={other}")
        )
        with pytest.raises(InputError, match=f"sampling.noise was {own}, is now {other}"):
            setup(request)


def test_a_new_run_names_philox(tiny_run):
    assert LINE in (tiny_run.path / "config.toml").read_text()
    assert tiny_run.config.sampling.noise == "philox"
