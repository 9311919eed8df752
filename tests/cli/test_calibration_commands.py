"""Commands around sampling and calibration: calibrate, evaluate --calibration, sample with its files."""

import json

import jaxtyping
import numpy as np
import pytest
import torch
from PIL import Image

from diffenc_ct.calibration import Calibration
from diffenc_ct.cli import main
from diffenc_ct.cli.sample import in_own_type
from diffenc_ct.data import load_dataset
from diffenc_ct.elbo import Draws, FiniteDepth, elbo
from diffenc_ct.sampling import Ancestral, sample
from diffenc_ct.training.evaluation import evaluate
from diffenc_ct.training.runs import open_run
from tests.cli.test_cli import TINY, fails

UNET = ["--network-options", "width=8", "halvings=1"]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A run on small images, with calibration.json (ratios per value), each.json (per dimension), step.json."""
    folder = tmp_path_factory.mktemp("images")
    values = np.random.default_rng(0).integers(0, 5, (60, 1, 8, 8)).astype(np.uint8)
    np.save(folder / "data.npy", values)
    run = folder / "run"
    arguments = ["train", "--data", str(folder / "data.npy"), "--run", str(run), *TINY, *UNET]
    assert main([*arguments, "--encoder", "non-trainable", "--encoder-network-options"]) == 0
    base = ["calibrate", str(run), "--depth", "3", "--candidates", "8", "--examples", "20"]
    assert main([*base, "--device", "cpu"]) == 0
    for ratio, file in (("dimension", "each.json"), ("step", "step.json")):
        options = ["--ratio", ratio, "--out", str(run / file), "--device", "cpu"]
        assert main([*base, *options]) == 0
    return run


def test_calibrate_says_what_reads_its_file(images, tmp_path, capsys) -> None:
    base = ["calibrate", str(images), "--depth", "2", "--candidates", "4", "--examples", "16"]
    out = tmp_path / "c.json"
    assert (
        main([*base, "--uniform", "--noise-level", "1", "--out", str(out), "--device", "cpu"]) == 0
    )
    printed = capsys.readouterr().out
    for command, file in (
        (f"diffenc evaluate {images} --calibration {out}", "o.json"),
        (f"diffenc sample {images} --schedule calibrated:{out}", "o.png"),
    ):
        assert command in printed
        given = ["--device", "cpu", "--out", str(tmp_path / file)]
        assert main([*command.split()[1:], *given]) == 0
    found = Calibration.load(out)
    assert found.grid.tolist() == [0, 0.5, 1] and found.eta_squared.tolist() == [1, 1]
    assert found.examples == 16 and found.ratio_per_dimension is None


@pytest.mark.parametrize(
    "file,name",
    [
        ("calibration.json", "w*(x_hat)"),
        ("each.json", "w* per dimension"),
        ("step.json", "w*"),
    ],
)
def test_evaluate_takes_grid_ratios_and_noise_levels(images, file, name, tmp_path, capsys) -> None:
    """The numbers are those of elbo with the calibration's parts, on test examples."""
    out = tmp_path / "e.json"
    given = (
        ["--calibration"] if file == "calibration.json" else ["--calibration", str(images / file)]
    )
    assert main(["evaluate", str(images), *given, "--device", "cpu", "--out", str(out)]) == 0
    assert f"3 calibrated steps with {name} and" in capsys.readouterr().out
    written = json.loads(out.read_text())
    opened, found = open_run(images), Calibration.load(images / file)
    data = load_dataset(str(images.parent / "data.npy"))
    ratio = {
        "calibration.json": found.ratio_per_value,
        "each.json": found.ratio_per_dimension,
        "step.json": found.ratio,
    }[file]
    bound = FiniteDepth(found.grid, ratio=ratio, noise_level=found.noise_level)
    own = evaluate(opened.model, data.test, bound)
    assert written["bits_per_dimension"]["total"]["mean"] == pytest.approx(own.mean("total"))
    plain = evaluate(opened.model, data.test, FiniteDepth(3))
    assert own.mean("diffusion") < plain.mean("diffusion")


def test_evaluation_on_a_grid(images) -> None:
    """Depths lie in the step that was visited, and the loss per unit of depth integrates to the diffusion loss."""
    opened = open_run(images)
    x, grid = load_dataset(str(images.parent / "data.npy")).test, torch.tensor([0.0, 0.1, 0.6, 1.0])
    found = evaluate(opened.model, x, FiniteDepth(grid), draws=40)
    step = torch.bucketize(found.t.contiguous(), grid[1:-1].double())
    widths = grid.double().diff()
    counts = torch.bincount(step, minlength=3)
    assert ((counts - len(step) / 3).abs() <= 40).all()  # every step is visited as often
    each = torch.stack([found.integrand[step == k].mean() for k in range(3)])
    assert float((each * widths).sum()) == pytest.approx(found.mean("diffusion"), rel=0.02)
    draws = Draws(t=torch.full((len(x),), 0.5))
    terms = elbo(opened.model, x, FiniteDepth(grid), draws=draws).bits_per_dimension()
    # The second of three steps, half a unit of depth wide: its loss is a third of what elbo multiplies by three.
    assert float(each[1]) == pytest.approx(
        float(terms.diffusion.detach().mean()) / 3 / 0.5, rel=0.1
    )


def test_calibrated_samples(images, tmp_path) -> None:
    """The command's images are those of the calibration's ancestral steps, shape taken from the model."""
    out = tmp_path / "s.png"
    command = ["sample", str(images), "--count", "3", "--device", "cpu", "--out", str(out)]
    assert main([*command, "--schedule", "calibrated"]) == 0
    model, found = open_run(images).model, Calibration.load(images / "calibration.json")
    generator = torch.Generator().manual_seed(0)
    own = sample(model, 3, solver=Ancestral.of(found), generator=generator)
    assert np.array_equal(np.load(out.with_suffix(".npz"))["samples"], own.samples.numpy())
    for file in ("each.json", "step.json"):
        assert main([*command, "--schedule", f"calibrated:{images / file}"]) == 0
        assert not np.array_equal(np.load(out.with_suffix(".npz"))["z_0"], own.z_0.numpy())


def test_trajectory_strip_and_animation(images, tmp_path) -> None:
    """Beside the samples: a strip, rows of z_t and x_hat, and a GIF of as many frames as evaluations."""
    out = tmp_path / "s.png"
    command = ["sample", str(images), "--count", "4", "--steps", "5", "--device", "cpu"]
    assert main([*command, "--trajectory", "2", "--out", str(out)]) == 0
    strip = Image.open(tmp_path / "s-trajectory.png")
    movie = Image.open(tmp_path / "s-trajectory.gif")
    assert movie.n_frames == 5 and strip.size[0] > strip.size[1]
    frames = []
    for k in range(5):
        movie.seek(k)
        frames.append(np.asarray(movie.convert("L")).astype(float))
    assert all(np.abs(a - b).mean() > 0.1 for a, b in zip(frames[:-1], frames[1:], strict=True))
    plain = tmp_path / "p.png"
    assert main([*command, "--out", str(plain)]) == 0
    assert not (tmp_path / "p-trajectory.png").exists()
    assert np.asarray(Image.open(plain)).tobytes() == np.asarray(Image.open(out)).tobytes()


def test_latents_from_a_file(images, tmp_path, capsys) -> None:
    """The latents that a run wrote give its images again, from .npz and .npy, whatever the seed."""
    first, again = tmp_path / "first.png", tmp_path / "again.png"
    base = ["sample", str(images), "--steps", "4", "--device", "cpu"]
    assert main([*base, "--count", "3", "--out", str(first)]) == 0
    made = np.load(first.with_suffix(".npz"))
    np.save(tmp_path / "z.npy", made["latents"])
    for file in (first.with_suffix(".npz"), tmp_path / "z.npy"):
        latents = ["--latents", str(file), "--seed", "9", "--out", str(again)]
        assert main([*base, *latents]) == 0
        assert np.allclose(np.load(again.with_suffix(".npz"))["z_0"], made["z_0"], atol=1e-5)
    np.save(tmp_path / "flat.npy", made["latents"].reshape(3, 64))
    np.save(tmp_path / "whole.npy", made["samples"])
    np.savez(tmp_path / "other.npz", z=made["latents"])
    (tmp_path / "text.npy").write_text("no array")
    capsys.readouterr()
    for name, words in (
        ("flat.npy", "floats of shape"),
        ("whole.npy", "floats of shape"),
        ("other.npz", "no array `latents`"),
        ("text.npy", "neither an .npy"),
        ("gone.npy", "gone.npy"),
    ):
        assert words in fails(capsys, *base, "--latents", tmp_path / name)


@pytest.mark.parametrize(
    "arguments,words",
    [
        ("evaluate RUN --calibration gone.json", "diffenc calibrate"),
        ("evaluate RUN --calibration RUN/config.json", "no calibration"),
        ("evaluate RUN --calibration RUN/samples.npz", "no calibration"),
        (
            "evaluate RUN --calibration --depth 3",
            "--depth 3 has no effect here: a calibration brings",
        ),
        ("evaluate RUN --calibration --noise-level tight", "--noise-level tight has no effect"),
        ("evaluate RUN --calibration --likelihood elbo", "--calibration has no effect here"),
        ("sample RUN --schedule calibrated --steps 3", "calibration"),
        ("sample RUN --schedule calibrated --solver rk4", "calibration"),
        ("sample RUN --solver nonsense", "not known"),
        (
            "sample RUN --solver dopri5 --steps 4",
            "--steps 4 has no effect here: solver 'dopri5' has no such option",
        ),
        ("sample RUN --schedule cosine", "choose uniform"),
        ("sample RUN --steps 0", "--steps: '0'; give a whole number of at least 1"),
        ("calibrate RUN --depth 0 --candidates 8 --examples 16", "--depth: '0'"),
        ("calibrate RUN --depth 9 --candidates 8 --examples 16", "give 1 to 8"),
        ("calibrate RUN --examples 3", "at least 16"),
        ("calibrate RUN --ratio best", "invalid choice"),
        ("verify RUN --deepest 24", "multiple of 16"),
        ("verify", "give a run or --world"),
        ("verify RUN --world mixture", "one of the two"),
    ],
)
def test_nonsense_is_refused_in_one_line(images, arguments, words, capsys, monkeypatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as users run it
    (images / "samples.npz").write_bytes(b"\x8e\x00")
    assert words in fails(capsys, *arguments.replace("RUN", str(images)).split())


def test_single_images_and_the_datas_own_type(images, tmp_path, capsys) -> None:
    """One PNG of 8 bits a sample, levels spread over 0 to 255; a folder with anything in it is refused."""
    out, folder = tmp_path / "s.npz", tmp_path / "all" / "single"
    base = ["sample", str(images), "--count", "3", "--steps", "4", "--device", "cpu"]
    command = [*base, "--out", str(out), "--images", str(folder)]
    assert main(command) == 0
    samples = np.load(out)["samples"]
    assert samples.dtype == np.uint8 and out.with_suffix(".png").exists()
    assert [path.name for path in sorted(folder.iterdir())] == [f"00000{i}.png" for i in range(3)]
    for i, sample_ in enumerate(samples):
        picture = np.asarray(Image.open(folder / f"00000{i}.png"))
        top = open_run(images).model.decoder.levels - 1
        assert picture.dtype == np.uint8
        assert np.array_equal(picture, np.round(255.0 * sample_[0] / top).astype(np.uint8))
    capsys.readouterr()
    assert "is not empty" in fails(capsys, *command)


@pytest.mark.parametrize(
    ("levels", "dtype"),
    [(2, "uint8"), (256, "uint8"), (257, "uint16"), (65536, "uint16"), (65537, "int64"), (None, "float32")],
)  # fmt: skip
def test_samples_are_of_the_smallest_type_that_holds_their_levels(levels, dtype) -> None:
    values = torch.rand(3) if levels is None else torch.tensor([0, 1, levels - 1])
    found = in_own_type(values, levels)
    assert str(found.dtype) == f"torch.{dtype}" and torch.equal(found.to(values.dtype), values)
