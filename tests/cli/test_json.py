"""--json: one JSON object on standard output, which holds the numbers that people are shown, and nothing else there."""

import json
import math
import re
import sys

import numpy as np
import pytest

from diffenc_ct.cli import COMMANDS, Result, main, make_parser
from tests.cli.test_cli import TINY, fails

SMALL = ["--device", "cpu"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with a run on points, one on images, one on images with labels, and a compressed file."""
    folder = tmp_path_factory.mktemp("json")
    values = np.random.default_rng(0).integers(0, 5, (40, 1, 4, 4)).astype(np.uint8)
    np.save(folder / "data.npy", values)
    np.savez(folder / "labelled.npz", train=values, labels_train=np.arange(40) % 2)
    unet = ["--network-options", "width=8", "halvings=1", "--encoder", "identity"]
    for name, more in {
        "points": ["--data", "swirl", *TINY],
        "images": [*TINY, "--data", str(folder / "data.npy"), *unet],
    }.items():
        if name == "images":
            more += ["--encoder-network-options"]
        assert main(["train", "--run", str(folder / name), *more]) == 0
    labelled = (
        "train --preset digits-vdm --labels --steps 2 --batch-size 8 --eval-examples 8 --quiet"
    )
    assert main([*labelled.split(), *SMALL, "--run", str(folder / "labelled")]) == 0
    few = ["--examples", "2", "--depth", "2", "--split", "test", "-o", str(folder / "coded")]
    assert main(["compress", str(folder / "images"), *few, *SMALL]) == 0
    return folder


# What each command is called with; {} is the folder above.
CALLS = {
    "train": "train --data swirl --run {}/new --steps 2 --batch-size 8 --eval-examples 8",
    "train, nothing done": "train --preset digits --dry-run",
    "evaluate": "evaluate {}/points --examples 20 --draws 2",
    "evaluate a single image": "evaluate {}/images --examples 1 --out {}/one.json",
    "evaluate the likelihood": "evaluate {}/points --examples 2 --likelihood ode --draws 2 --atol 0.01",
    "sample": "sample {}/images --count 3 --steps 3",
    "classify": "classify {}/labelled --examples 6 --draws 2",
    "verify": "verify --world gaussian --examples 32 --draws 8 --path-steps 16 --deepest 32 --out {}/v.json",
    "calibrate": "calibrate {}/points --depth 4 --candidates 8 --examples 32 --ratio step",
    "compress": "compress {}/images --split test --examples 2 --depth 2 -o {}/again",
    "decompress": "decompress {}/coded -o {}/images.npy",
    "export": "export {}/points {}/exported",
    "report": "report {}/points {}/images --examples 8 --draws 1",
    "fit-head": "fit-head {}/points --steps 3 --batch-size 8",
}
# Numbers that people see in other units than the object has.
UNITS = (1, 1e-6, 1e-9, 2**-20)


def called(name, folder):
    words = CALLS[name].format(*[folder] * CALLS[name].count("{}")).split()
    return words if words[0] in ("export", "verify") else [*words, *SMALL]


def numbers_in(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, str):
        value = [float(word) for word in re.findall(r"\d+\.\d+", value)]
    if isinstance(value, list):
        return [number for item in value for number in numbers_in(item)]
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []


def shown(text):
    """Numbers with a point that people read, and what half a unit of their last digit is; without progress bars."""
    lines = [line for line in re.split(r"[\r\n]", text) if not re.search(r"\d%\||it/s", line)]
    for found in re.finditer(r"(?<![\w.])-?\d[\d,]*\.(\d+)(?![\w.])", "\n".join(lines)):
        yield float(found[0].replace(",", "")), 0.5 * 10.0 ** -len(found[1])


@pytest.mark.parametrize("name", CALLS)
def test_one_object_with_the_numbers_that_people_see(name, runs, capsys):
    assert main([*called(name, runs), "--json"]) == 0
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 1
    found = json.loads(captured.out, parse_constant=lambda word: pytest.fail(word))
    held = [number * unit for number in numbers_in(found) for unit in UNITS]
    people = list(shown(captured.err))
    assert people or name in ("sample", "train, nothing done", "train")
    for number, half in people:
        nearest = min((abs(number - other) for other in held), default=math.inf)
        assert nearest <= half * 1.001, (number, captured.err)
    assert all((runs / path).exists() for path in found["written"])


def test_every_command_is_called():
    assert {call.split()[0] for call in CALLS.values()} == set(COMMANDS)
    for name in COMMANDS:
        assert (
            "--json"
            in make_parser([name])._subparsers._group_actions[0].choices[name].format_help()
        )


def test_without_it_people_are_told_on_standard_output(runs, capsys):
    assert main(called("evaluate", runs)) == 0
    plain = capsys.readouterr().out
    assert main([*called("evaluate", runs), "--json"]) == 0
    captured = capsys.readouterr()
    assert plain in captured.err and plain.startswith(str(runs))


def test_it_is_the_file_that_evaluate_writes(runs, capsys):
    assert main([*called("evaluate", runs), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [path.rpartition(".")[2] for path in found.pop("written")] == ["json", "csv", "png"]
    assert found == json.loads((runs / "points" / "evaluation.json").read_text())


def test_what_is_not_finite_is_null(runs, capsys):
    assert main([*called("evaluate a single image", runs), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["bits_per_dimension"]["total"]["standard_error"] is None
    assert found["not_finite"]["bits_per_dimension.total.standard_error"] == "nan"
    assert json.loads(Result({"a": math.inf}).json)["a"] is None


def test_a_mistake_is_one_line_and_no_object(runs, capsys):
    assert "no run at" in fails(capsys, "evaluate", runs / "nowhere", "--json")
    with pytest.raises(SystemExit):
        main(["evaluate", "--json", "--stepps"])
    captured = capsys.readouterr()
    assert captured.out == "" and len(captured.err.splitlines()) == 1


def test_the_exit_code_stays(runs, capsys):
    """What failed to be solved is said by the code and in the object."""
    words = "--examples 3 --likelihood ode --max-steps 1 --json".split()
    assert main(["evaluate", str(runs / "points"), *words, *SMALL]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["rows"][0]["mean"] is None and sum(found["rows"][0]["failed"].values()) == 3


def test_of_several_processes_the_first_one_speaks(runs, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["export", str(runs / "points"), str(tmp_path / "e"), "--json"]) == 0
    assert capsys.readouterr().out == ""


def test_proofs(monkeypatch, capsys):
    from theory import __main__ as proofs

    monkeypatch.setitem(sys.modules, "diffenc_ct.theory.__main__", proofs)  # its installed name
    chosen = [each for each in proofs.theorems() if each.section == "schedules"][:2]
    monkeypatch.setattr(proofs, "theorems", lambda: chosen)
    assert main(["verify", "--theory", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["theorems"] == 2 and found["failed"] == []
    assert found["controls"] == sum(len(each.controls) for each in chosen)
