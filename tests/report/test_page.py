"""The page of a run: its numbers are those of the other commands, its texts are texts, and it needs nothing else."""

import base64
import contextlib
import io
import json
import math
import re
import shutil
from html.parser import HTMLParser

import jaxtyping
import numpy as np
import pytest
import torch
from PIL import Image

from diffenc_ct.cli import main
from diffenc_ct.report.album import DEPTHS, PATHS, SAMPLES
from diffenc_ct.report.album import album as album_of
from diffenc_ct.report.findings import Effort, find
from diffenc_ct.report.page import _pairs, comparisons, fixed, render
from diffenc_ct.report.pictures import as_pixels, heat, image_grid
from diffenc_ct.report.rows import Row
from diffenc_ct.report.values import encodings
from diffenc_ct.sampling import sample
from diffenc_ct.training.runs import open_run
from tests.cli.test_cli import TINY, fails
from tests.strategies import randomise

NAME = "a <u>&\"'"  # a run's folder may be called so
FACTS = ("dequantisation", "probes", "solver")
FEW = "--examples 12 --draws 2 --device cpu".split()


@pytest.fixture(autouse=True)
def quickly(types_are_checked):
    """Without checks of types at every call: the pages of the fixtures are made with them."""
    jaxtyping.config.update("jaxtyping_disable", True)


class Reader(HTMLParser):
    """Tags, addresses and texts of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.addresses, self.texts, self.sections = set(), [], [], {}
        self.section = ""
        self.feed(page)
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        self.tags.add(tag)
        self.addresses += [
            named[name] for name in ("src", "href", "srcset", "xlink:href") if name in named
        ]
        self.section = named.get("id", self.section) if tag == "section" else self.section

    def handle_endtag(self, tag):
        if tag in ("td", "th", "p", "li", "span"):
            self.handle_data(" ")

    def handle_data(self, data):
        self.texts.append(data)
        self.sections[self.section] = self.sections.get(self.section, "") + data

    def of(self, section):
        return " ".join(self.sections[section].split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two runs on the same images, whose encoder is not the identity; one of them has a strange name."""
    folder = tmp_path_factory.mktemp("page <u>")
    values = np.random.default_rng(0).integers(0, 5, (200, 1, 4, 4)).astype(np.uint8)
    np.save(folder / "data.npy", values)
    rest = [
        *TINY,
        "--network-options",
        "width=8",
        "halvings=1",
        "--eval-every",
        "2",
        "--log-every",
        "1",
    ]
    rest += ["--encoder", "non-trainable", "--encoder-network-options"]
    for name, seed in ((NAME, "0"), ("other", "1")):
        words = [
            "train",
            "--data",
            str(folder / "data.npy"),
            "--run",
            str(folder / name),
            "--seed",
            seed,
        ]
        assert main([*words, *rest]) == 0
    return folder


def report(capsys, *words, out):
    """The page, as read, and what --json says."""
    capsys.readouterr()
    assert main(["report", *map(str, words), "-o", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    return Reader(out.read_text(encoding="utf-8")), found


@pytest.fixture(scope="module")
def written(folder, tmp_path_factory):
    """The page of both, and what --json says of it."""
    out, said = tmp_path_factory.mktemp("out") / "two.html", io.StringIO()
    words = ["report", str(folder / NAME), str(folder / "other"), *FEW, "-o", str(out), "--json"]
    with contextlib.redirect_stdout(said):
        assert main(words) == 0
    return Reader(out.read_text(encoding="utf-8")), json.loads(said.getvalue())


@pytest.fixture(scope="module")
def two(written):
    return written[0]


@pytest.fixture(scope="module")
def alone(folder, tmp_path_factory):
    """What `evaluate` says of each."""
    out = tmp_path_factory.mktemp("alone") / "e.json"
    return [evaluated(folder / name, out) for name in (NAME, "other")]


def evaluated(run, out, *more):
    assert main(["evaluate", str(run), *FEW, "--out", str(out), *more]) == 0
    return json.loads(out.read_text())


def pixels(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def found_of(run, data, **effort):
    from diffenc_ct.data import load_dataset

    opened = open_run(run)
    return find(str(run), opened, load_dataset(data), Effort(**effort))


def test_what_comes_from_files_is_text(two, folder):
    """The run's name, and its data's in the configuration."""
    assert "u" not in two.tags and str(folder / NAME) in two.text
    assert str(folder / "data.npy") in two.of("configuration")
    assert two.text.count("<u>") >= 10


def test_nothing_else_is_needed(two):
    assert len(two.addresses) > 10
    assert all(re.match(r"(data:|#)", address) for address in two.addresses)
    assert "link" not in two.tags or "data:," in two.addresses
    assert not re.search(r"\b(https?:)?//\w", two.text.replace("/", "/ "))


def test_the_numbers_are_those_of_evaluate(folder, written, alone):
    two, found = written
    for each, own in zip(found["runs"], alone, strict=True):
        total = own["bits_per_dimension"]["total"]
        (row,) = each["rows"]
        assert row["mean"] == total["mean"]
        assert row["standard_errors"]["images"] == total["standard_error"]
        for term in own["bits_per_dimension"].values():
            shown = f"{term['mean']:.4f} {term['standard_error']:.4f}"
            assert shown in two.of("bounds")
        assert f"{own['baselines']['independent']:.4f}" in two.of("bounds")
    assert "12 test examples, 2 draws" in two.of("bounds")
    command = f"diffenc evaluate {folder / NAME} --examples 12 --draws 2 --batch-size 250 --seed 0"
    assert command in two.of("configuration")


def test_differences_are_image_by_image_from_the_first(written, alone):
    two, found = written
    (rows,) = found["differences_from_first"].values()
    one, other = (own["each_image"] for own in alone)
    for row, term in zip(rows, ("total", "reconstruction", "diffusion", "latent"), strict=True):
        each = np.subtract(other[term], one[term])
        assert row["mean"] == pytest.approx(each.mean(), abs=1e-12)
        assert row["standard_errors"]["images"] == pytest.approx(each.std(ddof=1) / 12**0.5)
        assert f"{each.mean():.5f} {each.std(ddof=1) / 12**0.5:.5f} 12" in two.of("differences")
    mean, word = rows[0]["mean"], "less" if rows[0]["mean"] < 0 else "more"
    assert re.search(
        rf"needs {abs(mean):.4f} ± [\d.]+ bits per dimension {word} than", two.of("differences")
    )
    told = "do not tell the two apart" in two.of("differences")
    assert told == (abs(mean) < 2 * rows[0]["standard_errors"]["images"])


def test_runs_on_other_examples_are_not_compared(folder, tmp_path, capsys):
    words = (folder / NAME, "digits-vdm", "--examples", "3", "--draws", "1", "--device", "cpu")
    page, found = report(capsys, *words, out=tmp_path / "p.html")
    assert found["differences_from_first"] == {}
    assert "cannot be compared" in page.of("differences")
    assert "There is no metrics.csv beside digits-vdm" in page.of("training")
    assert "It leaves the data as they are" in page.of("encoder")  # the identity


def test_the_same_page_every_time(folder):
    one, other = (
        render([found_of(folder / NAME, str(folder / "data.npy"), examples=3, draws=1)])
        for _ in "ab"
    )
    assert one == other


def test_curves_are_those_of_metrics(folder, two):
    rows = (folder / "other" / "metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("gradient_norm")
    for row in rows[1:]:
        assert f"norm: {float(row.split(',')[column]):.5g}" in two.sections["training"]
    words = (
        "Bound (bits per dimension)",
        "Learning rate",
        "Speed (images a second)",
        "other, test",
    )
    assert all(word in two.of("training") for word in words)


def test_the_loss_by_depth_is_evaluates(two, alone):
    for row in alone[1]["loss_by_depth"]:
        assert f"bits/dim per t: {row['bpd']:.5g} ± {row['error']:.5g}" in two.sections["depth"]


def test_pictures_are_the_librarys(folder):
    found = found_of(folder / NAME, str(folder / "data.npy"), examples=2, draws=1)
    model, images, album = found.opened.model, found.data.test[:8], found.album
    x_t = encodings(model, images, DEPTHS)
    assert np.array_equal(
        pixels(album.encoded.uri), np.asarray(image_grid(x_t.flatten(0, 1), None, columns=DEPTHS))
    )
    change = x_t - model.scale(images)[:, None]
    assert album.largest == change.abs().max().item() > 0
    shown = image_grid((change / album.largest).flatten(0, 1), None, columns=DEPTHS)
    assert np.array_equal(pixels(album.change.uri), np.asarray(shown))
    drawn = sample(model, SAMPLES, trajectory=PATHS, generator=torch.Generator().manual_seed(0))
    assert np.array_equal(
        pixels(album.samples.uri), np.asarray(image_grid(drawn.samples, 5, columns=DEPTHS))
    )
    assert len(album.encoded.columns) == len(album.path.columns) == DEPTHS
    bits = pixels(album.bits.uri)
    scale = bits.shape[1] // (5 * len(images))
    first = bits[: 4 * scale : scale, : 4 * scale : scale]
    assert np.array_equal(first[..., 0], as_pixels(images[0, 0], 5).numpy())


def test_of_vectors_it_says_that_there_is_nothing_to_see(tmp_path, capsys):
    assert main(["train", "--data", "swirl", "--run", str(tmp_path / "run"), *TINY]) == 0
    capsys.readouterr()
    few = ("--examples", "4", "--draws", "1", "--device", "cpu")
    page, found = report(capsys, tmp_path / "run", *few, "--likelihood", out=tmp_path / "p.html")
    assert (
        "img" not in page.tags
        and "no images" in page.of("encoder")
        and "no images" in page.of("samples")
    )
    bound, *flows = found["runs"][0]["rows"]
    assert bound["bounds"] == "the SDE model" and {row["bounds"] for row in flows} == {
        "the ODE model"
    }
    for row in flows:
        errors = [row["standard_errors"][name] for name in FACTS]
        shown = [fixed(row["mean"]), fixed(row["standard_errors"]["images"])]
        shown += [fixed(math.nan if error is None else error, 5) for error in errors]
        shown.append(f"{row['standard_errors']['evaluations']:.1f}")
        assert " ".join(shown) in page.of("bounds")


def test_of_labelled_images_each_is_given_its_own(tmp_path):
    words = "train --preset digits-vdm --labels --steps 2 --batch-size 8 --eval-examples 8 --quiet"
    assert main([*words.split(), "--run", str(tmp_path / "run"), "--device", "cpu"]) == 0
    from diffenc_ct.cli.options import load_data

    opened = open_run(tmp_path / "run")
    data = load_data(opened.config.data)
    found = find("labelled", opened, data, Effort(examples=6, draws=1))
    own = evaluated(tmp_path / "run", tmp_path / "e.json", "--examples", "6", "--draws", "1")
    assert found.rows[0].mean == own["bits_per_dimension"]["total"]["mean"]
    randomise(opened.model, 0)  # two steps of training hardly tell labels apart
    drawn = [
        sample(model, SAMPLES, trajectory=PATHS, generator=torch.Generator().manual_seed(0)).samples
        for model in (opened.model.given(torch.arange(SAMPLES) % 10), opened.model)
    ]
    shown = pixels(album_of(opened, data, 0).samples.uri)
    told, untold = (np.asarray(image_grid(each, 17, columns=DEPTHS)) for each in drawn)
    assert np.array_equal(shown, told) and not np.array_equal(shown, untold)
    page = Reader(render([found]))
    assert "10 labels" in page.text and "given their labels" in page.text


def test_calibration_is_shown_and_evaluated_and_that_of_other_weights_is_left_out(
    folder, tmp_path, capsys
):
    run = tmp_path / "run"
    shutil.copytree(folder / NAME, run)
    few = "--depth 3 --candidates 6 --examples 16 --ratio step --device cpu --json".split()
    assert main(["calibrate", str(run), *few]) == 0
    fitted = json.loads(capsys.readouterr().out)
    evaluated(run, tmp_path / "t.json", "--noise-level", "optimal")
    capsys.readouterr()
    page, found = report(capsys, run, *FEW, out=tmp_path / "p.html")
    rows = found["runs"][0]["rows"]
    assert [row["name"] for row in rows][1:] == ["infinite depth, η*", "3 calibrated steps"]
    for row, option in zip(
        rows, ([], ["--noise-level", "optimal"], ["--calibration"]), strict=True
    ):
        own = evaluated(run, tmp_path / "e.json", *option)["bits_per_dimension"]["total"]
        assert row["mean"] == own["mean"]
        assert " ".join([str(run), *FEW[:4]]) in page.of("configuration")
    columns = zip(
        fitted["grid"][1:],
        fitted["grid"],
        fitted["ratio"],
        fitted["ratio_error"],
        fitted["eta"],
        strict=False,
    )
    for t, s, ratio, error, eta in columns:
        assert f"{t:.4f} {s:.4f} {ratio:.4f} {error:.4f} {eta:.3f}" in page.of("calibration")
    shutil.copy(run / "calibration.json", folder / "other" / "calibration.json")
    try:
        page, found = report(capsys, folder / "other", *FEW, out=tmp_path / "o.html")
    finally:
        (folder / "other" / "calibration.json").unlink()
    assert len(found["runs"][0]["rows"]) == 1
    assert "Left out:" in page.of("calibration") and "calibration.json" in page.of("calibration")


def test_a_single_example_has_no_standard_error(folder, tmp_path, capsys):
    words = (folder / NAME, folder / "other", "--examples", "1", "--draws", "1", "--device", "cpu")
    page, _ = report(capsys, *words, out=tmp_path / "p.html")
    assert "–" in page.of("bounds") and "nan" not in page.text.lower().replace("nan ", "")


def test_settings_that_differ_are_marked(folder, tmp_path):
    found = [
        found_of(folder / n, str(folder / "data.npy"), examples=2, draws=1) for n in (NAME, "other")
    ]
    page = render(found)
    (marked,) = re.findall(r'<tr class="differs"><td>(.*?)</td>', page)
    assert marked == "training.seed"


def test_refusals(folder, tmp_path, capsys):
    assert "no run at" in fails(capsys, "report", folder / "nowhere")
    assert ".html" in fails(capsys, "report", folder / "other", "--out", tmp_path / "page.pdf")
    assert "whole number" in fails(capsys, "report", folder / "other", "--examples", "0")
    with pytest.raises(ValueError, match="at least one run"):
        render([])


def test_the_page_lies_beside_the_first_run_unless_it_is_told_elsewhere(folder, capsys):
    assert (
        main(
            ["report", str(folder / "other"), "--examples", "2", "--draws", "1", "--device", "cpu"]
        )
        == 0
    )
    assert (folder / "other" / "report.html").exists()
    assert "report.html" in capsys.readouterr().out


def test_what_is_compared():
    """Rows of one name; of flows, where no name is shared, the last ones."""

    def rows(*names):
        facts = {True: {"solver": 0.1}, False: {}}
        return [Row(name, torch.zeros(2), "", facts["flow" in name]) for name in names]

    def names(one, other):
        return [(a.name, b.name) for a, b in _pairs(rows(*one), rows(*other))]

    assert names(["bound", "term", "own"], ["bound", "term"]) == [("bound",) * 2, ("term",) * 2]
    assert names(["bound", "flow a", "flow b"], ["bound", "flow a"])[1:] == [("flow a",) * 2]
    assert names(["bound", "flow a", "flow b"], ["bound", "flow c"])[1:] == [("flow b", "flow c")]
    assert names(["bound", "flow a"], ["bound"]) == [("bound",) * 2]


def test_heat_goes_from_dark_to_bright():
    values = torch.linspace(-1, 2, 31)[None, None]
    shown = heat(values, 0.0, 1.0)[0, :, 0].double()
    brightness = (shown * torch.tensor([[0.2126], [0.7152], [0.0722]])).sum(0)
    assert (brightness.diff() >= 0).all() and (brightness[10:21].diff() > 0).all()
    assert (shown[:, :11] == shown[:, :1]).all() and (shown[:, 20:] == shown[:, -1:]).all()


def test_other_examples_of_one_shape_are_not_compared(folder, tmp_path):
    values = np.random.default_rng(1).integers(0, 5, (200, 1, 4, 4)).astype(np.uint8)
    np.save(tmp_path / "data.npy", values)
    data = (str(folder / "data.npy"), str(tmp_path / "data.npy"))
    found = [found_of(folder / "other", name, examples=2, draws=1) for name in data]
    assert [each.why_not for each in comparisons(found)] == [
        "they were evaluated on other examples"
    ]


def test_the_seed_is_that_of_all_draws(folder):
    runs = [
        found_of(folder / "other", str(folder / "data.npy"), examples=2, draws=1, seed=seed)
        for seed in (0, 0, 1)
    ]
    same, other = (
        [each.rows[0].mean, each.album.samples.uri, each.album.bits.uri] for each in runs[1:]
    )
    first = [runs[0].rows[0].mean, runs[0].album.samples.uri, runs[0].album.bits.uri]
    assert same == first and all(a != b for a, b in zip(first, other, strict=True))
