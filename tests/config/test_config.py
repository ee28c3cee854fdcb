"""Configuration: what a preset says, what is refused and in which words."""

import datetime
import subprocess
import sys
import tomllib
from typing import get_type_hints

import pytest
import tomli_w
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mezzotint.config.build import build_denoiser
from mezzotint.config.presets import load_preset, preset_names, preset_summary, preset_variant
from mezzotint.config.registry import SAMPLERS, SCHEDULES, sampler_table
from mezzotint.config.schema import Budget, Config, Objective, Sampling, Training
from mezzotint.config.tables import override, parse_config, to_table, with_deviation
from mezzotint.diffusion import (
    Ancestral,
    Condition,
    Edm,
    Eps,
    Heun,
    Ipndm,
    LinearBeta,
    LogNormal,
    LossWeight,
    Multistep,
    Parameterization,
    Sampler,
    Schedule,
    refuse_pair,
)
from mezzotint.errors import InputError
from mezzotint.networks import Factor, NetworkSpec, UNet
from mezzotint.networks.blocks import ConvBlock
from mezzotint.networks.summary import summarise
from mezzotint.training.lr import LrSchedule

SHAPES = {"digits": (1, 8, 8), "cifar10": (3, 32, 32), "cifar10-d": (3, 32, 32)}


def preset(name, *changes):
    return parse_config(override(load_preset(name), changes), Config)


def refusal(work, *arguments):
    """The one line that a mistake is answered with."""
    with pytest.raises(InputError) as error:
        work(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def flat(table, prefix=""):
    if not isinstance(table, dict):
        return {prefix[:-1]: table}
    return {k: v for key in table for k, v in flat(table[key], f"{prefix}{key}.").items()}


def on_meta(name):
    """The network of a preset without its numbers, and the shape of its images."""
    shape = SHAPES.get(name, (1, 28, 28))
    with torch.device("meta"):
        return UNet(shape[0], [Factor("label", 10)], preset(name).network), shape


# --- presets ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_survives_the_way_through_toml_text(name):
    config = preset(name)
    text = tomli_w.dumps(to_table(config))
    assert parse_config(tomllib.loads(text), Config) == config


@pytest.mark.parametrize("name", preset_names())
def test_what_is_written_of_a_preset_is_at_least_what_it_says(name):
    written = flat(to_table(preset(name)))
    for key, value in flat(load_preset(name)).items():
        if key == "network.levels":
            arguments_ = [written[key][i] | level for i, level in enumerate(value)]
            assert arguments_ == written[key]
        else:
            assert written[key] == value, key


@pytest.mark.parametrize("name", preset_names())
@pytest.mark.parametrize("images", [1, 10**12])
def test_a_preset_for_another_budget_is_one_too(name, images):
    parse_config(load_preset(name, images), Config)
    same, words = preset_variant(name, images)
    assert load_preset(name, same) == load_preset(name, images)
    assert bool(words) is (load_preset(name, images) != load_preset(name))


def test_parts_of_a_preset_apply_on_their_side_of_a_budget(tmp_path):
    file = tmp_path / "mine.toml"
    whens = [
        {"max_images": 9, "set": ["training.batch = 8", "training.ema = 0.05"]},
        {"min_images": 1000, "set": ["training.batch = 64"]},
        {"max_images": 99, "set": ["training.batch = 16"]},
    ]
    file.write_text(tomli_w.dumps(load_preset("digits") | {"when": whens}))
    for images, batch, words in [
        (0, 32, ""),
        (1, 8, "up to 9 images"),
        (9, 8, "up to 9 images"),
        (10, 16, "up to 99 images"),
        (99, 16, "up to 99 images"),
        (100, 32, ""),
        (999, 32, ""),
        (1000, 64, "1,000 images and more"),
    ]:
        table = load_preset(str(file), images)["training"]
        assert (table["batch"], table["ema"]) == (batch, 0.05 if 0 < images < 10 else 0.1)
        assert preset_variant(str(file), images)[1] == words


def test_a_longer_part_that_cannot_be_is_refused(tmp_path):
    file = tmp_path / "mine.toml"
    for when, words in (
        ({"min_image": 5, "set": []}, "did you mean 'min_images'"),
        ({"set": []}, "takes max_images or min_images"),
        ({"min_images": 5, "max_images": 9, "set": []}, "one of them"),
    ):
        file.write_text(tomli_w.dumps(load_preset("digits") | {"when": [when]}))
        assert words in refusal(load_preset, str(file))


@pytest.mark.parametrize("name", preset_names())
def test_the_schedule_and_the_parameterization_of_a_preset_go_together(name):
    objective = preset(name).objective
    refuse_pair(objective.schedule, objective.parameterization)  # raises where they do not


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_opens_with_what_it_measured(name):
    assert "easured" in preset_summary(name)
    assert "#" not in preset_summary(name)


@pytest.mark.parametrize("name", preset_names())
def test_the_network_of_a_preset_gives_images_of_the_shape_it_gets(name):
    network, shape = on_meta(name)
    with torch.device("meta"):
        layers = summarise(network, shape)
        images = torch.zeros(2, *shape)
        assert network(images, torch.zeros(2), Condition()).shape == images.shape
    assert sum(layer.parameters for layer in layers) == sum(
        parameter.numel() for parameter in network.parameters()
    )
    assert 10_000 < sum(layer.parameters for layer in layers) < 50_000_000


def test_the_fashion_experiment_is_as_it_was():
    config = preset("fashion-a")
    schedule, training, network = config.objective.schedule, config.training, config.network
    assert (schedule.steps, schedule.first, schedule.last) == (100, 1e-4, 0.02)
    assert not schedule.rescaled
    assert isinstance(config.objective.parameterization, Eps)
    assert (training.optimizer, training.learning_rate, training.batch) == ("adam", 1e-3, 64)
    assert (training.budget, training.clip > 0) == ("30epochs", True)
    assert (network.conditioned_blocks, network.embedding.factors) == ("bottleneck", "one-hot")
    assert network.embedding.join == "sum"
    assert (network.block.norm, network.block.activation) == ("group", "gelu")
    assert not network.block.residual
    # The product of all 1 - beta, by hand: what is left of the image at the last level.
    left = 1.0
    for k in range(100):
        left *= 1 - (1e-4 + (0.02 - 1e-4) * k / 99)
    assert float(schedule.levels()[-1]) == pytest.approx((1 / left - 1) ** 0.5, rel=1e-12)
    assert left == pytest.approx(0.364, abs=5e-4)


def test_the_fashion_network_tells_only_its_middle():
    network, _ = on_meta("fashion-a")
    messages = {n for n, m in network.named_modules() if isinstance(m, ConvBlock) and m.modulation}
    assert messages == {"middle.0", "middle.2"}


def test_the_corrected_twin_differs_in_the_betas_and_the_start_alone():
    faithful, corrected = (flat(to_table(preset(n))) for n in ("fashion-a", "fashion-a-corrected"))
    assert {key for key in faithful if faithful[key] != corrected[key]} == {
        "objective.schedule.rescaled",
        "sampling.start",
    }
    assert faithful.keys() == corrected.keys()
    assert corrected["objective.schedule.rescaled"]
    sigma = float(preset("fashion-a-corrected").objective.schedule.levels()[-1])
    assert sigma == pytest.approx(221, abs=1)


def test_the_second_fashion_experiment_masks_its_conditions_for_guidance():
    config = preset("fashion-b")
    assert [level.width for level in config.network.levels] == [64, 128, 256]
    assert config.network.conditioned_blocks == "bottleneck"
    assert config.network.block.projection == "conv"
    assert config.objective.schedule.steps == 100
    assert config.training.label_dropout > 0


def test_the_mnist_experiment_and_its_bonus_differ_in_norm_and_residuals_alone():
    plain, bonus = (flat(to_table(preset(n))) for n in ("mnist-c", "mnist-c-residual"))
    assert {key for key in plain if plain[key] != bonus[key]} == {
        "network.block.norm",
        "network.block.residual",
    }
    assert (bonus["network.block.norm"], bonus["network.block.residual"]) == ("batch", True)


def test_the_cifar_experiment_reaches_two_by_two():
    network, shape = on_meta("cifar10-d")
    with torch.device("meta"):
        sizes = {layer.shape[1:] for layer in summarise(network, shape) if len(layer.shape) == 3}
    assert sizes == {(32, 32), (16, 16), (8, 8), (4, 4), (2, 2)}
    config = preset("cifar10-d")
    assert config.network.levels[0].width == 64
    assert (config.training.budget, config.training.batch) == ("50epochs", 32)
    assert config.objective.schedule == LinearBeta(1000, 1e-4, 0.02)
    assert config.training.preview_every == 500 * 32
    assert config.training.validate_every == 40_000


def test_the_second_mnist_experiment_doubles_its_width_three_times():
    config = preset("mnist-e")
    assert [level.width for level in config.network.levels] == [32, 64, 128, 256]
    assert (config.training.budget, config.training.batch) == ("30epochs", 128)
    assert config.network.conditioned_blocks == "bottleneck"


@pytest.mark.parametrize("name", ["digits", "mnist", "fashion-mnist", "cifar10", "folder"])
def test_a_recommended_preset_needs_at_most_a_dozen_evaluations(name):
    config = preset(name)
    assert config.sampling.evaluations <= 12
    assert (
        config.sampling.guidance <= config.training.model_guidance.max_scale
    )  # one evaluation a step
    assert isinstance(config.objective.schedule, LogNormal)
    assert isinstance(config.objective.parameterization, Edm)


def test_a_preset_may_be_a_file_of_ones_own(tmp_path):
    mine = tmp_path / "mine.toml"
    mine.write_text(tomli_w.dumps(override(load_preset("digits"), ["training.batch=7"])))
    assert preset(str(mine)) == preset("digits", "training.batch=7")
    broken = tmp_path / "broken.toml"
    broken.write_text("[training]\nbatch = \n")
    message = refusal(load_preset, str(broken))
    assert "broken.toml" in message
    assert "line 2" in message


# --- mistakes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("trainin.batch=3", ["trainin", "'training'"]),
        ("training.bach=3", ["training.bach", "'batch'"]),
        ("sampling.intervall=3", ["sampling.intervall", "'interval'"]),
        ("network.level=3", ["network.level", "'levels'"]),
        ("network.block.nrm=group", ["network.block.nrm", "'norm'"]),
        ("network.embedding.widt=3", ["network.embedding.widt", "'width'"]),
        ("network.levels=[{widht=3}]", ["network.levels.0.widht", "'width'"]),
        ("network.levels=[{width=8,atention=true}]", ["atention", "'attention'"]),
        ("objective.schedule.stdd=1", ["objective.schedule", "'stdd'", "'std'"]),
        ("objective.schedule.kind=cosin", ["objective.schedule", "'cosin'", "'cosine'"]),
        ("objective.parameterization.kind=edn", ["objective.parameterization", "'edn'", "'edm'"]),
        ("objective.weight.kind=min-snt", ["objective.weight", "'min-snt'", "'min-snr'"]),
        ("training.lr_schedule.kind=plateu", ["training.lr_schedule", "'plateu'", "'plateau'"]),
        ("sampling.schedule.kind=karas", ["sampling.schedule", "'karas'", "'karras'"]),
        ("sampling.sampler=hean", ["sampling.sampler", "'hean'", "'heun'"]),
        ("training.optimizer=adan", ["training.optimizer", "'adan'", "'adam'"]),
        ("network.block.norm=grup", ["network.block.norm", "'grup'", "'group'"]),
        (
            "network.conditioned_blocks=bottlneck",
            ["network.conditioned_blocks", "'bottlneck'", "'bottleneck'"],
        ),
        ("sampling.start=nois", ["sampling.start", "'nois'", "'noise'"]),
    ],
)
def test_what_is_mistyped_is_answered_with_the_closest(setting, words):
    message = refusal(preset, "digits", setting)
    assert all(word in message for word in words), message
    assert "did you mean" in message


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("training.batch=0", ["training.batch = 0", "greater than or equal to 1"]),
        ("training.batch=many", ["training.batch = 'many'", "integer"]),
        ("training.seed=1.5", ["training.seed = 1.5", "integer"]),
        ("training.learning_rate=0", ["training.learning_rate = 0", "greater than 0"]),
        ("training.learning_rate=nan", ["training.learning_rate = nan", "finite"]),
        ("training.ema=0.3", ["training.ema = 0.3", "0.28"]),
        (
            "training.label_dropout=1.1",
            ["training.label_dropout = 1.1", "less than or equal to 1"],
        ),
        (
            "training.model_guidance.max_scale=0.5",
            ["training.model_guidance.max_scale = 0.5", "greater than or equal to 1"],
        ),
        ("training={guidance=2,drop=0}", ["training", "scale 2", "label_dropout = 0", "0.1"]),
        ("sampling.guidance=inf", ["sampling.guidance", "finite"]),
        ("training={guidance=2,batch=3}", ["training", "one image of 4", "batch = 3"]),
        ("network.block={head=0}", ["network.block", "at least 1 channel", "0"]),
        ("training.budget=30", ["training.budget = 30", "string"]),
        ("training=3", ["training = 3", "dictionary"]),
        ("sampling.guidance=-1", ["sampling.guidance = -1", "greater than or equal to 0"]),
        ("sampling.interval=[1]", ["sampling.interval"]),
        ("network.levels=[]", ["network", "at least one level"]),
        ("network.levels=[{width=0}]", ["network", "width"]),
        ("network.levels=[{}]", ["network.levels.0.width", "required"]),
        ("network.embedding.features=7", ["network.embedding", "even", "7"]),
        ("network.skips=maybe", ["network.skips = 'maybe'", "boolean"]),
        ("objective.schedule=3", ["objective.schedule", "table", "got 3"]),
        ("objective.parameterization=edm", ["objective.parameterization", "table", "'edm'"]),
        ("sampling.schedule=3", ["sampling.schedule", "table", "got 3"]),
        ("objective.schedule.std=-1", ["objective.schedule", "LogNormal needs std > 0", "-1"]),
        ("objective.schedule.std=wide", ["objective.schedule.std = 'wide'", "number"]),
        ("objective.schedule={mean=1}", ["objective.schedule", "unknown schedule ''"]),
        ("objective.parameterization={kind='eps',std=1}", ["'eps'", "'std'", "takes none"]),
        (
            "objective.schedule={kind='zero-terminal',base={kind='karras'}}",
            ["objective.schedule.base"],
        ),
        (
            "objective.schedule={kind='zero-terminal',base={kind='linear-beta',stepz=9}}",
            ["objective.schedule", "'stepz'", "'steps'"],
        ),
    ],
)
def test_a_bad_value_is_answered_with_its_place_and_what_is_allowed(setting, words):
    message = refusal(preset, "digits", setting)
    assert all(word in message for word in words), message


@pytest.mark.parametrize("kind", SCHEDULES)
def test_every_schedule_can_be_asked_for_and_written_down(kind):
    base = {"zero-terminal": "linear-beta", "learned": "log-normal"}.get(kind)
    table = {"kind": kind} | ({"base": {"kind": base}} if base else {})
    config = parse_config(load_preset("digits") | {"objective": {"schedule": table}}, Config)
    assert isinstance(config.objective.schedule, SCHEDULES[kind])
    assert parse_config(tomllib.loads(tomli_w.dumps(to_table(config))), Config) == config


def test_a_best_checkpoint_by_a_metric_needs_that_metric():
    assert "set training.metrics_every" in refusal(preset, "digits", "training.best=kd")
    preset("digits", "training.best=kd", "training.metrics_every=1000")
    message = refusal(preset, "digits", "training.best=coverag")
    assert "training.best: 'coverag' is not measured in training" in message
    assert "did you mean 'coverage'? (known: accuracy, coverage, fd, kd, loss)" in message


def test_a_missing_network_is_said():
    assert "network: field required" in refusal(parse_config, {}, Config)


def test_an_unknown_preset_is_answered_with_the_closest():
    message = refusal(load_preset, "fashon-a")
    assert "'fashon-a'" in message
    assert "did you mean 'fashion-a'" in message
    assert ".toml" in message


def test_an_unknown_sampler_is_answered_with_the_closest():
    assert "did you mean 'heun'" in refusal(SAMPLERS.resolve, "hevn")


def sampler(value):
    return parse_config({"sampler": value}, Sampling).sampler


def test_a_sampler_has_the_fields_of_its_name():
    assert sampler("heun") == Heun()
    assert sampler("ddim") == Ancestral(0.0)
    assert sampler("ddpm") == Ancestral(1.0)
    assert sampler("dpm++2m-sde") == Ancestral(1.0, order=2)
    assert sampler("dpm++3m") == Multistep(3)
    assert Sampling().sampler == sampler("ipndm") == Ipndm(4)


def test_a_sampler_table_changes_fields_of_its_name():
    assert sampler({"kind": "ddim", "eta": 0.5}) == Ancestral(0.5)
    assert sampler('{kind = "ddim", eta = 0.5}') == Ancestral(0.5)
    assert sampler({"kind": "dpm++2m-sde", "eta": 0.5}) == Ancestral(0.5, order=2)
    assert preset("digits", "sampling.sampler={kind='ddim',eta=0.5}").sampling.sampler == (
        Ancestral(0.5)
    )


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"kind": "ddim", "eta": 2.0}, ["sampler", "0 <= eta <= 1", "2.0"]),
        ({"kind": "ddim", "etta": 0.5}, ["sampler", "'etta'", "did you mean 'eta'"]),
        ({"kind": "heun", "eta": 0.5}, ["sampler", "'heun'", "takes none"]),
        ({"kind": "ddim", "eta": "half"}, ["sampler.eta = 'half'", "number"]),
        ({"eta": 0.5}, ["unknown sampler ''"]),
        ('{kind = "ddim"', ["no table", "eta = 0.5"]),
        (3, ["give a table", "got 3"]),
    ],
)
def test_a_bad_sampler_is_answered_with_what_is_allowed(value, words):
    message = refusal(parse_config, {"sampler": value}, Sampling)
    assert all(word in message for word in words), message


def test_a_sampler_is_written_by_its_name_or_with_what_it_changes():
    for name in SAMPLERS:
        assert to_table(Sampling(sampler=name))["sampler"] == name
    assert sampler_table(Ancestral(0.5)) == {"kind": "ddim", "eta": 0.5}
    assert sampler_table(Ancestral(0.5, order=2)) == {"kind": "dpm++2m-sde", "eta": 0.5}
    assert sampler_table(Ipndm(2)) == {"kind": "ipndm", "order": 2}
    for value in ({"kind": "ddim", "eta": 0.25}, {"kind": "dpm++2m", "order": 1}, "ddpm"):
        config = preset("digits").model_copy(update={"sampling": Sampling(sampler=value)})
        table = tomllib.loads(tomli_w.dumps(to_table(config)))
        assert table["sampling"]["sampler"] == value
        assert parse_config(table, Config) == config


def test_a_network_of_the_usual_kind_is_written_without_it():
    assert "kind" not in to_table(preset("digits"))["network"]
    assert preset("digits", "network.kind=unet") == preset("digits")
    message = refusal(preset, "digits", "network.kind=unett")
    assert "network: unknown network 'unett': did you mean 'unet'" in message


def test_the_tables_of_names_are_read_without_torch():
    code = (
        "import sys\nfrom mezzotint.config.registry import NETWORKS, SAMPLERS\n"
        "names = *SAMPLERS, *NETWORKS\n"
        "assert 'ddim' in names and 'unet' in names and 'ddim' in SAMPLERS\n"
        "print([name for name in ('torch', 'pydantic', 'numpy') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.stdout.strip() == "[]", answer.stderr


def test_a_chosen_setting_has_the_type_of_its_kind():
    """So mypy finds a mistyped attribute of one."""
    types = {
        Objective: {
            "schedule": Schedule,
            "parameterization": Parameterization,
            "weight": LossWeight,
        },
        Training: {"lr_schedule": LrSchedule},
        Sampling: {"sampler": Sampler, "schedule": Schedule | None},
        Config: {"network": NetworkSpec},
    }
    for model, expected in types.items():
        assert get_type_hints(model).items() >= expected.items()


@pytest.mark.parametrize("kind", ["eps", "v"])
def test_eps_is_refused_where_no_signal_is_left(kind):
    config = preset(
        "digits",
        "objective.schedule={kind='zero-terminal',base={kind='linear-beta'}}",
        f"objective.parameterization={{kind='{kind}'}}",
    )
    if kind == "v":
        assert build_denoiser(config, 1, 10).parameterization == config.objective.parameterization
        return
    message = refusal(build_denoiser, config, 1, 10)
    assert "zero terminal SNR" in message
    assert "use the v, x0 or edm" in message


def test_a_network_begins_the_same_for_the_same_seed_and_leaves_the_process_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, same = (build_denoiser(preset("digits"), 1, 10) for _ in range(2))
    assert torch.equal(torch.rand(3), expected)
    other = build_denoiser(preset("digits", "training.seed=1"), 1, 10)
    weights = [m.network.first.weight for m in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


# --- settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-3", -3),
        ("1e-3", 1e-3),
        ("0x10", 16),
        ("true", True),
        ('"10m"', "10m"),
        ("'10m'", "10m"),
        ("10m", "10m"),
        ("dpm++2m", "dpm++2m"),
        ("", ""),
        ("a=b", "a=b"),
        ("[1, 2.5]", [1, 2.5]),
        (
            "[{width=8}, {width=16, attention=true}]",
            [{"width": 8}, {"width": 16, "attention": True}],
        ),
        ("{kind='edm', data=0.5}", {"kind": "edm", "data": 0.5}),
        ("2026-01-02", datetime.date(2026, 1, 2)),
        ("12:30:00", datetime.time(12, 30)),
        ("2026-01-02T03:04:05Z", datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)),
    ],
)
def test_a_setting_is_read_as_toml_and_a_bare_word_as_itself(text, value):
    got = override({"a": {"b": 0, "c": 1}}, [f"a.b={text}"])
    assert got == {"a": {"b": value, "c": 1}}
    assert type(got["a"]["b"]) is type(value)


VALUES = st.recursive(
    st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False)
    | st.text(st.characters(blacklist_categories=["Cs", "Cc"])),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)


@given(VALUES)
@settings(max_examples=60, deadline=None)
def test_any_value_that_toml_can_write_arrives(value):
    text = tomli_w.dumps({"v": value}).removeprefix("v = ")
    assert override({}, [f"x.y.z={text}"]) == {"x": {"y": {"z": value}}}


def test_settings_apply_in_order_and_leave_the_table_as_it_was():
    table = {"training": {"batch": 1}, "x": {"y": {"z": 1}}}
    got = override(table, ["training.batch=2", "training.batch=3", "new.key=true", "x.y.z=9"])
    assert got == {"training": {"batch": 3}, "new": {"key": True}, "x": {"y": {"z": 9}}}
    assert table == {"training": {"batch": 1}, "x": {"y": {"z": 1}}}


@pytest.mark.parametrize("setting", ["training.batch", "=3", ""])
def test_a_setting_without_key_or_value_is_answered_with_an_example(setting):
    message = refusal(override, {}, [setting])
    assert "training.batch=64" in message
    assert f"'{setting}'" in message


def test_a_setting_below_a_value_is_refused():
    assert "'batch' is a value" in refusal(
        override, {"training": {"batch": 1}}, ["training.batch.x=3"]
    )


# --- budgets ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [
        ("40s", 40, "seconds"),
        ("10m", 600, "seconds"),
        ("1h", 3600, "seconds"),
        ("1.5h", 5400, "seconds"),
        (".5m", 30, "seconds"),
        (" 2h ", 7200, "seconds"),
        ("30epochs", 30, "epochs"),
        ("1epoch", 1, "epochs"),
        ("0.25epochs", 0.25, "epochs"),
        ("20000images", 20_000, "images"),
        ("1image", 1, "images"),
        ("20kimages", 20_000, "images"),
        ("5Mimages", 5_000_000, "images"),
    ],
)
def test_a_budget_is_read(text, amount, unit):
    assert Budget.parse(text) == Budget(amount, unit)


@pytest.mark.parametrize(
    "text",
    ["10x", "0s", "0.0h", "-3m", "", "epochs", "10", "10 m", "1e3s", "5mimages", "1m30s", "10M",
     "nans", "infs", "1.2.3s", "٣s"],
)  # fmt: skip
def test_a_bad_budget_is_answered_with_good_ones(text):
    message = refusal(Budget.parse, text)
    assert f"'{text}'" in message
    assert all(word in message for word in ("40s", "10m", "30epochs", "5Mimages"))


# --- measured deviation -----------------------------------------------------------------------


def test_a_measured_deviation_fills_what_is_missing():
    table = {"objective": {"parameterization": {"kind": "edm"}, "weight": {"kind": "edm"}}}
    assert with_deviation(table, 0.62) == {
        "objective": {
            "parameterization": {"kind": "edm", "sigma_data": 0.62},
            "weight": {"kind": "edm", "sigma_data": 0.62},
        }
    }
    assert table == {"objective": {"parameterization": {"kind": "edm"}, "weight": {"kind": "edm"}}}


def test_a_measured_deviation_reaches_the_default_parameterization():
    network = {"network": {"levels": [{"width": 8}]}}
    config = parse_config(with_deviation(network, 0.62), Config)
    assert config.objective.parameterization == Edm(0.62)


@pytest.mark.parametrize(
    "objective",
    [
        {"parameterization": {"kind": "edm", "sigma_data": 0.3}, "weight": {"kind": "uniform"}},
        {"parameterization": {"kind": "eps"}, "weight": {"kind": "min-snr"}},
        {"parameterization": {"kind": "v"}},
    ],
)
def test_a_measured_deviation_changes_nothing_that_was_said(objective):
    assert with_deviation({"objective": objective, "x": 1}, 0.62) == {
        "objective": objective,
        "x": 1,
    }


def test_a_preset_of_ones_own_that_is_no_text_or_no_table_is_refused(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_bytes(b"\x86\x8b = 3")
    assert "mine.toml is not valid TOML" in refusal(load_preset, str(file))
    file.write_text("a = " + "[" * 5000)
    assert "mine.toml is not valid TOML" in refusal(load_preset, str(file))
    for side in ("when", "shorter", "longer"):
        file.write_text(f"{side} = 3")
        assert "when is a list of tables" in refusal(load_preset, str(file))
