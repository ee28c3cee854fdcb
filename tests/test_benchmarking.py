"""`bench` against counts by hand, torch's own profile summary, and made-up times."""

import itertools

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from mezzotint import benchmarking
from mezzotint.benchmarking import OUTSIDE, REST, STAGES, Work, benchmark, shares
from mezzotint.config.presets import preset_names, usual_source
from mezzotint.data import SOURCES, load
from mezzotint.errors import InputError
from mezzotint.runs import setup, speed
from mezzotint.runs.speed import training_steps, usual_time
from mezzotint.runtime.device import Compute

PIXELS = 8 * 8
TINY = """
[network]
levels = [{{ width = 8, attention = {attention} }}]
embedding = {{ width = 16, features = 6 }}
[training]
budget = "2m"
batch = 4
[sampling]
sampler = "{sampler}"
evaluations = {evaluations}
"""


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Measure a tiny network on 1x8x8 images."""
    monkeypatch.setattr("mezzotint.kernels.precision.has_bf16_units", lambda: False)
    monkeypatch.setitem(benchmarking.PRODUCT, "cpu", 64)

    def measured(attention=False, sampler="ipndm", evaluations=5, more=""):
        file = tmp_path / "digits-tiny.toml"
        settings = {"attention": str(attention).lower(), "sampler": sampler}
        file.write_text(TINY.format(evaluations=evaluations, **settings) + more)
        return benchmark(str(file), device="cpu", seconds=0.1)

    return measured


def conv(arguments, width, side=3):
    return 2 * arguments * width * side**2 * PIXELS


def linear(arguments, width):
    return 2 * arguments * width


def forward(attention):
    """FLOPs of the tiny network for one image, layer by layer."""
    block = 2 * conv(8, 8) + linear(16, 16)
    products = 2 * (2 * PIXELS * PIXELS * 8)  # scores, and the mixture of values
    attend = PIXELS * (linear(8, 24) + linear(8, 8)) + products
    return (
        linear(6, 16) + linear(16, 16)  # the noise level's embedding
        + conv(1, 8)
        + block  # down
        + 2 * block  # middle
        + conv(16, 8) + conv(8, 8) + conv(16, 8, 1) + linear(16, 16)  # up, with its shortcut
        + conv(8, 1)
        + (3 * attend if attention else 0)  # down, middle, up
    )  # fmt: skip


@pytest.mark.parametrize("attention", [False, True])
def test_flops_are_those_counted_by_hand(tiny, attention):
    found = tiny(attention)
    assert found.sampling.flop == forward(attention)
    # Backward is a product for the weights and one for the input, which the image and the sines
    # of the noise level do not need.
    assert found.training.flop == 3 * forward(attention) - conv(1, 8) - linear(6, 16)


def test_a_second_order_step_is_two_evaluations(tiny):
    found = tiny(sampler="heun", evaluations=7)
    assert found.sampling.flop == 2 * forward(False)
    assert (found.steps, found.evaluations) == (4, 7)


@pytest.mark.parametrize(("sampler", "each", "less"), [("ipndm", 1, 0), ("heun", 2, 1)])
def test_evaluations_are_those_of_the_levels_that_are_visited(tiny, sampler, each, less):
    base = "{ kind = 'linear-beta', steps = 10_000 }"  # half of whose levels are without signal
    more = f"schedule = {{ kind = 'zero-terminal', base = {base} }}"
    found = tiny(sampler=sampler, evaluations=40, more=more)
    assert 1 < found.steps < 0.7 * 40 / each
    assert found.evaluations == each * found.steps - less


def test_what_is_measured_hangs_together(tiny):
    found = tiny()
    assert found.shape == (1, 8, 8)
    assert found.compute == Compute("cpu", "float32", torch.get_num_threads())
    assert found.training.images == 4
    assert found.drawn == pytest.approx(found.sampling.speed / 5)
    assert found.trained(120) == pytest.approx(120 * found.training.speed * setup.OVERHEAD)
    assert found.budget.amount == 120
    assert sum(found.profile.values()) == pytest.approx(1)
    assert all(found.profile[part] > 0 for part in STAGES)
    assert found.memory > 2**20


def test_numbers_of_a_work():
    work = Work(images=8, seconds=0.5, repeats=3, flop=1e9)
    assert (work.speed, work.flop_per_second) == (16, 16e9)


def test_an_unknown_preset_or_device_is_refused():
    with pytest.raises(InputError, match="did you mean 'digits'"):
        benchmark("digit")
    with pytest.raises(InputError, match="no device"):
        benchmark("digits", device="gpu")


# --- times ------------------------------------------------------------------------------------


def test_the_median_leaves_the_first_out_and_stops_when_the_time_is_up():
    assert usual_time(iter([99.0, 1.0, 5.0, 2.0, 99.0]), 8.0) == (2.0, 3)
    assert usual_time(iter([99.0, 7.0, 1.0]), 0.1) == (7.0, 1)


def test_the_speed_of_a_budget_is_that_of_the_median_step(monkeypatch):
    times = itertools.chain([99.0], [1.0, 1.0, 2.0, 50.0], itertools.repeat(0.0))
    monkeypatch.setattr(speed, "training_steps", lambda *arguments: times)
    data = benchmarking.noise_images("digits")
    table = setup.override(setup.load_preset("digits"), ["training.model_guidance.max_scale=1"])
    config = setup.parse_config(table, setup.Config)
    assert setup.images_per_second(config, data, Compute()) == pytest.approx(32 / 1.5)


def test_the_speed_of_a_budget_counts_model_guidance_for_its_share(monkeypatch):
    took = {1.0: 1.0, 2.0: 3.0}  # seconds a step, without and with
    monkeypatch.setattr(
        speed,
        "training_steps",
        lambda c, *arguments: itertools.repeat(took[c.training.model_guidance.max_scale]),
    )
    data, table = benchmarking.noise_images("digits"), setup.load_preset("digits")
    for after, step in ((0.25, 2.5), (0.0, 3.0)):
        changes = [
            "training.model_guidance.max_scale=2.0",
            f"training.model_guidance.start={after}",
        ]
        config = setup.parse_config(setup.override(table, changes), setup.Config)
        assert setup.images_per_second(config, data, Compute()) == pytest.approx(32 / step)


def test_training_steps_take_their_time_and_do_not_end():
    config = setup.parse_config(
        setup.override(setup.load_preset("digits"), ["network.levels=[{width=8}]"]), setup.Config
    )
    steps = training_steps(config, benchmarking.noise_images("digits"), Compute())
    assert all(0 < seconds < 60 for seconds in itertools.islice(steps, 5))
    assert next(steps) > 0


# --- the profile ------------------------------------------------------------------------------


def test_an_operator_belongs_to_the_outermost_that_begins_a_part():
    spent = [
        (("aten::conv2d", "aten::convolution", "aten::mkldnn_convolution"), 1.0),
        (("aten::conv2d", "aten::to", "aten::copy_"), 2.0),
        (("ConvolutionBackward0", "aten::convolution_backward", "aten::copy_"), 4.0),
        (("aten::linear", "aten::addmm"), 8.0),
        (("_GroupNorm", "aten::empty"), 16.0),
        (("Optimizer.step#Muon.step", "aten::mm"), 32.0),
        (("aten::add",), 64.0),
    ]
    found = shares(spent, 256.0)
    assert sum(found.values()) == 1
    assert {part: share * 256 for part, share in found.items()} == {
        "convolutions forward": 1,
        "copies and casts": 2,
        "convolutions backward": 4,
        "matrix products and attention": 8,
        "normalisation and activation": 16,
        "optimiser and averages": 32,
        REST: 64,
        OUTSIDE: 129,
    }


def test_operators_that_overlap_leave_no_time_outside():
    found = shares([(("aten::mm",), 3.0), (("aten::add",), 1.0)], 2.0)
    assert found["matrix products and attention"] == 0.75
    assert found[OUTSIDE] == 0
    assert sum(found.values()) == 1


def test_parts_are_what_torch_sums_up_for_the_operators_that_begin_them(monkeypatch):
    monkeypatch.setenv("KINETO_LOG_LEVEL", "6")
    network = torch.nn.Sequential(
        torch.nn.Conv2d(4, 8, 3), torch.nn.GroupNorm(2, 8), torch.nn.SiLU(), torch.nn.Flatten(),
        torch.nn.Linear(8 * 36, 4),
    )  # fmt: skip
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        network(torch.randn(16, 4, 8, 8)).sum().backward()
    events = recorded.events()
    spent = [(benchmarking._callers(event), event.self_cpu_time_total) for event in events]
    whole = sum(time for _, time in spent)
    found = shares(spent, whole)
    # Of an operator, torch sums up the time of all that it calls.
    sums = {each.key: each.cpu_time_total for each in recorded.key_averages()}
    for part, names in {
        "convolutions forward": ["aten::convolution"],
        "convolutions backward": ["aten::convolution_backward"],
        "matrix products and attention": ["aten::addmm", "aten::mm"],
        "normalisation and activation": [
            "aten::group_norm", "aten::native_group_norm_backward",
            "aten::silu", "aten::silu_backward",
        ],
    }.items():  # fmt: skip
        assert found[part] * whole == pytest.approx(sum(sums[name] for name in names), rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["digits", "fashion-mnist"])
def test_little_of_a_step_is_without_a_name(preset):
    assert benchmark(preset, device="cpu", seconds=10.0).profile[REST] < 0.15


# --- images -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "source"),
    [("digits", "digits"), ("mnist-c-residual", "mnist"), ("fashion-a", "fashion-mnist"),
     ("cifar10-d", "cifar10"), ("folder", "mnist"), ("some/where/cifar10-wide.toml", "cifar10")],
)  # fmt: skip
def test_a_preset_tells_the_source_it_is_meant_for(preset, source):
    assert usual_source(preset) == source


def test_images_have_the_shape_of_the_source():
    assert SOURCES["digits"].shape == tuple(load("digits").images.shape[1:])
    for preset in preset_names():
        data = benchmarking.noise_images(usual_source(preset))
        assert tuple(data.images.shape[1:]) == SOURCES[data.name].shape
        # Uniform noise in [-1, 1] has the deviation 1 / sqrt(3).
        assert data.deviation == pytest.approx(3**-0.5, abs=0.01)
