"""Steps in CUDA graphs against eager steps, with a stand-in for CUDA graphs on the CPU.

The stand-in keeps what a CUDA graph keeps: which operators ran, on which memory, with which
numbers. A replay runs them again on that memory, whatever Python would do by then.
"""

import contextlib
import dataclasses
import gc
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from mezzotint.benchmarking import noise_images
from mezzotint.config.build import fresh_state, plan_of
from mezzotint.config.presets import load_preset, preset_names, usual_source
from mezzotint.config.schema import Config, Sampling
from mezzotint.config.tables import override, parse_config
from mezzotint.data import Augment
from mezzotint.diffusion import Karras
from mezzotint.metrics.extractors.classifier import Domain, Recipe, fit
from mezzotint.runs.facts import DataFacts
from mezzotint.runtime.cuda_graphs import WARM, CudaGraphs
from mezzotint.runtime.device import Compute
from mezzotint.sampling.model import Model, SampleBatch
from mezzotint.training import Diverged, Skipped, Stepped, gradients, train
from mezzotint.training.batches import next_batch
from tiny import make_data, make_plan

WAITING = ("_local_scalar_dense", "nonzero", "is_nonzero", "item", "masked_select", "unique")
"""Operators whose result Python needs, or whose result's shape hangs on values."""


LARGER = {"mnist", "cifar10", "cifar10-large"}
"""As fashion-mnist and folder, but larger."""


class Graph(TorchDispatchMode):
    """A list of operators with their tensors."""

    def __init__(self):
        super().__init__()
        self.launches = []
        self.before = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().split("::")[1].split(".")[0]
        assert name not in WAITING, f"{name} waits for the device"
        if name == "where":  # a number of Python's would be sent there
            assert all(torch.is_tensor(a) and a.dim() > 0 for a in args[1:]), "sent in a capture"
        for tensor in filter(torch.is_tensor, tree_leaves((args, kwargs))):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in self.before:
                self.before[storage.data_ptr()] = storage, storage.clone()
        result = func(*args, **(kwargs or {}))
        self.launches.append(tree_map(memory, (func, args, kwargs or {}, result)))
        return result

    def undo(self):
        """Capture alone does nothing."""
        for storage, values in self.before.values():
            storage.copy_(values)

    @torch.no_grad()
    def replay(self):
        for func, args, kwargs, result in self.launches:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                if torch.is_tensor(old) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def memory(value):
    """Of a tensor, what autograd knows nothing of."""
    return value.detach() if torch.is_tensor(value) else value


class Stream:
    def wait_stream(self, other):
        """Nothing to wait for."""


@pytest.fixture
def graphs(monkeypatch):
    """Capture steps as on CUDA; yield the graphs that were made."""
    made = []

    @contextlib.contextmanager
    def graph(recording, stream, capture_error_mode):
        made.append(recording)
        with recording:
            yield
        recording.undo()

    monkeypatch.setenv("MEZZOTINT_KERNELS", "0")
    monkeypatch.setattr(Compute, "cuda_graphs", True)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", contextlib.nullcontext)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    return made


def small(optimizer):
    data = make_data()
    table = {
        "network": {"levels": [{"width": 16, "attention": True}], "embedding": {"width": 16}},
        "training": {"optimizer": optimizer, "batch": 8, "weight_decay": 0.1},
    }
    config = parse_config(table, Config)
    return data, lambda: fresh_state(config, DataFacts.of(data).denoiser(config), Compute())


def trained(make_state, data, plan, micro_batch=8):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = make_state()
    state.micro_batch = micro_batch
    records = [r for r in train(state, data, plan, Compute()) if not isinstance(r, Diverged)]
    return state, [r.loss for r in records if isinstance(r, Stepped)]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_graphed_steps_are_the_steps(graphs, monkeypatch, optimizer):
    """Rates that fall, guidance that begins half-way, batches in parts."""
    data, make_state = small(optimizer)
    plan, kept = make_plan(images=112, max_model_guidance=2.0, model_guidance_start=0.5), []
    monkeypatch.setattr(
        gradients, "CudaGraphs", lambda active: kept.append(CudaGraphs(active)) or kept[0]
    )
    recorded, losses = trained(make_state, data, plan, micro_batch=4)
    assert len(graphs) == 4  # gradients and the optimiser, plain and guided
    assert len(kept[0]._recordings) == 2  # the plain ones keep no memory from the others
    monkeypatch.setattr(Compute, "cuda_graphs", False)
    plain, expected = trained(make_state, data, plan, micro_batch=4)
    assert losses == pytest.approx(expected, rel=1e-6)
    ours, theirs = (
        torch.cat([p.flatten() for p in s.ema.parameters()]) for s in (recorded, plain)
    )
    assert (ours - theirs).norm() < 1e-4 * theirs.norm()


def test_a_step_that_is_not_finite_is_left_out(graphs):
    data, make_state = small("adamw")
    data.images[data.splits["train"][3]] = 200
    state = make_state()
    steps = train(state, data, make_plan(images=800), Compute())
    for _ in range(2 * WARM + 4):
        next(steps)
    before = {k: v.clone() for k, v in state.denoiser.network.state_dict().items()}
    spoilt = graphs[0].launches[-1][1][0]  # into which the last losses are copied
    graphs[0].launches.append((torch.ops.aten.fill_.Scalar, (spoilt, torch.nan), {}, spoilt))
    assert any(isinstance(next(steps), Skipped) for _ in range(3))
    for name, value in state.denoiser.network.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_graph_holds_what_its_work_reads(graphs):
    graphs_, holder = CudaGraphs(active=True), torch.ones(3)
    seen = weakref.ref(holder)
    for _ in range(WARM + 1):
        graphs_("sum", lambda x, held=holder: x + held, torch.zeros(3))
    graphs[0].launches.clear()  # which a CUDA graph has no tensors in
    del holder
    gc.collect()
    assert seen() is not None
    graphs_.clear()
    gc.collect()
    assert seen() is None


@pytest.mark.parametrize("name", sorted(set(preset_names()) - LARGER))
def test_no_preset_waits_for_the_device_within_a_step(graphs, name):
    data = noise_images(usual_source(name))
    data = dataclasses.replace(data, images=data.images[:, :, :8, :8])
    table = override(load_preset(name), ["training.batch=4"])
    config = parse_config(table, Config)
    state = fresh_state(config, DataFacts.of(data).denoiser(config), Compute())
    plan = dataclasses.replace(plan_of(config, 1 << 40), model_guidance_start=0.0)
    batch = next_batch(data, plan, 0, "cpu")
    computer = gradients.GradientComputer(state, plan, Compute())
    for _ in range(WARM + 1):
        computer.backward(batch)
        computer.graphed("optimizer", state.optimizer.step)
    assert len(graphs) == 2


def small_model(**sampling):
    data, make_state = small("adamw")
    denoiser = make_state().denoiser
    torch.nn.init.normal_(denoiser.network.last[2].weight)  # a fresh network says 0
    settings, levels = Sampling(**sampling), Karras(0.1, 10.0)
    return Model(
        denoiser, settings, levels, (1, 8, 8), data.classes, 0.0, 0.5, max_model_guidance=2.0
    )


def test_a_graphed_drawing_is_the_drawing(graphs, monkeypatch):
    """Chunks of two lengths, guidance in one evaluation and in two, a sampler with fresh noise."""
    model = small_model(sampler="dpm++2m-sde", evaluations=6, guidance=1.5)
    monkeypatch.setattr(Model, "chunk", lambda self: 4)
    drawing = SampleBatch.of(torch.arange(10) % 2)
    recorded = model.sample_batch(drawing), model.changed(guidance=3.0).sample_batch(drawing)
    assert len(graphs) == 4
    monkeypatch.setattr(Compute, "cuda_graphs", False)
    expected = model.sample_batch(drawing), model.changed(guidance=3.0).sample_batch(drawing)
    for ours, theirs in zip(recorded, expected, strict=True):
        assert ours.unique().numel() > 20
        assert (ours.int() - theirs.int()).abs().max() <= 1


def test_a_classifier_of_graphed_steps_is_the_classifier(graphs, monkeypatch):
    data = make_data()

    def read():
        found = fit(
            *data.split("train"), Domain(data.classes, "tiny", Augment(flip=True)),
            recipe=Recipe(images=192, batch=16),
        )  # fmt: skip
        return found.read(data.images).features

    expected = read()
    monkeypatch.setattr(
        "mezzotint.metrics.extractors.classifier.CudaGraphs", lambda active: CudaGraphs(True)
    )
    ours = read()
    assert len(graphs) == 1
    assert (ours - expected).norm() < 1e-3 * expected.norm()


def test_a_graph_ends_with_its_model(graphs):
    """Its memory is the device's: it may not wait for Python's garbage collector."""
    model = small_model(evaluations=4)
    gc.disable()
    try:
        model.sample_batch(SampleBatch.of(torch.arange(2)))
        seen = weakref.ref(graphs.pop())
        assert seen() is None
    finally:
        gc.enable()


def test_two_threads_do_not_capture_at_once(graphs, monkeypatch):
    """CUDA refuses a second capture, and what a thread launches meanwhile would be captured."""
    capture, running, most = torch.cuda.graph, [], []

    @contextlib.contextmanager
    def slow(*arguments, **named):
        with capture(*arguments, **named):
            running.append(1)
            most.append(len(running))
            time.sleep(0.02)
            running.pop()
            yield

    monkeypatch.setattr(torch.cuda, "graph", slow)
    x = torch.ones(3)

    def work(number):
        graphs_ = CudaGraphs(active=True)
        return [graphs_("double", lambda x: x * number, x).clone() for _ in range(4)]

    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(work, range(3)))
    assert len(graphs) == 3
    assert max(most) == 1
    for number, seen in enumerate(results):
        assert all(torch.equal(each, x * number) for each in seen)
