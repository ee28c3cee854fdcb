"""What a trainer holds in its block is released at the block's end, wherever the loop stopped."""

import contextlib
import gc
import signal
import subprocess
import sys
import threading

import pytest
import torch

from mezzotint.errors import InputError
from mezzotint.runs.setup import TrainRequest, setup
from mezzotint.runs.trainer import CheckpointInterval, Trainer
from mezzotint.training import Stepped, Stopped
from tiny_runs import TINY

SIGNALS = (signal.SIGINT, signal.SIGTERM)

LOCK = """
import fcntl, sys
with open(sys.argv[1], "w") as file:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
"""


def can_lock(run):
    """Whether another process gets the lock of a run's directory."""
    pytest.importorskip("fcntl")
    command = [sys.executable, "-c", LOCK, str(run.path / ".lock")]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def count_in_a_new_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return found[0]


def held():
    """The process-wide state that a trainer takes over."""
    handlers = [signal.getsignal(number) for number in SIGNALS]
    return handlers, torch.get_num_threads(), count_in_a_new_thread()


@pytest.fixture
def counted():
    """A thread count of the process that no run has; afterwards as it was."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def run(tmp_path):
    """A run of 64 images with one thread, and its data."""
    request = TrainRequest("digits", tmp_path / "run", budget="64images", settings=TINY)
    found, data = setup(request)
    machine = found.config.machine.model_copy(update={"threads": 1})
    config = found.config.model_copy(update={"machine": machine})
    return type(found)(found.path, config), data


def first_step(records):
    return next(record for record in records if isinstance(record, Stepped))


def test_within_the_block_lock_handlers_and_thread_count_are_held(counted, run):
    run, data = run
    handlers, *_ = held()
    with Trainer(run, data) as trainer:
        first_step(trainer.run())
        inside, count, _ = held()
        assert count == 1
        assert all(a is not b for a, b in zip(inside, handlers, strict=True))
        assert not can_lock(run)


def test_leaving_early_releases_all_of_it_although_the_loop_is_still_referred_to(counted, run):
    run, data = run
    before = held()
    gc.disable()
    try:
        with Trainer(run, data) as trainer:
            records = trainer.run()
            first_step(records)
        assert held() == before
        assert can_lock(run)
        with pytest.raises(RuntimeError, match="outside of its block"):
            next(records)
    finally:
        gc.enable()


def test_an_exception_in_the_block_releases_all_of_it(counted, run):
    run, data = run
    before = held()

    def breaks():
        with Trainer(run, data) as trainer:
            first_step(trainer.run())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        breaks()
    assert held() == before
    assert can_lock(run)


def test_a_normal_end_releases_all_of_it(counted, run):
    run, data = run
    before = held()
    with Trainer(run, data) as trainer:
        list(trainer.run())
    assert held() == before
    assert can_lock(run)
    assert run.images_seen() == 64


@pytest.mark.parametrize("fails", ["_locked", "Interrupt", "fresh_state"])
def test_a_failure_on_the_way_in_releases_what_was_taken_before(counted, run, monkeypatch, fails):
    run, data = run
    run.path.mkdir()
    before = held()

    def refuse(*arguments):
        raise InputError("not now")

    if fails == "fresh_state":
        monkeypatch.setattr(type(run), fails, refuse)
    else:
        monkeypatch.setattr(f"mezzotint.runs.trainer.{fails}", refuse)
    trainer = Trainer(run, data)
    with pytest.raises(InputError, match="not now"):
        trainer.__enter__()
    assert held() == before
    assert can_lock(run)
    with pytest.raises(RuntimeError, match="outside of its block"):
        next(trainer.run())


def test_a_loop_without_the_block_is_refused_and_writes_nothing(run):
    run, data = run
    with pytest.raises(RuntimeError, match=r"with Trainer\(run, data\) as trainer"):
        next(Trainer(run, data).run())
    assert not run.path.exists()


def test_a_second_trainer_waits_for_the_first_ones_block_and_goes_on_from_its_save(run):
    run, data = run
    with Trainer(run, data, CheckpointInterval(16, "images")) as first:
        first_step(first.run())
        with pytest.raises(InputError, match="another process"), Trainer(run, data):
            pass
    with Trainer(run, data) as second:
        assert "resumed at 16 images" in next(second.run()).text


@pytest.fixture
def keyboard_interrupt():
    """Python's handler of SIGINT, which a shell leaves out of a process in the background."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


def test_the_first_signal_asks_and_is_saved_and_the_former_handler_hears_the_next(
    run, keyboard_interrupt
):
    run, data = run
    records = []
    with Trainer(run, data) as trainer:
        for record in trainer.run():
            records.append(record)
            if isinstance(record, Stepped) and record.images_seen == 32:
                signal.raise_signal(signal.SIGINT)
    assert records[-1] == Stopped(32, "interrupted")
    assert run.images_seen() == 32
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_records_asked_for_by_another_thread_are_computed_with_the_runs_thread_count(counted, run):
    run, data = run
    seen = []
    with Trainer(run, data) as trainer:
        trainer.state.denoiser.network.register_forward_hook(
            lambda *arguments: seen.append(torch.get_num_threads())
        )
        records = trainer.run()
        thread = threading.Thread(target=first_step, args=(records,))
        thread.start()
        thread.join()
    assert set(seen) == {1}


def test_the_training_network_is_never_swapped_or_switched_by_previews_and_metrics(run):
    run, data = run
    settings = {"preview_every": 16, "validate_every": 16, "metrics_every": 32}
    settings |= {"metrics_images": 20, "metrics_share": 1.0}
    training = run.config.training.model_copy(update=settings)
    run = type(run)(run.path, run.config.model_copy(update={"training": training}))
    seen = []
    with contextlib.ExitStack() as stack:
        trainer = stack.enter_context(Trainer(run, data))
        denoiser = trainer.state.denoiser
        network = denoiser.network
        trainer.state.ema.register_forward_hook(
            lambda ema, *arguments: seen.append(
                (
                    denoiser.network is network,
                    all(module.training for module in denoiser.modules()),
                    any(module.training for module in ema.modules()),
                )
            )
        )
        names = {type(record).__name__ for record in trainer.run()}
    assert {"Previewed", "Validated", "MetricsLogged"} <= names
    assert len(seen) > 40
    # Before the first step nothing has set the mode of the denoiser; a fresh module trains.
    assert set(seen) == {(True, True, False)}
