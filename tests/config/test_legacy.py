"""What earlier versions wrote keeps working.

Settings, presets, checkpoints, evaluations, options and keywords are tested.

`old_presets.json` holds the presets of commit 80fc92d as tables. `old_run` is a run that 80fc92d
made: digits of 8 x 8 pixels with thickness, 7,097 parameters. Its images.npz is what 80fc92d drew.
`old_evaluation.json` is what 80fc92d evaluated of it.
"""

import json
import shutil
import tomllib
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import mezzotint
from mezzotint.cli.main import main
from mezzotint.config import legacy
from mezzotint.config.presets import load_preset
from mezzotint.config.registry import PARAMETERIZATIONS, SCHEDULES, WEIGHTS
from mezzotint.config.schema import Config
from mezzotint.config.tables import flatten, override, parse_config, to_table
from mezzotint.errors import DataError, InputError
from mezzotint.evaluation.results import add_section, differing, evaluation_of, keep
from mezzotint.runs.run import CheckpointRef, Run
from mezzotint.runtime.checksum import is_valid, strip_checksum, with_checksum

HERE = Path(__file__).parent
OLD_PRESETS = json.loads((HERE / "old_presets.json").read_text())
OLD_EVALUATION = json.loads((HERE / "old_evaluation.json").read_text())
OLD_SWEEP = {
    "subject": {"kind": "run", "ladder": {"kind": "karras", "low": 0.02, "high": 20.0}, "n": 150},
    "protocol": {"split": "validation"},
    "sentences": ["Guidance helps."],
}
IMAGES = np.load(HERE / "old_run" / "images.npz")


def leaves(table, prefix=""):
    """`a.b=value` of all that is no table; tables with a kind as a whole, as their keys change."""
    for key, value in table.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from leaves(value, f"{path}.")
        else:
            yield f"{path}={json.dumps(value) if not isinstance(value, list) else inline(value)}"


def inline(value):
    """A value as TOML writes it within a line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {inline(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(inline, value)) + "]"
    return json.dumps(value)


def tables(table):
    return {k: v for k, v in table.items() if k not in ("shorter", "longer")}


def recipe(table):
    return to_table(parse_config(table, Config))


@pytest.mark.parametrize("name", OLD_PRESETS)
def test_every_key_of_every_old_preset_is_taken_by_set_and_gives_the_preset_of_today(name):
    new = load_preset(name)
    settings = list(leaves(tables(OLD_PRESETS[name])))
    assert len(settings) >= 15
    for setting in settings:
        assert recipe(override(new, [setting])) == recipe(new), setting
    assert recipe(override(new, settings)) == recipe(new)


@pytest.mark.parametrize("name", OLD_PRESETS)
def test_every_table_of_every_old_preset_is_taken_as_a_whole(name):
    new = load_preset(name)
    for key, value in tables(OLD_PRESETS[name]).items():
        assert recipe(override(new, [f"{key}={inline(value)}"])) == recipe(new)
        for inner, table in value.items():
            if isinstance(table, dict):
                setting = f"{key}.{inner}={inline(table)}"
                assert recipe(override(new, [setting])) == recipe(new), setting


@pytest.mark.parametrize("name", OLD_PRESETS)
def test_an_old_preset_file_is_the_preset_of_today_at_every_budget(name, tmp_path):
    file = tmp_path / "old.toml"
    lines = [f"{key} = {inline(value)}\n" for key, value in OLD_PRESETS[name].items()]
    file.write_text("".join(lines))
    bounds = [
        variant["images"] + near
        for side in ("shorter", "longer")
        for variant in OLD_PRESETS[name].get(side, [])
        for near in (-1, 0, 1)
    ]
    for images in (0, 1, 10**9, *bounds):
        assert recipe(load_preset(str(file), images)) == recipe(load_preset(name, images)), images


def test_every_old_path_leads_to_a_setting():
    """Else a translation would end in a key that no one knows."""
    known = set(flatten(to_table(Run.at(HERE / "old_run").config)))
    known |= {path for name in OLD_PRESETS for path in flatten(recipe(load_preset(name)))}
    for place, registry in (
        ("objective.schedule", SCHEDULES), ("objective.schedule.base", SCHEDULES),
        ("sampling.schedule", SCHEDULES), ("sampling.schedule.base", SCHEDULES),
        ("objective.parameterization", PARAMETERIZATIONS), ("objective.weight", WEIGHTS),
    ):  # fmt: skip
        known |= {f"{place}.{name}" for c in registry.values() for name in c.__dataclass_fields__}
    known |= {"origin.init_from", "origin.variant_budget"}
    for old in legacy.KEYS:
        new = legacy.current_path(old)
        assert any(f"{path}.".startswith(f"{new}.") for path in known), (old, new)
        assert legacy.current_path(new) == new


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["training.drop=0.3", "training.label_dropout=0.2"], 0.2),
        (["training.label_dropout=0.2", "training.drop=0.3"], 0.3),
    ],
)
def test_of_an_old_and_a_new_setting_the_later_wins(settings, expected):
    assert override({}, settings)["training"] == {"label_dropout": expected}
    table = {"training": {s.split("=")[0].split(".")[1]: float(s.split("=")[1]) for s in settings}}
    assert legacy.current_table(table)["training"] == {"label_dropout": expected}


def test_an_old_setting_on_a_table_of_another_kind_is_refused_in_the_words_of_today():
    with pytest.raises(InputError, match="sigma_min"):
        parse_config(override(load_preset("cifar10-d"), ["objective.schedule.low=0.1"]), Config)


def test_old_options_of_the_command_line_are_taken():
    old = ["tune", "runs/a", "--judge-every", "3", "--judged=20", "--prompt", "--judged"]
    assert legacy.current_options(old)[2:5] == ["--check-every", "3", "--check-images=20"]
    assert legacy.current_options(["sample", "--judged"]) == ["sample", "--judged"]


def test_old_keywords_are_taken_with_a_warning(tmp_path):
    @legacy.renamed_keywords(old="new")
    def function(first, *, new=1):
        return first, new

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert function(0, new=2) == (0, 2)
    with pytest.warns(DeprecationWarning, match=r"function\(old=\) is called new= now"):
        assert function(0, old=3) == (0, 3)
    with pytest.warns(DeprecationWarning, match="new="):
        assert function(0, old=3, new=4) == (0, 4)
    with pytest.warns(DeprecationWarning, match="new="):
        assert function(0, **{"new": 4, "old": 3}) == (0, 3)
    with pytest.warns(DeprecationWarning, match="guide_model"):
        mezzotint.load(HERE / "old_run", weak=False)


@pytest.fixture
def old_run(tmp_path):
    shutil.copytree(HERE / "old_run", tmp_path / "old_run")
    return tmp_path / "old_run"


def test_the_old_run_is_small():
    files = [file for file in (HERE / "old_run").rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 300_000
    assert sum(p.numel() for p in weights(HERE / "old_run")) < 10_000


def near(drawn, name):
    """Whether images uint8 (N, C, H, W) are within one grey level of what 80fc92d drew."""
    return np.abs(drawn.numpy().astype(int) - IMAGES[name].astype(int)).max() <= 1


def test_the_old_run_draws_what_it_drew():
    model = mezzotint.load(HERE / "old_run", device="cpu")
    assert near(model.sample(n=10, seed=5, guidance=1), "guidance_1")
    assert near(model.sample(n=10, seed=5), "own")  # within model guidance, without a style
    thick = model.sample(label="3", n=4, seed=5, styles={"thickness": "thick"})
    assert near(thick, "thick")
    ddpm = model.sample(n=4, seed=5, guidance=1, sampler="ddpm", evaluations=6)
    assert near(ddpm, "ddpm")
    raw = mezzotint.load(HERE / "old_run", weights="raw", device="cpu")
    assert near(raw.sample(n=4, seed=5, guidance=1), "raw")
    assert not near(model.sample(n=4, seed=5, guidance=1), "raw")  # it can fail


def test_a_call_may_still_say_ladder():
    model = mezzotint.load(HERE / "old_run", device="cpu")
    old = {"kind": "karras", "low": 0.05, "high": 10.0}
    new = {"kind": "karras", "sigma_min": 0.05, "sigma_max": 10.0}
    ours, theirs = (model.sample(n=2, **{k: v}) for k, v in
                    (("schedule", new), ("ladder", old)))  # fmt: skip
    assert torch.equal(ours, theirs)
    assert not torch.equal(ours, model.sample(n=2))


def weights(run):
    return [p.detach() for p in mezzotint.load(run, device="cpu").denoiser.parameters()]


def train(out, budget, **more):
    """Train with the settings of the old run, as its config.toml writes them."""
    table = tomllib.loads((HERE / "old_run" / "config.toml").read_text())
    settings = [*leaves({key: table[key] for key in ("objective", "network", "training")})]
    settings += [*leaves({"sampling": table["sampling"]}), *more.pop("settings", [])]
    return mezzotint.train(
        "digits", limit=300, styles=["thickness"], out=out, budget=budget, device="cpu",
        settings=settings, **more,
    )  # fmt: skip


def test_the_old_run_resumes_with_its_optimizer(old_run):
    before = weights(old_run)
    run = train(old_run, "2160images")
    moved = [float((a - b).abs().max()) for a, b in zip(before, weights(run.path), strict=True)]
    assert 0 < max(moved) < 0.5
    records = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert max(record["images_seen"] for record in records) == 2160


def test_the_old_run_can_be_started_from(old_run, tmp_path):
    slow = ["training.learning_rate=1e-30"]
    run = train(tmp_path / "new", "16images", init_from=old_run, settings=slow)
    for a, b in zip(weights(run.path), weights(old_run), strict=True):
        torch.testing.assert_close(a, b)


def test_the_command_line_draws_from_the_old_run(old_run, tmp_path):
    with pytest.raises(SystemExit) as ending:
        main(["sample", str(old_run), "--n", "2", "--out", str(tmp_path / "grid.png")])
    assert ending.value.code == 0
    assert (tmp_path / "grid.png").exists()


def renamed(table):
    """An evaluation or a sweep of 80fc92d with the keys of today, renamed as text."""
    found = strip_checksum(table)
    if "difficulty" in found:
        text = json.dumps(found["difficulty"]).replace('"verdict": ', '"outcome": ')
        found["difficulty"] = json.loads(text)
    text = json.dumps(found)
    for old, new in (("subject", "samples"), ("verdict", "summary"), ("ladder", "schedule"),
                     ("low", "sigma_min"), ("high", "sigma_max")):  # fmt: skip
        text = text.replace(f'"{old}": ', f'"{new}": ')
    return json.loads(text)


def test_an_old_evaluation_is_read_with_the_keys_of_today():
    found = evaluation_of(HERE / "old_evaluation.json")
    assert is_valid(OLD_EVALUATION)
    assert "check" in OLD_EVALUATION
    assert found == renamed(OLD_EVALUATION)
    assert list(found) == list(renamed(OLD_EVALUATION))
    assert found["samples"]["schedule"]["sigma_max"] == 20.0
    assert found["summary"] == OLD_EVALUATION["verdict"]
    for name in ("pixels", "features"):
        assert found["memorisation"][name]["summary"].startswith("no sign")
    assert {row["outcome"] for row in found["difficulty"]["answers"]} == {
        row["verdict"] for row in OLD_EVALUATION["difficulty"]["answers"]
    }
    assert legacy.current_evaluation(found) == found


@pytest.mark.parametrize(
    "edited",
    [
        {**OLD_EVALUATION, "verdict": ["Perfect."]},
        {**renamed(OLD_EVALUATION), "check": OLD_EVALUATION["check"]},
    ],
    ids=["another sentence", "the keys alone"],
)
def test_the_checksum_of_an_old_evaluation_is_that_of_the_file_as_written(edited, old_run):
    (old_run / "evaluation.json").write_text(json.dumps(edited))
    with pytest.raises(DataError, match="damaged, or was edited"):
        evaluation_of(old_run)
    assert "evaluation.json is damaged, or was edited: it is left out" in page_of(old_run)


def page_of(run):
    with pytest.raises(SystemExit) as ending:
        main(["report", str(run), "--overwrite"])
    assert ending.value.code == 0
    return (run / "report.html").read_text()


def test_the_page_of_an_old_evaluation_is_that_of_a_new_one(old_run):
    for file, table in (("evaluation.json", OLD_EVALUATION), ("sweep.json", OLD_SWEEP)):
        (old_run / file).write_text(json.dumps(with_checksum(table)))
    old = page_of(old_run)
    for file, table in (("evaluation.json", OLD_EVALUATION), ("sweep.json", OLD_SWEEP)):
        (old_run / file).write_text(json.dumps(with_checksum(renamed(table))))
    assert page_of(old_run) == old
    for words in (OLD_EVALUATION["verdict"][0], "e8e9494548dfe322", "outcome", "What was drawn"):
        assert words in old
    assert "it is left out" not in old


def test_an_old_evaluation_can_be_added_to(tmp_path):
    shutil.copy(HERE / "old_evaluation.json", tmp_path / "evaluation.json")
    assert differing(tmp_path, renamed(OLD_EVALUATION)) == []
    add_section(tmp_path, "selection", {"rows": []})
    written = json.loads((tmp_path / "evaluation.json").read_text())
    assert is_valid(written)
    assert strip_checksum(written) == {**renamed(OLD_EVALUATION), "selection": {"rows": []}}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"subject": 3, "verdict": None}, {"samples": 3, "summary": None}),
        ({"memorisation": ["x", {"verdict": "y"}]}, {"memorisation": ["x", {"summary": "y"}]}),
        ({"memorisation": {"pixels": None}}, {"memorisation": {"pixels": None}}),
        ({"difficulty": {"answers": "x"}}, {"difficulty": {"answers": "x"}}),
        ({"metrics": {"verdict": 1}}, {"metrics": {"verdict": 1}}),  # none of ours
        ({"verdict": 1, "summary": 2}, {"summary": 2}),
        ({"summary": 2, "verdict": 1}, {"summary": 1}),
    ],
)
def test_an_evaluation_of_another_shape_is_translated_as_far_as_it_goes(old, new):
    assert legacy.current_evaluation(old) == new


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("sample RUN --weights network", "sample RUN --weights raw"),
        ("sample RUN --weights=network", "sample RUN --weights=raw"),
        ("evaluate --checkpoint early", "evaluate --checkpoint snapshot"),
        ("sample network --label early", "sample network --label early"),
        ("edit compose checkpoint early", "edit compose checkpoint early"),
    ],
)
def test_choices_of_the_command_line_keep_their_old_names(old, new):
    assert legacy.current_options(old.split()) == new.split()


def test_choices_of_the_library_keep_their_old_names_with_a_warning():
    with pytest.deprecated_call(match='weights="network" is called "raw" now'):
        old = mezzotint.load(HERE / "old_run", weights="network", device="cpu")
    new = mezzotint.load(HERE / "old_run", weights="raw", device="cpu")
    assert torch.equal(old.sample(n=3), new.sample(n=3))
    averaged = mezzotint.load(HERE / "old_run", device="cpu")
    assert not torch.equal(averaged.sample(n=3), new.sample(n=3))
    with pytest.deprecated_call(match='checkpoint="early" is called "snapshot" now'):
        assert CheckpointRef(checkpoint="early") == CheckpointRef(checkpoint="snapshot")
    run = Run.at(HERE / "old_run")
    with pytest.deprecated_call():
        assert not run.has("early")


@pytest.mark.parametrize(
    "draw",
    [
        lambda: mezzotint.load(HERE / "old_run", weights="network", device="cpu"),
        lambda: CheckpointRef("network"),
        lambda: Run.at(HERE / "old_run").images_seen("early"),
    ],
)
def test_the_warning_of_an_old_choice_names_the_line_of_the_caller(draw):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        draw()
    assert [each.filename for each in caught] == [__file__]


def test_the_command_line_draws_the_same_bytes_with_old_and_new_choices(old_run, tmp_path):
    checkpoints = old_run / "checkpoints"
    shutil.copy(checkpoints / "last.safetensors", checkpoints / "early.safetensors")
    drawn = []
    for weights, checkpoint in (("network", "early"), ("raw", "snapshot")):
        out = tmp_path / f"{weights}.npz"
        line = f"--n 2 --weights {weights} --checkpoint={checkpoint} --out {out}"
        with pytest.raises(SystemExit) as ending:
            main(["sample", str(old_run), *line.split()])
        assert ending.value.code == 0
        drawn.append(out.read_bytes())
    assert drawn[0] == drawn[1]


def test_an_old_evaluation_of_raw_weights_joins_with_a_new_one(tmp_path):
    old = strip_checksum(OLD_EVALUATION)
    former = {"weights": "network", "checkpoint": "early", "weak": "a1"}
    old["subject"] = {**old["subject"], **former}
    name, *others = old["metrics"]
    old["metrics"] = {other: old["metrics"][other] for other in others}
    (tmp_path / "evaluation.json").write_text(json.dumps(with_checksum(old)))
    found = renamed(OLD_EVALUATION)
    current = {"weights": "raw", "checkpoint": "snapshot", "guide_model": "a1"}
    metrics = {name: found["metrics"][name]}
    new = {**found, "samples": {**found["samples"], **current}, "metrics": metrics}
    assert differing(tmp_path, new) == []
    joined = keep(tmp_path, new)
    assert joined["metrics"].keys() == found["metrics"].keys()
    other = {**new, "samples": {**new["samples"], "weights": "ema"}}
    assert differing(tmp_path, other) == ["weights"]


def test_the_view_of_an_old_recognition_gets_its_name_of_today():
    old = {
        "reverse": [{"view": "free", "reader": "free"}, {"view": "x"}, 3],
        "sentences": ["free"],
    }
    new = {**old, "reverse": [{"view": "unconditional", "reader": "free"}, {"view": "x"}, 3]}
    assert legacy.current_evaluation({"recognition": old}) == {"recognition": new}
    assert legacy.current_evaluation({"recognition": "free"}) == {"recognition": "free"}


def test_facts_of_samples_get_the_choices_of_today():
    samples = {"weights": "network", "checkpoint": "early", "weak": "a1", "early_images_seen": 3}
    expected = {
        "weights": "raw",
        "checkpoint": "snapshot",
        "guide_model": "a1",
        "snapshot_images_seen": 3,
    }
    for key in ("subject", "samples"):
        assert legacy.current_evaluation({key: samples})["samples"] == expected
