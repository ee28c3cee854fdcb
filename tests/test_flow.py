"""How far a value travels from the command line to the network: at most 10 functions.

The frames are those of a real `mezzotint sample`. Guided denoisers are closures: the label, the
guidance scale and the styles go down to `guide` when it makes one, and on from that closure to the
network when the sampler calls it.
"""

import inspect
import traceback

import pytest

from mezzotint.cli import sample as cli_sample
from mezzotint.cli.main import run
from mezzotint.diffusion import guide
from mezzotint.networks.unet import UNet
from mezzotint.sampling import denoise, noise
from mezzotint.sampling.model import Model
from mezzotint.sampling.request import SampleRequest, SamplingOptions

MOST = 10
COMMAND = "cli/sample.py:sample"
GUIDED = "diffusion/guidance.py:denoise"


def frames():
    """The library's functions on the stack, from the command on."""
    found = [
        f"{frame.filename.split('/mezzotint/')[-1]}:{frame.name}"
        for frame in traceback.extract_stack()
        if "/mezzotint/" in frame.filename
    ]
    return found[found.index(COMMAND) :] if COMMAND in found else []


@pytest.fixture
def stacks(tiny_run, tmp_path, monkeypatch):
    """Function -> its stack at its first call, itself included."""
    found = {}

    def watch(place, name):
        original = getattr(place, name)

        def watched(*arguments, **keywords):
            if name not in found and (stack := frames()):
                found[name] = [*stack, name]
            return original(*arguments, **keywords)

        monkeypatch.setattr(place, name, watched)

    watch(denoise, "guide")
    watch(noise, "image_noise")
    watch(UNet, "forward")
    words = ["--label", "7", "--guidance", "2.5", "--seed", "3", "--evaluations", "3", "--n", "2"]
    assert run(["sample", str(tiny_run.path), *words, "--out", str(tmp_path / "a.png")]) == 0
    return found


def test_guidance_scale_and_label_reach_the_network_in_ten_functions(stacks):
    made = stacks["guide"]
    called = stacks["forward"]
    inner = len(called) - called[::-1].index(GUIDED)  # after the innermost guided denoiser
    closures = called.count(GUIDED)
    path = [*made, *[GUIDED] * closures, *called[inner:]]
    assert len(path) <= MOST, path


def test_the_seed_reaches_the_noise_in_ten_functions(stacks):
    assert len(stacks["image_noise"]) <= MOST, stacks["image_noise"]


def test_a_level_reaches_the_network_in_ten_functions(stacks):
    """`Model.reverse` makes the levels: from there on."""
    called = stacks["forward"]
    path = called[called.index("sampling/model.py:reverse") :]
    assert len(path) <= MOST, path


@pytest.mark.parametrize("name", ["label", "seed", "guidance", "style_guidance"])
def test_a_value_has_one_name_on_its_way(name):
    for function in (cli_sample.sample, Model.sample):
        assert name in inspect.signature(function).parameters
    fields = {**SampleRequest.__dataclass_fields__, **SamplingOptions.__dataclass_fields__}
    assert name in fields
    if "guidance" in name:
        assert name in inspect.signature(guide).parameters
