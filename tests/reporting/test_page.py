"""The page, read back as a browser reads it, against the files that it was made from."""

import base64
import json
import math
import random
import re
import shlex
from decimal import Decimal
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from mezzotint.errors import CheckpointError, InputError
from mezzotint.evaluation.sweep import Point, Setting, advice
from mezzotint.metrics.recognition import Level, Readings, summarise
from mezzotint.reporting.charts import Axis, Line, column, line_chart, measured, number, scale_bar
from mezzotint.reporting.page import write_report
from mezzotint.runtime.checksum import with_checksum

EVIL = "<script>alert(1)</script>"
CLASSES = ["0", "1", EVIL]
PICTURES = (
    *("samples", "real", "reverse", "forward", "earliest", "latest", "memorisation"),
    *("clip-highest", "clip-lowest", "selection"),
)
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Node:
    def __init__(self, tag, attributes, parent=None):
        self.tag, self.attributes, self.parent = tag, dict(attributes), parent
        self.children = []

    @property
    def text(self):
        return "".join(c if isinstance(c, str) else c.text for c in self.children)

    def all(self, tag, **attributes):
        """Every node of a tag below this one whose attributes hold these words."""
        found = []
        for child in self.children:
            if isinstance(child, Node):
                words = {key: (child.attributes.get(key) or "").split() for key in attributes}
                if child.tag == tag and all(attributes[key] in words[key] for key in words):
                    found.append(child)
                found += child.all(tag, **attributes)
        return found

    def table(self):
        """Rows of texts."""
        return [[cell.text.strip() for cell in row.cells()] for row in self.all("tr")]

    def cells(self):
        return [c for c in self.children if isinstance(c, Node) and c.tag in ("td", "th")]


class Tree(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.root = self.node = Node("root", {})
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.handle_startendtag(tag, attributes)
        if tag not in VOID:
            self.node = self.node.children[-1]

    def handle_startendtag(self, tag, attributes):
        self.node.children.append(Node(tag, attributes, self.node))

    def handle_endtag(self, tag):
        assert self.node.tag == tag, f"</{tag}> closes <{self.node.tag}>"
        self.node = self.node.parent

    def handle_data(self, data):
        self.node.children.append(data)


def page_of(*runs):
    out = write_report(runs, runs[0].parent / "page.html")
    text = out.read_text(encoding="utf-8")
    return Tree(text).root, text


def section(page, title):
    (found,) = [s for s in page.all("section") if s.all("h2")[0].text == title]
    return found


def titles(page):
    return [s.all("h2")[0].text for s in page.all("section")]


def png(path, seed=0, size=(30, 20)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def metric(value, better="lower", error=None, floor=None, anchors=None, **protocol):
    protocol = {"metric": "m", "extractor": "e", "hash": "00ff", "n": 10000, "seed": 0, **protocol}
    return {
        "title": "a metric",
        "value": value,
        "error": error,
        "floor": floor,
        "anchors": anchors or {},
        "better": better,
        "protocol": protocol,
    }


def recognition():
    """Four levels, two classes; images of class 0 are read at once, of the evil one late."""
    levels = tuple(
        Level(share, sigma, None, spent)
        for share, sigma, spent in ((0, 20.0, 0), (0.25, 8.0, 3), (0.5, 2.0, 6), (1, 0.0, 12))
    )
    labels = torch.tensor([0, 0, 2, 2])
    read = [[0, 0, 0, 0], [-1, 0, 0, 0], [-1, -1, 2, 2], [0, -1, -1, 2]]
    readings = Readings(
        "the classifier", "reverse", "x0", 0.5, levels, labels, torch.tensor(read).to(torch.int16)
    )
    return summarise(readings, CLASSES)


def evaluation():
    anchors = {"noise": 900.0, "blur": 60.0, "one class missing": 12.0}
    shares = {"noise": 0.1, "blur": 0.6, "one class missing": 0.9}
    return {
        "samples": {"kind": "run", "path": "run", "images_seen": 4000, "guidance": 1.0},
        "against": {"source": "digits", "fingerprint": "abc", "classes": CLASSES},
        "summary": ["Good.", f"Not {EVIL}."],
        "metrics": {
            "fd10k": metric(3.14159, error=0.2123, floor=0.4, anchors=anchors),
            "coverage": metric(0.93, "higher", floor=0.97, anchors=shares),
        },
        "per_class": [
            {"class": name, "n": 100, "accuracy": a}
            for name, a in zip(CLASSES, (0.97, 0.9, 0.5), strict=True)
        ],
        "confusion": {"classes": CLASSES, "rows": [[97, 0, 3], [0, 90, 10], [25, 25, 50]]},
        "memorisation": {
            "summary": "no sign",
            "pixels": {"auc": 0.508, "error": 0.011, "floor": 0.5, "flagged": False},
            "features": {"auc": 0.75, "error": None, "floor": 0.5, "flagged": True},
        },
        "recognition": {"reverse": [recognition().to_json()]},
        "difficulty": {
            "classes": [{"name": name, "contrast": 1.5} for name in CLASSES],
            "correlations": [{"name": "contrast", "quality": "kd", "rho": 0.5, "p": 0.25}],
            "answers": [
                {"claim": "round is easy", "outcome": "supported", "evidence": ["rho = 1"]}
            ],
            "sentences": ["Long."],
            "caution": "Few.",
        },
        "clip": {
            "protocol": {"model": "tiny"},
            "cosine": {
                "value": 31.4,
                "prompts": ["a {}"],
                "anchors": {"real": 33.0, "noise": 20.0},
                "auc": {"noise": 1.0},
            },
            "pairs": [
                {
                    "value": 0.75,
                    "prompts": ["sharp", EVIL],
                    "anchors": {"real": 0.9},
                    "auc": {"noise": 0.99},
                }
            ],
            "classes": [
                {"name": name, "n": 5, "quality": 0.5, "pairs": [0.5], "highest": [1, 2]}
                for name in CLASSES
            ],
            "easiest": ["0", "1"],
            "hardest": [EVIL],
        },
        "selection": {
            "rows": [
                {"pool": pool, "keep": 3, "n": 9, "score": 0.5, "accuracy": 0.9 + pool / 200}
                for pool in (3, 15)
            ],
            "score": "clip",
            "threshold": 0.25,
            "classes": [
                {"class": name, "drawn": 30, "high_quality": 0.5, "kept_score": 0.75}
                for name in CLASSES
            ],
            "picture": "evaluation/selection.png",
        },
        "pictures": {name: f"evaluation/{name}.png" for name in PICTURES},
        "hardware": {"cpu": "a cpu", "torch": "2.13.0"},
        "seconds": {"sampling": 700.0},
        "command": "mezzotint evaluate run --n 10000",
    }


def swept():
    """Four settings: 2 has the least distance, beyond the noise that all but 1.5 share."""
    loud = [0.01 * (-1) ** group for group in range(10)]
    points = [
        Point(
            Setting(family, scale, interval),
            {"fd": fd, "coverage": coverage},
            {"fd": [fd + noise for noise in noises], "coverage": [coverage] * 10},
        )
        for family, scale, interval, fd, coverage, noises in (
            ("guidance", 1.0, None, 5.0, 0.9, loud),
            ("guidance", 1.5, None, 3.001, 0.6, loud[::-1]),
            ("guidance", 2.0, None, 3.0, 0.5, loud),
            ("interval", 2.0, (0.25, 8.0), 4.0, 0.7, loud),
        )
    ]
    found, sentences = advice(points, 500)
    return {
        "samples": {"kind": "run", "sampler": "heun", "n": 500, "seed": 7},
        "protocol": {"split": "validation", "hash": "77aa", "groups": 10},
        "points": [point.to_json() for point in points],
        "floor": {"fd": 0.25, "coverage": 0.95},
        "advice": found,
        "sentences": [*sentences, f"And {EVIL}."],
        "picture": "sweep.png",
        "seconds": 90.0,
        "hardware": {"processor": "a processor"},
        "command": "mezzotint sweep run --n 500",
    }


def evaluated(run, changes=None):
    run.mkdir(parents=True, exist_ok=True)
    found = {**evaluation(), **(changes or {})}
    (run / "evaluation.json").write_text(json.dumps(found))
    return run


@pytest.fixture
def run(tmp_path):
    """A run with everything."""
    run = evaluated(tmp_path / "a run")
    config = {"data": {"classes": CLASSES, "height": 28, "width": 28, "channels": 1}}
    toml = "".join(f"{key} = {json.dumps(value)}\n" for key, value in config["data"].items())
    (run / "config.toml").write_text(f'[origin]\nsource = "digits"\n[data]\n{toml}')
    rows = [
        {"kind": "step", "images_seen": 1000 * k, "loss": 1 / k, "seconds": 10.0 * k}
        for k in range(1, 5)
    ]
    rows += [
        {"kind": "validation", "images_seen": 2000 * k, "loss": 0.6 / k, "seconds": 20.0 * k}
        for k in (1, 2)
    ]
    rows += [
        {
            "kind": "metrics",
            "images_seen": 2000 * k,
            "values": {"accuracy": 0.4 * k},
            "seconds": 99,
        }
        for k in (1, 2)
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run / "sweep.json").write_text(json.dumps(with_checksum(swept())))
    png(run / "sweep.png", seed=50)
    for i, name in enumerate(PICTURES):
        png(run / "evaluation" / f"{name}.png", seed=i)
    for i in range(11):
        png(run / "samples" / f"{1000 * i:09d}.png", seed=100 + i)
    return run


def test_one_run_has_every_section_and_lacks_only_what_was_not_measured(run):
    page, _ = page_of(run)
    assert titles(page) == [
        *("Summary", "Samples", "Training", "The process", "Metrics", "Classes", "Recognition"),
        *("Difficulty", "CLIP", "Memorisation", "Guidance", "Selection", "Protocol"),
        "Not in this report",
    ]
    links = [a.attributes["href"] for a in page.all("nav")[0].all("a")]
    assert links == [f"#{s.attributes['id']}" for s in page.all("section")]
    missing = section(page, "Not in this report")
    assert [dt.text for dt in missing.all("dt")] == ["Classification accuracy score"]


def test_nothing_on_the_page_points_outside_it(run):
    page, text = page_of(run)
    for node in page.all("img") + page.all("a"):
        assert node.attributes.get("src", "data:").startswith("data:image/png;base64,"[:5])
        assert node.attributes.get("href", "#").startswith("#")
    assert not page.all("link") + page.all("script") + page.all("iframe") + page.all("object")
    styles = "".join(node.text for node in page.all("style"))
    assert not re.search(r"url\(|@import|@font-face", styles)
    assert "http:" not in text
    assert "https:" not in text
    (policy,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy.attributes["content"].startswith("default-src 'none'; img-src data:;")


def test_pictures_are_the_files_byte_for_byte_and_grids_spread_over_the_run(run):
    page, _ = page_of(run)
    shown = [
        base64.b64decode(img.attributes["src"].removeprefix("data:image/png;base64,"))
        for img in page.all("img")
    ]
    files = {path.read_bytes(): path.stem for path in run.rglob("*.png")}
    names = [files[data] for data in shown]  # KeyError: bytes of no file
    assert sorted(n for n in names if not n.isdecimal()) == sorted([*PICTURES, "sweep"])
    grids = [int(name) for name in names if name.isdecimal()]
    assert len(grids) == 8
    assert (grids[0], grids[-1]) == (0, 10_000)
    assert grids == sorted(grids)
    img = page.all("img")[0]  # 30 x 20 pixels are enlarged by a whole factor
    width, height = int(img.attributes["width"]), int(img.attributes["height"])
    assert (width % 30, width // 30) == (0, height // 20)
    assert img.attributes["class"] == "pixels"


def test_each_picture_and_chart_has_a_caption(run):
    page, _ = page_of(run)
    figures = page.all("figure", **{"class": "plate"})
    assert len(figures) > 8
    for figure in figures:
        (caption,) = figure.all("figcaption")
        assert len(caption.text.split()) > 8
        assert all(img.attributes["alt"] for img in figure.all("img"))


def test_markup_in_names_and_texts_is_shown_and_never_run(run):
    evil = run.parent / EVIL.replace("/", "_")
    run.rename(evil)
    evaluated(evil, {"pictures": {"samples": f"{EVIL}.png"}})
    page, text = page_of(evil)
    assert "<script" not in text.lower()
    assert not page.all("script")
    assert page.all("h1")[0].text == evil.name
    for title in (
        "Summary",
        "Samples",
        "Classes",
        "Recognition",
        "Difficulty",
        "CLIP",
        "Guidance",
        "Protocol",
    ):
        assert EVIL in section(page, title).text, title


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../secret.png", "outside"),
        ("evaluation/../../secret.png", "outside"),
        ("{absolute}", "outside"),
        ("link.png", "outside"),
        ("folder/secret.png", "outside"),
        ("circle.png", "no such file"),
        ("missing.png", "no such file"),
        ("evaluation", "no such file"),
        ("x" * 5000, "no such file"),
        ("text.png", "not a PNG"),
        ("nul\0.png", "not the path"),
        (7, "not the path"),
    ],
)
def test_pictures_come_from_inside_the_run_alone(run, name, reason):
    secret = png(run.parent / "secret.png", seed=99)
    (run / "link.png").symlink_to(secret)
    (run / "folder").symlink_to(run.parent)
    (run / "circle.png").symlink_to(run / "circle.png")
    (run / "text.png").write_text("no picture, " * 9)
    if isinstance(name, str):
        name = name.replace("{absolute}", str(secret))
    evaluated(run, {"pictures": {"samples": name}})
    page, text = page_of(run)
    assert base64.b64encode(secret.read_bytes()).decode() not in text
    said = section(page, "Samples").text
    assert reason in said
    assert "left out" in said
    assert not section(page, "Samples").all("img")


def test_metrics_stand_beside_floor_and_anchors(run):
    page, _ = page_of(run)
    head, fd, coverage = section(page, "Metrics").table()
    assert head[1:6] == ["value", "floor", "noise", "blur", "one class missing"]
    assert fd[:6] == ["A metricfd10k", "3.14 ± 0.21", "0.400", "900", "60", "12"]
    assert coverage[1:6] == ["0.9300", "0.9700", "0.100", "0.600", "0.9000"]


def places(svg):
    """Where a scale bar puts each thing, 0 left and 1 right."""
    root = Tree(svg).root
    marks = {
        line.all("title")[0].text.partition(":")[0]: line.attributes["x1"]
        for line in root.all("line")
        if line.all("title")
    }
    (dot,) = root.all("circle")
    return {name: float(x.rstrip("%")) / 100 for name, x in marks.items()} | {
        "value": float(dot.attributes["cx"].rstrip("%")) / 100
    }


def test_scale_bars_place_the_value_between_floor_and_anchors():
    at = places(scale_bar(3.0, None, 0.4, {"noise": 900.0, "blur": 60.0}, "lower"))
    assert at["floor"] < at["value"] < at["blur"] < at["noise"]
    whole = math.log(900 / 0.4)  # logarithmic
    span = at["noise"] - at["floor"]
    assert (at["value"] - at["floor"]) / span == pytest.approx(math.log(3 / 0.4) / whole, abs=1e-3)
    at = places(scale_bar(0.93, None, 0.97, {"noise": 0.1, "blur": 0.6}, "higher"))
    assert at["floor"] < at["value"] < at["blur"] < at["noise"]  # linear, turned round
    span = at["noise"] - at["floor"]
    assert (at["value"] - at["floor"]) / span == pytest.approx(0.04 / 0.87, abs=1e-3)
    at = places(scale_bar(0.002, None, -1e-5, {"noise": 0.8}, "lower"))  # on both sides of zero
    roots = [math.copysign(abs(v) ** (1 / 3), v) for v in (-1e-5, 0.002, 0.8)]
    share = (roots[1] - roots[0]) / (roots[2] - roots[0])
    span = at["noise"] - at["floor"]
    assert (at["value"] - at["floor"]) / span == pytest.approx(share, abs=1e-3)


def test_labels_of_a_scale_bar_never_meet():
    draws = random.Random(0)
    for _ in range(200):
        names = ["noise", "blur", "one class missing", "real"]
        anchors = {name: draws.uniform(0, 1) ** 4 for name in names}
        root = Tree(scale_bar(draws.random(), 0.01, 0.5, anchors, "higher")).root
        boxes = []
        for label in root.all("text"):
            width = 6.4 * len(label.text)
            x = float(label.attributes["x"].rstrip("%")) * 3  # of 300 pixels
            left = (
                x - {"start": 0, "middle": 0.5, "end": 1}[label.attributes["text-anchor"]] * width
            )
            boxes.append((float(label.attributes["y"]), left, left + width))
        for i, (y, left, right) in enumerate(boxes):
            assert left >= -1e-9
            assert right <= 300 + 1e-9
            for other, start, end in boxes[:i]:
                assert other != y or right <= start or end <= left


def test_the_confusion_matrix_holds_the_counts_and_tints_them(run):
    page, _ = page_of(run)
    (heat,) = page.all("figure", **{"class": "heat"})
    assert heat.table()[1:] == [
        ["0", "97", "", "3"],
        ["1", "", "90", "10"],
        [EVIL, "25", "25", "50"],
    ]
    cells = [cell for row in heat.all("tr")[1:] for cell in row.cells()[1:]]
    assert [c.attributes["class"] for c in cells] == ["right", *["wrong"] * 3] * 2 + ["right"]
    tints = [float(c.attributes["style"].split(":")[1]) for c in cells]
    shares = [0.97, 0, 0.03, 0, 0.9, 0.1, 0.25, 0.25, 0.5]
    assert [tint**3 for tint in tints] == pytest.approx(shares, abs=5e-3)


def curve(path, x, y):
    """The numbers behind a path, by the ends of the axes."""
    points = re.findall(r"[ML]([\d.e+-]+) ([\d.e+-]+)", path)
    return [
        (x[0] + float(a) / 1000 * (x[1] - x[0]), y[1] - float(b) / 1000 * (y[1] - y[0]))
        for a, b in points
    ]


def test_curves_go_through_the_logged_numbers(run):
    page, _ = page_of(run)
    loss, accuracy = section(page, "Training").all("svg", **{"class": "chart"})
    (faint,) = loss.all("path", **{"class": "faint"})
    assert len(curve(faint.attributes["d"], (0, 1), (0, 1))) == 4
    (dotted,) = loss.all("path", **{"class": "dotted"})
    # losses from 0.25 to 1.0: not wide, so linear, with 5% of room on both sides
    ends = (0.25 - 0.05 * 0.75, 1.0 + 0.05 * 0.75)
    found = curve(dotted.attributes["d"], (1000, 4000), ends)
    assert found[0] == pytest.approx((2000, 0.6), rel=1e-3)
    assert found[1] == pytest.approx((4000, 0.3), rel=1e-3)
    (line,) = accuracy.all("path", **{"class": "s1"})
    found = curve(line.attributes["d"], (2000, 4000), (0.38, 0.82))
    assert np.array(found) == pytest.approx(np.array([(2000, 0.4), (4000, 0.8)]), rel=1e-3)
    assert "in 40 s" in section(page, "Summary").text  # not the cost of the metrics


def test_recognition_is_what_the_evaluation_says(run):
    page, _ = page_of(run)
    found = section(page, "Recognition")
    assert recognition().sentences[0] in found.text
    head, zero, evil = found.table()
    assert head[2:] == ["first", "for good", "spread", "sigma", "evaluations", "never"]
    # By hand. In pure noise 0 is read as often in images of the other class: no evidence; from 25%
    # on it is read in all of its own and in no others.
    assert zero[2:] == ["25%", "25%", "25% – 25%", "8", "3", "0%"]
    assert evil[2:] == ["50%", "50%", "50% – 100%", "2", "6", "0%"]
    legend = [li.text for li in found.all("ul", **{"class": "legend"})[0].all("li")]
    assert legend == ["0 (first)", f"{EVIL} (last)", "all classes"]
    (chart,) = found.all("svg", **{"class": "chart"})
    (line,) = chart.all("path", **{"class": "s2"})
    points = curve(line.attributes["d"], (0, 1), (0, 1))
    assert points == [(0, 0), (0.25, 0), (0.5, 0.5), (1, 1)]


def test_the_evaluation_ranks_the_classes(run):
    found = recognition().to_json()
    evaluated(run, {"recognition": {"reverse": [{**found, "ranking": found["ranking"][::-1]}]}})
    legend = section(page_of(run)[0], "Recognition").all("ul", **{"class": "legend"})[0]
    assert [li.text for li in legend.all("li")][:2] == [f"{EVIL} (first)", "0 (last)"]


def test_each_reader_of_each_process_has_a_chart_and_a_table(run):
    found = recognition().to_json()
    clip = {**found, "reader": "CLIP", "view": "unconditional"}
    evaluated(run, {"recognition": {"reverse": [found, clip], "forward": [clip]}})
    page = section(page_of(run)[0], "Recognition")
    assert len(page.all("svg", **{"class": "chart"})) == 3
    free = "by CLIP, in the estimate made without the label"
    folded = [node.text for node in page.all("summary")]
    assert folded == [f"When an image is recognised, {free}"]  # the first table is open
    opened = [node.text for node in page.all("h3")]
    assert opened == [
        "When an image is recognised, by the classifier, in the estimate of the clean image",
        f"When an image is lost, {free}",
    ]
    assert page.text.count("50% – 100%") == 3
    legend = page.all("ul", **{"class": "legend"})[2]
    assert [li.text for li in legend.all("li")][:2] == ["0 (kept longest)", f"{EVIL} (lost first)"]


def test_memorisation_clip_and_selection(run):
    page, _ = page_of(run)
    text = section(page, "Memorisation").text
    assert "0.508 ± 0.011" in text
    assert text.index("By pixels") < text.index("0.508") < text.index("By features")
    found = section(page, "CLIP")
    _, cosine, pair, _, *classes = found.table()
    assert cosine[:5] == ["Cosinea {}", "31.4", "33", "20", "noise 1"]
    assert pair[:5] == [f"Sharp / {EVIL}2 prompts", "0.750", "0.9000", "–", "noise 0.9900"]
    assert classes == [[name, "5", "0.500"] for name in CLASSES]
    assert "Easiest classes: 0, 1." in found.text
    found = section(page, "Selection")
    assert len(found.all("img")) == 1
    assert "a score of 0.250 or more" in found.text
    assert [CLASSES[0], "30", "0.500", "0.750"] in found.table()
    score, chart = found.all("svg", **{"class": "chart"})  # of n, the same for all, there is none
    assert score.attributes["aria-label"] == "score"
    (line,) = chart.all("path", **{"class": "s1"})
    (first, last) = curve(line.attributes["d"], (3, 15), (0.912, 0.978))
    assert (first[0], last[0]) == (3, 15)
    assert (first[1], last[1]) == pytest.approx((0.915, 0.975), abs=1e-3)


def test_guidance_is_what_the_sweep_says(run):
    found = section(page_of(run)[0], "Guidance")
    sentences = [node.text for node in found.all("p") if node.text]
    assert sentences[:4] == swept()["sentences"]
    assert sentences[2].startswith("Take guidance 2 for clear images, guidance 1 for varied")
    assert len(found.all("img")) == 1
    # By hand: of ten values a and -a about their mean the jackknife is sqrt(9) a = 0.03.
    assert found.table() == [
        ["setting", "fd", "coverage"],
        ["guidance 1", "5.000 ± 0.030", "0.9000"],
        ["guidance 1.5", "3.001 ± 0.030", "0.600"],
        ["guidance 2", "3.000 ± 0.030", "0.500"],
        ["guidance in the interval 20.25 < sigma ≤ 8", "4.000 ± 0.030", "0.700"],
        ["real images", "0.250", "0.9500"],
    ]
    assert [cell.text for cell in found.all("td", **{"class": "best"})] == [
        "0.9000",
        "3.000 ± 0.030",
    ]
    facts = dict(
        zip((d.text for d in found.all("dt")), (d.text for d in found.all("dd")), strict=True)
    )
    messages = {"sampler": "heun", "split": "validation", "hash": "77aa", "in all": "90 s"}
    assert facts.items() >= messages.items()
    assert found.all("pre")[0].text == "mezzotint sweep run --n 500"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            json.dumps({**with_checksum(swept()), "seconds": 1.0}),
            "damaged, or was edited: it is left out",
        ),
        ('{"points": ', "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        (f'{{"samples": {{"n": {"[" * 400}{"]" * 400}}}}}', "cannot be read"),
    ],
)
def test_a_sweep_that_cannot_be_trusted_is_left_out_with_a_line(run, content, reason):
    (run / "sweep.json").write_text(content)
    page, _ = page_of(run)
    assert "Guidance" not in titles(page)
    missing = section(page, "Not in this report")
    (line,) = [node.text for node in missing.all("p")]
    assert f"sweep.json {'is ' if reason[0] == 'd' else ''}{reason}" in line
    assert f"mezzotint sweep '{run}'" in missing.text


def test_a_sweep_shows_no_picture_from_elsewhere(run):
    secret = png(run.parent / "secret.png", seed=99)
    (run / "sweep.json").write_text(json.dumps({**swept(), "picture": "../secret.png"}))
    page, text = page_of(run)
    assert base64.b64encode(secret.read_bytes()).decode() not in text
    assert "../secret.png was left out: it lies outside" in section(page, "Guidance").text


@pytest.mark.parametrize(
    ("training", "offered"),
    [
        ("label_dropout = 0.1", True),
        ("label_dropout = 0.0", False),
        ("label_dropout = 0.0\nsnapshot = 0.1", True),
        ("", True),
    ],
)
def test_a_sweep_is_offered_where_something_guides(run, training, offered):
    (run / "sweep.json").unlink()
    (run / "sweep.png").unlink()
    (run / "config.toml").write_text(f"[training]\n{training}\n")
    missing = [dt.text for dt in section(page_of(run)[0], "Not in this report").all("dt")]
    assert ("Guidance" in missing) == offered


def test_difficulty_answers_in_a_table(run):
    answer = {"claim": "round is easy", "outcome": "supported", "evidence": ["rho = 1", "p = 0"]}
    evaluated(
        run, {"difficulty": {"answers": [answer], "sentences": ["Long."], "caution": "Few."}}
    )
    found = section(page_of(run)[0], "Difficulty")
    assert found.table() == [[*answer], ["round is easy", "supported", "rho = 1; p = 0"]]
    assert "Few." in found.text
    assert "Long." not in found.text


def test_protocol_hardware_and_commands_are_shown(run):
    text = section(page_of(run)[0], "Protocol").text
    for fact in ("00ff", "10000", "a cpu", "2.13.0", "11.7 min", "mezzotint evaluate run --n"):
        assert fact in text, fact


def test_what_is_missing_comes_with_its_command(tmp_path):
    run = tmp_path / "a run"
    run.mkdir()
    (run / "config.toml").write_text("[training]\nbatch = 64\n")
    page, _ = page_of(run)
    assert titles(page) == ["Summary", "Protocol", "Not in this report"]
    assert "Not evaluated yet" in section(page, "Summary").text
    missing = section(page, "Not in this report")
    commands = dict(
        zip((d.text for d in missing.all("dt")), (d.text for d in missing.all("dd")), strict=True)
    )
    assert commands["Recognition"] == f"mezzotint evaluate '{run}' --metrics recognition"
    assert shlex.split(commands["Training"])[-1] == str(run)
    assert commands.keys() >= {"Samples", "The process", "Metrics", "Classes", "CLIP", "Selection"}


@pytest.mark.parametrize("name", ["evaluation.json", "sweep.json"])
def test_an_evaluation_that_is_gone_is_missed(run, name):
    page, _ = page_of(run)
    assert f"{name} is missing" not in page.text
    (run / name).unlink()
    page, _ = page_of(run)
    assert f"{name} is missing, though its pictures are there" in page.text


def test_half_characters_do_not_stop_a_report(run):
    evaluated(run, {"summary": ["half a character: \ud800."]})
    assert "half a character: ?." in section(page_of(run)[0], "Summary").text


def test_files_that_cannot_be_read_are_named(run):
    (run / "evaluation.json").write_text('{"metrics": ')
    (run / "config.toml").write_text("= = =")
    said = section(page_of(run)[0], "Not in this report").text
    assert "evaluation.json cannot be read" in said
    assert "config.toml cannot be read" in said


def spots(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list) else items
    for key, item in items:
        yield from spots(item, (*path, key))


def test_any_key_may_be_missing_or_of_another_kind(run, tmp_path):
    draws = random.Random(0)
    evaluations = {"evaluation.json": evaluation(), "sweep.json": swept()}
    junk = [None, "x", 3, -2.5, [], {}, [1], [None], True, math.nan, 1e999, 10**400, {"value": {}}]
    for _ in range(40):
        for name, whole in evaluations.items():
            changed = json.loads(json.dumps(whole))
            for top in whole:  # one change in each part
                path = draws.choice([(top, *rest) for rest in spots(changed[top])])
                inner = changed
                for key in path[:-1]:
                    inner = inner[key]
                inner[path[-1]] = draws.choice(junk)
                if draws.random() < 0.3:
                    del inner[path[-1]]
            (run / name).write_text(json.dumps(changed))
        write_report([run], tmp_path / "a.html")
        write_report([run, run], tmp_path / "b.html")


def test_numbers_of_one_protocol_are_compared_and_others_not(tmp_path):
    names = ("a", "b", "c")
    metrics = [
        {
            "fd10k": metric(value, error=0.1, floor=0.4),
            "kd10k": metric(value, error=1.0),
            "cas": metric(value, "higher", epochs=epochs),
            "old": {"title": "old", "value": value},
            "accuracy": metric(value / 10, "higher"),
        }
        for value, epochs in ((3.5, 12), (3.0, 20), (5.0, 12))
    ]
    del metrics[2]["accuracy"]
    runs = [
        evaluated(tmp_path / name, {"metrics": found})
        for name, found in zip(names, metrics, strict=True)
    ]
    page, _ = page_of(*runs)
    (figure,) = section(page, "Metrics").all("figure")
    rows = {row[0]: row[1:] for row in figure.table()}
    assert rows["Metric"] == ["a", "b", "c", "floor"]
    assert rows["A metricfd10k"] == ["3.50 ± 0.10", "3.00 ± 0.10", "5.00 ± 0.10", "0.400"]
    assert rows["A metriccas"] == ["protocol differs in epochs: 12 (a, c) / 20 (b)"]
    assert rows["Oldold"] == ["not compared: no protocol is given by a, b, c"]
    assert rows["A metricaccuracy"] == ["0.350", "0.300", "not measured", "–"]
    best = [cell.text for cell in figure.all("td", **{"class": "best"})]
    # 3.0 beats 3.5 at errors of 0.1; at errors of 1.0 it does not
    assert best == ["3.00 ± 0.10", "0.350"]


def test_other_data_is_another_protocol(tmp_path):
    one = evaluated(tmp_path / "one")
    two = evaluated(tmp_path / "two", {"against": {"source": "digits", "fingerprint": "xyz"}})
    text = section(page_of(one, two)[0], "Metrics").text
    assert "protocol differs in fingerprint: abc (one) / xyz (two)" in text
    assert "3.14" not in text


def test_several_runs_side_by_side(run):
    other = run.parent / "other" / "a run"
    evaluated(other, {"metrics": {}})
    (other / "config.toml").write_text('[origin]\nsource = "mnist"\n')
    (other / "metrics.jsonl").write_text('{"kind": "step", "images_seen": 64, "loss": 0.5}\n')
    png(other / "evaluation" / "samples.png", seed=55)
    page, _ = page_of(run, other)
    heads = [cell.text for cell in section(page, "Summary").all("tr")[0].cells()]
    assert heads == ["", "a run (1)", "a run (2)"]
    assert len(section(page, "Samples").all("img")) == 2
    legend = section(page, "Training").all("ul", **{"class": "legend"})[0]
    assert [li.text for li in legend.all("li")] == ["a run (1)", "a run (2)"]
    settings = {row[0]: row[1:] for row in section(page, "Settings").table()}
    assert settings["origin.source"] == ["digits", "mnist"]
    assert "data.height" not in settings
    missing = section(page, "Not in this report")
    assert f"mezzotint evaluate '{other}'" in missing.text


def test_what_a_user_can_do_wrong(run, tmp_path):
    with pytest.raises(InputError, match="at least one run"):
        write_report([], tmp_path / "a.html")
    with pytest.raises(InputError, match=r"does not end in \.html"):
        write_report([run], tmp_path / "a.pdf")
    with pytest.raises(CheckpointError, match="not a folder"):
        write_report([tmp_path / "nowhere"], tmp_path / "a.html")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="has none of"):
        write_report([tmp_path / "empty"], tmp_path / "a.html")
    assert not list(tmp_path.glob("*.html"))


def test_the_same_run_gives_the_same_bytes(run, tmp_path):
    first = write_report([run], tmp_path / "a.html").read_bytes()
    assert write_report([run], tmp_path / "a.html").read_bytes() == first


def test_numbers_are_rounded_to_three_digits():
    draws = random.Random(0)
    for _ in range(500):
        value = draws.choice([-1, 1]) * 10 ** draws.uniform(-9, 2.9)
        text = number(value).replace("−", "-").replace(" × 10", "e")
        text = text.translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789"))
        step = Decimal(10) ** (Decimal(value).adjusted() - 2)
        assert abs(Decimal(text) - Decimal(value)) <= step / 2
        assert len(text) < 12


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (3.14159, 0.0512, "3.142 ± 0.051"),
        (912.41, 3.04, "912.4 ± 3.0"),
        (0.0023123, 0.00013, "0.00231 ± 0.00013"),
        (-1.5, 0.25, "−1.50 ± 0.25"),
        (3.14159, None, "3.14"),
        (3.14159, math.nan, "3.14"),
        (math.inf, 1.0, "not finite"),
        (None, None, "not measured"),
        (12345.678, None, "12,346"),
        (0, None, "0"),
        (True, None, "yes"),
    ],
)
def test_values_are_as_precise_as_their_errors(value, error, text):
    assert measured(value, error) == text


def test_a_column_has_one_number_of_decimals():
    assert column([0.97, 1.0, 0.501, None]) == ["0.970", "1.000", "0.501", ""]
    assert column([4500, 51, 7]) == ["4,500", "51", "7"]
    assert column([3e-8, 250.0]) == ["3.00 × 10⁻⁸", "250"]
    assert column(["Shirt", "Coat"]) == ["Shirt", "Coat"]


def test_ticks_are_few_round_and_inside():
    draws = random.Random(1)
    for _ in range(500):
        low, span = draws.uniform(-5, 5), 10 ** draws.uniform(-3, 6)
        ticks = Axis(low, low + span).ticks(6)
        assert 2 <= len(ticks) <= 6
        assert all(low - 1e-9 * span <= tick <= low + span * (1 + 1e-9) for tick in ticks)
        step = f"{ticks[1] - ticks[0]:.6e}"
        assert step[0] in "125"
        assert float(step[:8]) == int(step[0])
        low = 10 ** draws.uniform(-4, 2)
        high = low * 10 ** draws.uniform(0.7, 6)
        ticks = Axis(low, high, "log").ticks(6)
        assert 1 <= len(ticks) <= 6
        assert all(low <= tick <= high for tick in ticks)


def test_a_lone_point_and_equal_values_are_drawn():
    axis = Axis.over([0.25, 0.25])
    assert axis.place(0.25) == 0.5
    lines = [Line("a", ((5.0, 0.25),), "s1")]
    svg = line_chart(lines, title="t", x_title="x", x_axis=Axis.over([5.0]), y_axis=axis)
    (path,) = Tree(svg).root.all("path")
    assert path.attributes["d"] == "M500 500h0"
