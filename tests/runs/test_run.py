import contextlib
import dataclasses
import errno
import json
import math
import os
import shutil

import pytest
import tomli_w
import torch

import mezzotint
from mezzotint import imaging
from mezzotint.config.presets import load_preset
from mezzotint.config.registry import SAMPLERS
from mezzotint.config.tables import override
from mezzotint.errors import CheckpointError, DivergenceError, InputError, PeerError
from mezzotint.metrics.memorisation import nearest
from mezzotint.runs import facts
from mezzotint.runs.run import CheckpointRef, Run
from mezzotint.runs.setup import TrainRequest, setup
from mezzotint.runs.trainer import ROLL_BACKS, CheckpointInterval, Notice, Previewed, Trainer
from mezzotint.runtime import checksum
from mezzotint.runtime.device import Compute
from mezzotint.runtime.distributed import Ranks
from mezzotint.sampling.model import Model, SampleBatch
from mezzotint.training import Stepped, Stopped, checkpoint

TINY = (
    "network.levels=[{width=8}, {width=8, attention=true}]",
    "network.embedding.width=8",
    "training.batch=16",
    "training.preview_every=64",
    "training.validate_every=64",
    "training.log_every=16",
    "training.model_guidance.max_scale=1",
    "sampling.guidance=1",
)


def records_of(run, data, *every):
    """The records of a training from where the run stands to its end."""
    with Trainer(run, data, *every) as trainer:
        return list(trainer.run())


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "digits"
    return mezzotint.train("digits", out=out, budget="160images", settings=TINY)


@pytest.fixture
def model(trained):
    """With weights that do something: a fresh network's output is zero whatever the label."""
    model = mezzotint.load(trained)
    torch.manual_seed(0)
    for parameter in model.denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def test_a_run_holds_what_it_promises(trained):
    assert sorted(p.name for p in trained.path.iterdir()) == [
        ".lock", "checkpoints", "config.toml", "loss.png", "metrics.jsonl", "samples",
    ]  # fmt: skip
    assert Run.at(trained.path).config == trained.config
    assert trained.images_seen() == 160
    lines = [json.loads(line) for line in trained.metrics.read_text().splitlines()]
    seen = [line["images_seen"] for line in lines if line["kind"] == "step"]
    assert seen == list(range(16, 161, 16))
    assert [line["images_seen"] for line in lines if line["kind"] == "validation"] == [
        64,
        128,
        160,
    ]
    previews = sorted((trained.path / "samples").iterdir())
    assert [p.name for p in previews] == ["000000064.png", "000000128.png"]


def test_the_same_command_again_trains_nothing_and_a_larger_budget_goes_on(tmp_path):
    out = tmp_path / "run"
    for budget, images in (("64images", 64), ("64images", 64), ("128images", 128)):
        run = mezzotint.train("digits", out=out, budget=budget, settings=TINY)
        assert run.images_seen() == images


@pytest.mark.parametrize("draft", [".config.toml.0a1b2c3d.tmp", ".config.toml.new"])
def test_a_run_killed_before_its_first_configuration_was_whole_can_be_begun(draft, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / ".lock").touch()
    (out / draft).write_text("[objec")
    run = mezzotint.train("digits", out=out, budget="16images", settings=TINY)
    assert Run.at(out).config == run.config
    assert (out / draft).exists() == draft.endswith(".new")  # that one has no lock to ask


@pytest.mark.parametrize("name", ["notes.txt", ".notes.txt.0a1b2c3d.tmp", ".config.toml.old"])
def test_a_directory_with_something_else_in_it_is_no_run_killed_at_its_beginning(name, tmp_path):
    (tmp_path / ".lock").touch()
    (tmp_path / name).write_text("")
    with pytest.raises(InputError, match="holds something that is no run"):
        mezzotint.train("digits", out=tmp_path, budget="16images", settings=TINY)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([".lock", name])


def test_a_larger_budget_ends_where_one_run_of_it_would_with_a_constant_learning_rate(tmp_path):
    settings = (*TINY, 'training.lr_schedule={kind="constant"}')
    for out, budgets in (("once", ["128images"]), ("twice", ["64images", "128images"])):
        for budget in budgets:
            mezzotint.train("digits", out=tmp_path / out, budget=budget, settings=settings)
    once, twice = (
        checkpoint.read(tmp_path / name / "checkpoints/last.safetensors")
        for name in ("once", "twice")
    )
    assert all(torch.equal(once.tensors[k], twice.tensors[k]) for k in once.tensors)


def test_a_time_is_turned_into_images_once(tmp_path, monkeypatch):
    monkeypatch.setattr("mezzotint.runs.speed.MEASURED_SECONDS", 0.2)
    request = TrainRequest("digits", tmp_path / "run", budget="2s", settings=TINY)
    run, _ = setup(request)
    assert run.config.machine.images_per_second > 0
    run.write_config()
    again, _ = setup(request)
    assert again.config == run.config
    longer = TrainRequest("digits", tmp_path / "run", budget="4s", settings=TINY)
    run2, _ = setup(longer)
    assert run2.config.machine.images_per_second == run.config.machine.images_per_second
    assert run2.config.machine.images == pytest.approx(2 * run.config.machine.images, abs=16)


def test_a_checkpoint_cut_in_half_falls_back_and_says_so(tmp_path):
    request = TrainRequest("digits", tmp_path / "run", budget="96images", settings=TINY)
    run, data = setup(request)
    records_of(run, data, CheckpointInterval(32, "images"))
    content = run.last.read_bytes()
    run.last.write_bytes(content[: len(content) // 2])
    whole = checkpoint.read(checkpoint.backup_path(run.last)).facts["images_seen"]
    with Trainer(run, data) as trainer:
        records = trainer.run()
        notices = [next(records).text, next(records).text]
        assert "last.previous.safetensors" in notices[0]
        assert notices[1] == f"resumed at {whole} images"
        # The next save must not make the damaged one the backup.
        for file in (run.last, checkpoint.backup_path(run.last)):
            assert checkpoint.read(file).facts["images_seen"] == whole
        list(records)
    assert run.images_seen() == 96


def test_a_checkpoint_with_other_facts_is_refused(tmp_path):
    request = TrainRequest("digits", tmp_path / "run", budget="32images", settings=TINY)
    run, data = setup(request)
    records_of(run, data)
    saved = checkpoint.read(run.last)
    for seen in (None, "32", [32]):
        checkpoint.write(run.last, saved.tensors, {**saved.facts, "images_seen": seen})
        with pytest.raises(CheckpointError, match="how many images"):
            run.model()


def collect(source, into):
    for record in source:
        into.append(record)


def test_weights_that_have_seen_nothing_are_not_drawn_from(tmp_path):
    request = TrainRequest("digits", tmp_path / "run", budget="32images", settings=TINY)
    run, data = setup(request)
    records_of(run, data, CheckpointInterval(1000, "images"))
    run.last.write_bytes(b"")  # the backup is the checkpoint of the very start
    with pytest.raises(CheckpointError, match="seen no image yet"):
        run.model()
    run.model(CheckpointRef(checkpoint="best"))


def test_divergence_rolls_back_with_half_the_learning_rate_and_gives_up_in_the_end(tmp_path):
    settings = (*TINY, "training.learning_rate=1e30", "training.lr_schedule={kind='constant'}")
    request = TrainRequest("digits", tmp_path / "run", budget="1600images", settings=settings)
    run, data = setup(request)
    records = []
    with (
        Trainer(run, data) as trainer,
        pytest.raises(DivergenceError, match="choose a lower training.learning_rate"),
    ):
        collect(trainer.run(), records)
    messages = [r.text for r in records if isinstance(r, Notice) and "rolled back" in r.text]
    assert len(messages) == ROLL_BACKS
    rates = [float(text.rsplit(" ", 1)[1]) for text in messages]
    assert rates == pytest.approx([1e30 / 2**k for k in range(1, ROLL_BACKS + 1)], rel=0.01)
    assert all(v.isfinite().all() for v in checkpoint.read(run.last).section("network").values())


def test_an_interruption_waits_for_a_step_that_can_be_saved(tmp_path, monkeypatch):
    class Requested(contextlib.nullcontext):
        requested = True

    def train(state, *rest):
        for state.nonfinite_run in (1, 0):  # the first is left out
            state.images_seen += 16
            yield Stepped(state.images_seen, 1.0, 1.0, 1.0)
        pytest.fail("went on")

    request = TrainRequest("digits", tmp_path / "run", budget="160images", settings=TINY)
    run, data = setup(request)
    monkeypatch.setattr("mezzotint.runs.trainer.Interrupt", lambda: Requested(Requested()))
    monkeypatch.setattr("mezzotint.runs.trainer.train", train)
    assert records_of(run, data)[-1] == Stopped(32, "interrupted")
    assert run.images_seen() == 32


def test_a_full_disk_in_the_middle_keeps_the_training_going(tmp_path, monkeypatch):
    request = TrainRequest("digits", tmp_path / "run", budget="96images", settings=TINY)
    run, data = setup(request)
    real, calls = checkpoint.write, []

    def full_for_a_while(path, tensors, facts):
        calls.append(facts["images_seen"])
        if 0 < facts["images_seen"] < 90:
            raise OSError(28, "No space left on device")
        real(path, tensors, facts)

    monkeypatch.setattr("mezzotint.training.checkpoint.write", full_for_a_while)
    records = records_of(run, data, CheckpointInterval(16, "images"))
    notices = [r.text for r in records if isinstance(r, Notice)]
    assert any("No space left on device" in text for text in notices)
    assert [r.images_seen for r in records if isinstance(r, Stepped)][-1] == 96
    assert run.images_seen() == 96
    steps = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert [s["images_seen"] for s in steps if s["kind"] == "step"] == list(range(16, 97, 16))


def test_two_processes_do_not_train_in_one_directory(tmp_path):
    fcntl = pytest.importorskip("fcntl")
    request = TrainRequest("digits", tmp_path / "run", budget="32images", settings=TINY)
    run, data = setup(request)
    run.path.mkdir()
    with (run.path / ".lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process"):
            records_of(run, data)


def test_a_place_that_knows_no_locks_is_trained_in_without(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def refuse(handle, how):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    run = mezzotint.train("digits", out=tmp_path / "run", budget="32images", settings=TINY)
    assert run.images_seen() == 32


def test_model_guidance_costs_no_second_evaluation(tmp_path):
    settings = (
        *TINY,
        "training.model_guidance.max_scale=3.0",
        "training.model_guidance.start=0.5",
    )
    run = mezzotint.train("digits", out=tmp_path / "run", budget="64images", settings=settings)
    model = run.model()[0]
    assert model.max_model_guidance == 3
    rows = []
    model.denoiser.network.register_forward_pre_hook(
        lambda m, arguments: rows.append(len(arguments[0]))
    )

    def cost(guidance):
        rows.clear()
        model.sample(n=4, evaluations=1, guidance=guidance)
        return sum(rows) / 4

    assert [cost(g) for g in (0.0, 0.5, 1.0, 2.0, 3.0, 4.0)] == [1, 2, 1, 1, 1, 2]
    # Half of the time in which it is learned has to be over.
    plan = run.plan()
    early = [plan.samples_with_model_guidance(n) for n in (31, 32, 47, 48, 64)]
    assert early == [False, False, False, True, True]
    assert [plan.trains_model_guidance(n) for n in (31, 32)] == [False, True]
    # With a larger budget it is not learned yet: the same scales, at two evaluations.
    longer = TrainRequest("digits", run.path, budget="320images", settings=settings)
    assert setup(longer)[0].model()[0].max_model_guidance == 1


def test_weights_of_another_network_are_refused_in_one_line(trained, tmp_path):
    shutil.copytree(trained.path, tmp_path / "run")
    config = tmp_path / "run" / "config.toml"
    text = checksum.strip_text_checksum(config.read_text()).replace(
        "features = 64", "features = 32"
    )
    config.write_text(checksum.text_with_checksum(text))
    with pytest.raises(CheckpointError, match="draw with the version that trained it"):
        Run.at(tmp_path / "run").model()


def test_a_link_out_of_a_run_is_refused_and_one_within_or_to_it_is_not(trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained.path, run)
    (run / "checkpoints" / "same.safetensors").symlink_to("last.safetensors")
    (tmp_path / "behind").symlink_to(run)
    assert Run.at(tmp_path / "behind").config == trained.config
    (tmp_path / "mine.txt").write_text("mine")
    for place in ("samples/stranger.png", "metrics.jsonl"):
        (run / place).unlink(missing_ok=True)
        (run / place).symlink_to(tmp_path / "mine.txt")
        with pytest.raises(CheckpointError, match="link out of the run"):
            Run.at(run)
        (run / place).unlink()


def test_a_log_that_was_damaged_is_cut_to_what_is_right_and_says_so(tmp_path):
    words = {
        "out": tmp_path / "run",
        "settings": (*TINY, "training.lr_schedule={kind='constant'}"),
    }
    run = mezzotint.train("digits", budget="160images", **words)
    lines = run.metrics.read_text().splitlines(keepends=True)
    run.metrics.write_text(lines[0].replace("16", "17") + "".join(lines[1:-1]) + lines[-1][:9])
    again, data = setup(TrainRequest("digits", **words, budget="320images"))
    notices = [r.text for r in records_of(again, data) if isinstance(r, Notice)]
    assert f"{run.metrics} has lost 2 lines: it was damaged" in notices
    kept = run.metrics.read_text().splitlines(keepends=True)
    assert kept[: len(lines) - 2] == lines[1:-1]


@pytest.fixture
def patient(tmp_path):
    """A preset file that is otherwise from 100 images on, and from 1,000."""
    settings = (*TINY, "training.learning_rate=2e-3")
    text = tomli_w.dumps(override(load_preset("digits"), settings))
    text += '\n[[when]]\nmin_images = 1000\nset = ["training.model_guidance.max_scale=3.0"]\n'
    text += "\n[[when]]\nmin_images = 100\n"
    text += 'set = ["training.model_guidance.max_scale=2.0", "training.learning_rate=1e-4"]\n'
    file = tmp_path / "patient.toml"
    file.write_text(text)
    return str(file)


@pytest.mark.parametrize(
    ("images", "guidance", "rate"), [(99, 1.0, 2e-3), (100, 2.0, 1e-4), (5000, 3.0, 1e-4)]
)
def test_a_preset_has_a_variant_for_the_budget(tmp_path, patient, images, guidance, rate):
    request = TrainRequest("digits", tmp_path / "run", preset=patient, budget=f"{images}images")
    training = setup(request)[0].config.training
    assert (training.model_guidance.max_scale, training.learning_rate) == (guidance, rate)
    own = dataclasses.replace(request, settings=("training.model_guidance.max_scale=1.2",))
    assert setup(own)[0].config.training.model_guidance.max_scale == 1.2


def test_a_run_keeps_the_preset_of_its_first_budget(tmp_path, patient):
    out = tmp_path / "run"
    for budget, wanted in (("32images", 1.0), ("160images", 1.0)):
        run = mezzotint.train("digits", out=out, preset=patient, budget=budget)
        assert run.config.training.model_guidance.max_scale == wanted
    assert run.images_seen() == 160
    other = mezzotint.train("digits", out=tmp_path / "b", preset=patient, budget="112images")
    again = mezzotint.train("digits", out=other.path, preset=patient, budget="1008images")
    assert again.config.training.model_guidance.max_scale == 2.0


def test_more_processes_than_images_of_a_batch_are_refused_before_any_step(
    tmp_path, patient, monkeypatch
):
    measured = []

    def speed(config, data, compute):
        measured.append(config.training.batch)
        return 1000.0

    monkeypatch.setattr("mezzotint.runs.setup.images_per_second", speed)
    monkeypatch.setattr(Ranks, "barrier", lambda ranks: None)
    with open(patient, "a") as file:
        file.write('[[when]]\nmin_images = 500\nset = ["training.batch=8"]\n')
    request = TrainRequest("digits", tmp_path / "run", preset=patient, budget="2s")
    for size, batch, before in ((17, 16, []), (16, 8, [16])):
        monkeypatch.setattr("mezzotint.runs.setup.current_ranks", lambda size=size: Ranks(0, size))
        with pytest.raises(InputError, match=f"{size} processes share batches of {batch} images"):
            setup(request)
        assert measured == before


def test_previews_are_grids_of_every_class(trained):
    from PIL import Image

    size = Image.open(trained.path / "samples" / "000000064.png").size
    grid = imaging.grid(torch.zeros(80, 1, 8, 8, dtype=torch.uint8), 8, scale=2)
    assert size == (grid.shape[2], grid.shape[1])
    assert Previewed(trained.path).path == trained.path


def test_an_image_is_the_same_alone_and_in_any_batch(model):
    together = model.sample(n=20, seed=3).int()
    labels = model.labels(None, 20)
    for i in (0, 7, 19):
        single = model.sample_batch(SampleBatch(labels[i : i + 1], torch.tensor([[3, i]]))).int()
        assert (single - together[i]).abs().max() <= 1
    assert torch.equal(model.sample(n=20, seed=3).int(), together)
    assert not torch.equal(model.sample(n=20, seed=4).int(), together)


def test_chunks_change_at_most_one_grey_level(model, monkeypatch):
    whole = model.sample(n=30).int()
    monkeypatch.setitem(mezzotint.sampling.model.CHUNK_BYTES, "cpu", 8 * 8 * 8 * 32 * 7)
    assert model.chunk() == 7
    assert (model.sample(n=30).int() - whole).abs().max() <= 1


def test_out_of_memory_while_drawing_halves_the_chunk(model):
    def small_memory(module, arguments):
        if len(arguments[0]) > 5:
            raise torch.OutOfMemoryError("out of memory")

    whole = model.sample(n=12).int()
    model.denoiser.network.register_forward_pre_hook(small_memory)
    assert (model.sample(n=12).int() - whole).abs().max() <= 1


@dataclasses.dataclass(frozen=True)
class OneOfTwo(Ranks):
    """The second of two processes, without the first."""

    size: int = 2
    rank: int = 1
    other_failed: bool = False

    def any(self, flag):
        return flag or self.other_failed

    def all_reduce_(self, tensors):
        pass


def as_second(model, **facts):
    compute = dataclasses.replace(model.compute, ranks=OneOfTwo(**facts))
    return dataclasses.replace(model, compute=compute)


def test_pixels_of_another_process_that_are_not_finite_are_its_failure(model):
    assert as_second(model).sample(n=2).shape == (2, 1, 8, 8)
    with pytest.raises(PeerError, match="another process drew"):
        as_second(model, other_failed=True).sample(n=2)


def test_settings_that_cannot_work_are_refused_by_a_process_without_images(model):
    deaf = dataclasses.replace(as_second(model, other_failed=True), droppable=())
    with pytest.raises(InputError, match="training.label_dropout = 0"):
        deaf.sample(n=2, guidance=2.0)


@pytest.mark.parametrize("error", [DivergenceError("no numbers"), PeerError("it says why")])
def test_training_goes_on_without_a_picture_of_pixels_that_are_not_finite(
    error, tmp_path, monkeypatch
):
    def failing(model, *arguments):
        raise error

    monkeypatch.setattr(Model, "sample_batch", failing)
    request = TrainRequest("digits", tmp_path / "run", budget="128images", settings=TINY)
    records = records_of(*setup(request))
    notices = [record.text for record in records if isinstance(record, Notice)]
    assert notices == [f"no preview at {seen} images: {error}" for seen in (64, 128)]


def test_a_bug_in_drawing_ends_the_training(tmp_path, monkeypatch):
    def failing(model, *arguments):
        raise InputError("a bug")

    monkeypatch.setattr(Model, "sample_batch", failing)
    request = TrainRequest("digits", tmp_path / "run", budget="64images", settings=TINY)
    with pytest.raises(InputError, match="a bug"):
        records_of(*setup(request))


def test_guidance_without_null_labels_in_training_is_refused(model):
    deaf = dataclasses.replace(model, droppable=())
    assert torch.equal(deaf.sample(n=2), model.sample(n=2))
    with pytest.raises(InputError, match="training.label_dropout = 0"):
        deaf.sample(n=2, guidance=2.0)


def test_a_run_of_a_device_that_is_not_here_goes_on_on_another(trained, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("CUDA is here")
    machine = trained.config.machine.model_copy(update={"device": "cuda", "precision": "float16"})
    assert machine.on_this_machine().device != "cuda"
    assert trained.config.machine.on_this_machine() == trained.config.machine.compute()


def test_bf16_is_left_where_there_are_no_units_for_it_and_threads_where_there_are_too_many(
    trained, monkeypatch
):
    machine = trained.config.machine.model_copy(update={"precision": "bfloat16", "threads": 4096})
    monkeypatch.setattr(facts, "native_bf16", lambda device: True)
    assert machine.on_this_machine() == Compute(machine.device, "bfloat16", os.cpu_count())
    monkeypatch.setattr(facts, "native_bf16", lambda device: False)
    monkeypatch.setattr(facts, "choose_compute", lambda request_: (request_, "chosen"))
    assert machine.on_this_machine() == (machine.device, "chosen")


def test_a_setting_can_be_taken_back(model):
    narrow = model.changed(interval=(0.1, 1.0))
    assert narrow.sampling.interval == (0.1, 1.0)
    assert narrow.changed(interval=(0, math.inf)).sampling == model.sampling


def test_guidance_one_is_none_and_zero_is_unconditional(model):
    plain = model.sample(n=10)
    assert torch.equal(model.sample(n=10, guidance=1.0), plain)
    free = model.sample(n=10, guidance=0.0)
    other = model.sample(label=3, n=10, guidance=0.0)
    assert torch.equal(free, other)
    assert not torch.equal(free, plain)


def test_without_a_label_the_classes_come_in_equal_shares(model):
    assert model.labels(None, 100).bincount().tolist() == [10] * 10
    assert model.labels("5", 3).tolist() == [5, 5, 5]


@pytest.mark.parametrize("sampler", list(SAMPLERS))
def test_every_sampler_draws_within_its_evaluations(model, sampler):
    calls = []
    model.denoiser.network.register_forward_hook(lambda *a: calls.append(1))
    images = model.sample(n=2, sampler=sampler, evaluations=7)
    assert images.shape == (2, 1, 8, 8)
    assert images.dtype == torch.uint8
    assert len(calls) == 7


def test_unknown_settings_name_the_closest(model):
    with pytest.raises(TypeError, match="evalutions"):
        model.sample(n=1, evalutions=3)
    with pytest.raises(InputError, match="heun"):
        model.sample(n=1, sampler="huen")


def test_raw_and_averaged_weights_differ(trained):
    ema, raw = mezzotint.load(trained), mezzotint.load(trained, weights="raw")
    pairs = zip(ema.denoiser.parameters(), raw.denoiser.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)


def test_nearest_is_the_brute_force_distance():
    g = torch.Generator().manual_seed(0)
    ours = torch.randint(0, 256, (5, 1, 4, 4), generator=g, dtype=torch.uint8)
    theirs = torch.randint(0, 256, (9, 1, 4, 4), generator=g, dtype=torch.uint8)
    theirs[4] = ours[2]
    expected = [
        min(((a.double() - b.double()) ** 2).mean().sqrt().item() for b in theirs) for a in ours
    ]
    got = nearest(ours, theirs)
    assert got.tolist() == pytest.approx(expected, abs=1e-4)
    assert got[2] == 0
    inside = nearest(theirs, theirs, self_excluded=True)
    assert (inside > 0).all()


@pytest.mark.slow
def test_digits_trained_for_half_a_minute_are_recognised(tmp_path):
    """A classifier of another make, trained on real digits, reads most of what we draw."""
    from sklearn.svm import SVC

    from mezzotint.data import load

    run = mezzotint.train("digits", out=tmp_path / "run", budget="30000images")
    data = load("digits")
    images, labels = data.split("train")
    reader = SVC(gamma=0.001 / 256).fit(images.flatten(1).numpy() * 1.0, labels.numpy())
    held, truth = data.split("test")
    assert reader.score(held.flatten(1).numpy() * 1.0, truth.numpy()) > 0.95
    model = mezzotint.load(run)
    drawn = model.sample(n=300)
    accuracy = reader.score(drawn.flatten(1).numpy() * 1.0, model.labels(None, 300).numpy())
    assert accuracy > 0.8
    assert len(drawn.flatten(1).unique(dim=0)) == 300
    assert nearest(drawn, images).min() > 0
