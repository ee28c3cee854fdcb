"""Threads that draw from one model at once get the bytes that each gets alone."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from mezzotint.runtime.device import Compute, thread_count
from mezzotint.sampling.model import SampleBatch

COUNTS = (1, 2)


@pytest.fixture
def model(tiny_run):
    """With weights that do something, in float32."""
    model = tiny_run.model()[0]
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.denoiser.parameters():
            parameter.normal_(std=0.2, generator=draws)
    return model.changed(evaluations=12)


@pytest.fixture
def three():
    """The process computes with three threads, whatever the machine; afterwards as it was."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def in_a_new_thread(work):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def counts():
    """Of this thread, and of a new one."""
    return torch.get_num_threads(), in_a_new_thread(torch.get_num_threads)


def with_count(model, count):
    return replace(model, compute=replace(model.compute, threads=count))


def together(*works):
    """The results of works that begin at the same moment, each in its own thread."""
    barrier = threading.Barrier(len(works))

    def launch(work):
        barrier.wait()
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        return [future.result() for future in [pool.submit(launch, work) for work in works]]


def test_two_threads_with_other_counts_draw_what_each_draws_alone(three, model):
    drawing = SampleBatch.of(torch.arange(10), seed=4)
    models = [with_count(model, count) for count in COUNTS]
    single = [each.sample_batch(drawing) for each in models]
    for _ in range(3):
        both = together(*(lambda each=each: each.sample_batch(drawing) for each in models))
        for ours, expected in zip(both, single, strict=True):
            assert torch.equal(ours, expected)
        assert counts() == (3, 3)


def test_every_evaluation_has_its_own_threads_count_when_two_samplers_alternate(three, model):
    """The samplers go in lock step, so that one is always within the other's evaluation."""
    inside, seen = threading.Barrier(2), []

    def watched(count):
        def wrap(denoise, labels):
            def watch(x, sigma):
                inside.wait()  # the other thread has set its count as well
                seen.append((count, torch.get_num_threads()))
                x0 = denoise(x, sigma)
                inside.wait()
                seen.append((count, torch.get_num_threads()))
                return x0

            return watch

        return replace(with_count(model, count), denoise_wrapper=wrap)

    drawing = SampleBatch.of(torch.arange(4), seed=1)
    models = [watched(count) for count in COUNTS]
    both = together(*(lambda each=each: each.sample_batch(drawing) for each in models))
    assert len(seen) == 2 * 2 * 12
    assert all(count == own for count, own in seen)
    assert torch.equal(both[0], with_count(model, COUNTS[0]).sample_batch(drawing))
    assert counts() == (3, 3)


def test_a_sampler_dropped_half_way_or_broken_leaves_the_other_and_the_process_alone(three, model):
    drawing = SampleBatch.of(torch.arange(6), seed=2)
    whole, other = (with_count(model, count) for count in COUNTS)
    expected = whole.sample_batch(drawing)

    def stop_early():
        process = other.iterate(drawing)
        for _ in range(5):
            next(process)
        return torch.get_num_threads()  # the sampler is dropped on the way out

    def breaks():
        calls = []

        def wrap(denoise, labels):
            def failing(x, sigma):
                calls.append(1)
                if len(calls) == 5:
                    raise ZeroDivisionError
                return denoise(x, sigma)

            return failing

        with pytest.raises(ZeroDivisionError):
            replace(other, denoise_wrapper=wrap).sample_batch(drawing)
        return torch.get_num_threads()

    images, *after = together(lambda: whole.sample_batch(drawing), stop_early, breaks)
    assert torch.equal(images, expected)
    assert after == [3, 3]
    assert counts() == (3, 3)


def test_counts_that_overlap_in_two_threads_are_put_back_in_any_order(three):
    """The thread that began first ends first: what it saved must not outlive the other."""
    began, ended = threading.Event(), threading.Event()

    def first():
        with Compute(threads=1).active():
            began.set()
            assert ended.wait(10)
            inside = torch.get_num_threads()
        return inside, torch.get_num_threads()

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(first)
        assert began.wait(10)
        assert counts() == (3, 3)  # neither this thread nor a new one has the other's
        with Compute(threads=2).active():
            ended.set()
            assert future.result() == (1, 3)
            assert counts() == (2, 3)
    assert counts() == (3, 3)


def test_nested_counts_are_put_back_one_by_one_also_after_an_error(three):
    def breaks():
        with thread_count(1), thread_count(4):
            assert counts() == (4, 3)
            raise ZeroDivisionError

    with thread_count(2):
        with pytest.raises(ZeroDivisionError):
            breaks()
        assert counts() == (2, 3)
    assert counts() == (3, 3)


def test_the_default_of_new_threads_stays_where_this_threads_count_is_another(three):
    """The default is read in a new thread, not taken for the count of the caller."""
    in_a_new_thread(lambda: torch.set_num_threads(2))
    assert counts() == (3, 2)
    with thread_count(1):
        assert counts() == (1, 2)
    assert counts() == (3, 2)


def test_many_threads_at_once_leave_nothing_behind(three):
    def busy(own):
        for _ in range(20):
            with thread_count(own):
                assert torch.get_num_threads() == own
                with thread_count(own + 1):
                    assert torch.get_num_threads() == own + 1
                assert torch.get_num_threads() == own
        return torch.get_num_threads()

    assert together(*(lambda own=own: busy(own) for own in (1, 2, 4, 5))) == [3] * 4
    assert counts() == (3, 3)
