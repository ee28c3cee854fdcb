"""The run that suffers: small, on the embedded digits, with everything a run can have in it."""

from pathlib import Path

from mezzotint.training.checkpoint import read

TINY = (
    "--set", "network.levels=[{width=16}, {width=16, attention=true}]",
    "--set", "network.embedding.width=16", "--set", "training.batch=16",
    "--set", "training.validate_every=800", "--set", "training.preview_every=800",
    "--set", "training.log_every=80", "--set", "training.snapshot=0.25",
    "--set", 'training.lr_schedule={kind="constant"}',
    "--set", "training.model_guidance.max_scale=1", "--set", "sampling.guidance=1",
)  # fmt: skip


def training(out: Path, images: int, every: int = 160) -> tuple[object, ...]:
    """The words of a training of so many images that saves every so many."""
    budget = ("--budget", f"{images}images", "--checkpoint-every", f"{every}images")
    return ("train", "digits", *budget, *TINY, "--out", out)


def last(out: Path) -> Path:
    return out / "checkpoints" / "last.safetensors"


def apart(ours: Path, theirs: Path, but: tuple[str, ...] = ()) -> str:
    """Where two checkpoints differ in more than times, in words; empty: equal, bit by bit."""
    a, b = read(ours), read(theirs)
    if a.tensors.keys() != b.tensors.keys():
        return f"other tensors {sorted(a.tensors.keys() ^ b.tensors.keys())}"
    far = {k: float((a.tensors[k].double() - b.tensors[k]).abs().max()) for k in a.tensors}
    most = max(far, key=far.__getitem__)
    if far[most] != 0:
        return f"{sum(d != 0 for d in far.values())} other tensors, most {most} by {far[most]:.3g}"
    names = [k for k in a.facts.keys() | b.facts.keys() if a.facts.get(k) != b.facts.get(k)]
    return ", ".join(f"other {k}" for k in sorted(names) if k not in ("seconds", "config", *but))


def compared(ours: Path, theirs: Path, but: tuple[str, ...] = ()) -> str:
    """Whether two runs have come to the same, in words; facts named in `but` may differ."""
    if not last(ours).exists():
        return "BAD: no checkpoint"
    found = apart(last(ours), last(theirs), but)
    return f"BAD: {found}" if found else "weights equal"
