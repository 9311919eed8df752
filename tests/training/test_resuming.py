"""Resuming: what may change and what may not, which data, which folder; and beginning with another run's weights."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffenc_ct.cli import main
from diffenc_ct.data import Dataset, load_dataset
from diffenc_ct.training.changes import CHANGES
from diffenc_ct.training.checkpoints import checkpoint_path, list_checkpoints
from diffenc_ct.training.config import Config, load_config, replace
from diffenc_ct.training.data_record import DataRecord
from diffenc_ct.training.loop import TrainingStopped, train
from diffenc_ct.training.runs import export, open_run
from diffenc_ct.training.settings import is_free, leaves
from diffenc_ct.training.state import State
from tests.cli.test_cli import TINY, fails
from tests.tiny_runs import CPU, assert_same, tensors_of, tiny


@pytest.fixture(scope="module")
def data():
    return load_dataset("swirl")


def everything(run):
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def history(run):
    entries = json.loads((run / CHANGES).read_text())["changes"]
    return [
        (
            entry["step"],
            {name: tuple(change.values()) for name, change in entry["settings"].items()},
        )
        for entry in entries
    ]


# What may change ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings_", "value"),
    [
        ("optimizer.learning_rate", 1e-3),
        ("optimizer.clip", 0.1),
        ("training.on_nan", "skip"),
        ("training.accumulate", 2),
        ("training.log_every", 1),
        ("training.eval_every", 3),
        ("training.save_every", 3),
        ("training.keep", 7),
        ("training.steps", 8),
    ],
)
def test_what_may_change_is_obeyed_and_recorded(tmp_path, data, settings_, value):
    config, run = tiny(), tmp_path / "run"
    train(replace(config, {"training.steps": 4}), run, data=data)
    train(config, run, data=data, resume=True)
    later = replace(config, {settings_: value, "training.steps": 8})
    train(later, run, data=data, resume=True)
    assert load_config(run / "config.json") == later
    expected = {"training.steps": (6, 8)}
    if settings_ != "training.steps":
        section, name = settings_.split(".")
        expected[settings_] = (getattr(getattr(config, section), name), value)
    assert history(run) == [(4, {"training.steps": (4, 6)}), (6, expected)]
    train(later, run, data=data, resume=True)  # nothing changed, nothing to record
    assert len(history(run)) == 2


def test_these_may_change_and_no_others():
    """What costs nothing of what was learned; data are known by their digest, wherever they are fetched from."""
    assert {name for name, item in leaves(Config).items() if is_free(item)} == {
        *("data.root", "data.download", "optimizer.learning_rate", "optimizer.clip"),
        *("training.steps", "training.accumulate", "training.on_nan", "training.keep"),
        *("training.log_every", "training.eval_every", "training.save_every"),
        *("training.eval_examples", "training.tensorboard", "training.cuda_graph"),
    }


def test_a_changed_learning_rate_holds_from_there_on(tmp_path, data):
    """The last steps are those of a run that had it from the start; the first those of one that never had it."""
    slow = tiny(optimizer__learning_rate=1e-5, training__steps=3)
    train(slow, tmp_path / "run", data=data)
    before = tensors_of(tmp_path / "run")
    fast = tiny(optimizer__learning_rate=1e-2, training__steps=4)
    train(fast, tmp_path / "run", data=data, resume=True)
    moved = [
        (after - before[name]).abs().max()
        for name, after in tensors_of(tmp_path / "run").items()
        if name.startswith("model/")
    ]
    assert 1e-3 < max(moved) < 5e-2


def test_the_rest_is_refused_by_name_unless_overridden(tmp_path, data, capsys):
    run = tmp_path / "run"
    train(tiny(training__steps=4), run, data=data)
    changed = tiny(optimizer__weight_decay=0.5, training__batch_size=8, optimizer__ema=(0.9, 0.5))
    before = everything(run)
    with pytest.raises(ValueError) as error:
        train(changed, run, data=data, resume=True)
    for words in (
        "optimizer.weight_decay: 0.01 -> 0.5",
        "training.batch_size: 16 -> 8",
        "optimizer.ema: (0.9999,) -> (0.9, 0.5)",
        "--override",
    ):
        assert words in str(error.value)
    assert "training.steps" not in str(error.value) and "\n" not in str(error.value)
    assert everything(run) == before
    train(changed, run, data=data, resume=True, override=True)
    assert load_config(run / "config.json") == changed
    assert set(open_run(run, weights="0.5").model.state_dict()) == set(
        open_run(run, weights="0.9").model.state_dict()
    )
    ((step, made),) = history(run)
    assert step == 4 and made["training.batch_size"] == (16, 8)
    assert "changed from step 4 on" in capsys.readouterr().out


def test_an_override_that_makes_another_model_is_refused_and_leaves_the_run(tmp_path, data):
    run = tmp_path / "run"
    train(tiny(training__steps=4), run, data=data)
    before = everything(run)
    wide = tiny(network__options={"width": 16, "layers": 1})
    with pytest.raises(ValueError, match="do not fit.*--init-from") as error:
        train(wide, run, data=data, resume=True, override=True)
    assert "\n" not in str(error.value)
    assert everything(run) == before
    train(tiny(), run, data=data, resume=True)


@pytest.mark.parametrize(
    "change", [{"training.steps": 8}, {"training.steps": 8, "training.keep": 3}]
)
def test_a_cosine_is_not_extended_without_a_word(tmp_path, data, change):
    config, run = tiny(optimizer__decay="cosine"), tmp_path / "run"
    train(config, run, data=data)
    with pytest.raises(ValueError, match=rf"training.steps: 6 -> 8.*--init-from {run}.*--override"):
        train(replace(config, change), run, data=data, resume=True)
    train(replace(config, change), run, data=data, resume=True, override=True)
    assert open_run(run).step == 8


# Which data -----------------------------------------------------------------------------------------

arrays = st.tuples(st.integers(2, 30), st.integers(1, 4), st.integers(0, 2**31)).map(
    lambda drawn: torch.from_numpy(
        np.random.Generator(np.random.PCG64(drawn[2])).integers(0, 5, drawn[:2]).astype(np.uint8)
    )
)


@given(arrays, st.data())
def test_a_record_tells_any_change(values, draw):
    data = Dataset("a", values, values.flip(0), 5)
    known = DataRecord.of(data)
    same = Dataset("b", values.long(), values.flip(0), 5)
    assert not known.unlike(DataRecord.of(same)) and not known.unfit(DataRecord.of(same))
    again = DataRecord(known.shape, known.levels, json.loads(json.dumps(known.parts)))
    assert again == known
    part = draw.draw(st.sampled_from(["train", "test"]))
    place = tuple(draw.draw(st.integers(0, size - 1)) for size in values.shape)
    other = getattr(data, part).clone()
    other[place] = (other[place] + 1) % 5
    (said,) = known.unlike(
        DataRecord.of(
            Dataset("a", *(other if p == part else getattr(data, p) for p in ("train", "test")), 5)
        )
    )
    assert f"other {part}" in said
    ((said),) = known.unlike(DataRecord.of(Dataset("a", values[1:], values.flip(0), 5)))
    assert f"{len(values)} -> {len(values) - 1} training examples" in said
    assert known.unfit(DataRecord.of(Dataset("a", values, values.flip(0), 6))) == ["levels 5 -> 6"]
    assert not known.unlike(DataRecord(known.shape, known.levels))  # of an older run


def test_large_data_are_told_by_blocks(monkeypatch):
    monkeypatch.setattr("diffenc_ct.training.data_record.MOST", 4096)
    monkeypatch.setattr("diffenc_ct.training.data_record.BLOCK", 256)
    values = torch.from_numpy(np.random.default_rng(0).integers(0, 9, (9100, 2)).astype(np.uint8))
    known = DataRecord.of(Dataset("a", values, values[:9], 9))
    for place in (0, len(values) - 1):
        other = values.clone()
        other[place] = 8 - other[place] if (8 - other[place] != other[place]).any() else 0
        assert known.unlike(DataRecord.of(Dataset("a", other, values[:9], 9)))
    assert not known.unlike(DataRecord.of(Dataset("a", values.clone(), values[:9], 9)))


@given(st.integers(0, 499))
def test_of_what_is_not_large_every_block_counts(place):
    values = torch.arange(1000).reshape(500, 2)
    other = values.clone()
    other[place, 1] = 0
    records = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffenc_ct.training.data_record.BLOCK", 64)
        for x in (values, other):
            records.append(DataRecord.of(Dataset("a", x, values[:3], 1000)))
    assert records[0].unlike(records[1])


@pytest.fixture
def trained(tmp_path):
    """A run on a file of its own, and the file's values."""
    values = np.random.default_rng(0).integers(0, 8, (40, 2)).astype(np.uint8)
    np.save(tmp_path / "data.npy", values)
    arguments = ["train", "--data", str(tmp_path / "data.npy"), "--run", str(tmp_path / "run")]
    assert main([*arguments, *TINY]) == 0
    return tmp_path / "run", values


def test_a_file_that_became_another_is_refused_on_resuming(trained, tmp_path, capsys):
    run, values = trained
    resume = ["train", "--run", run, "--resume", "--steps", "6", "--quiet", "--device", "cpu"]
    before = everything(run)
    other = values.copy()
    other[3, 0] = (other[3, 0] + 1) % 8
    for changed, words in (
        (other, "SHA-256"),
        (values[1:], "36 -> 35 training examples"),
        (values + 1, "levels 8 -> 9"),
        (values.repeat(2, 1), "shape (2,) -> (4,)"),
    ):
        np.save(tmp_path / "data.npy", changed)
        line = fails(capsys, *resume)
        assert words in line and "data.npy" in line, line
        assert everything(run) == before
    assert "shape (2,) -> (4,)" in fails(capsys, *resume, "--override")
    np.save(tmp_path / "data.npy", other)
    assert main([str(word) for word in [*resume, "--override"]]) == 0
    assert "SHA-256" in str(history(run)[0][1]["data"])


def test_the_same_data_elsewhere_are_the_same(trained, tmp_path, capsys):
    run, values = trained
    (tmp_path / "data.npy").rename(tmp_path / "moved.npy")
    resume = ["train", "--run", str(run), "--resume", "--steps", "6", "--quiet", "--device", "cpu"]
    assert main([*resume, "--data", str(tmp_path / "moved.npy")]) == 0
    assert load_config(run / "config.json").data.name == str(tmp_path / "moved.npy")


def test_an_evaluation_on_other_examples_says_so(trained, tmp_path, capsys):
    run, values = trained
    commands = {
        "evaluate": ["--examples", "2"],
        "calibrate": ["--depth", "2", "--candidates", "4", "--examples", "16"],
        "fit-head": ["--steps", "1", "--batch-size", "2"],
    }
    small = tmp_path / "small"
    export(run, small)
    np.save(tmp_path / "other.npy", 7 - values)
    for name, options in commands.items():
        for where in (run, small):
            command = [name, str(where), *options, "--device", "cpu"]
            assert main(command) == 0
            assert "warning: data" not in capsys.readouterr().err
            assert main([*command, "--data", str(tmp_path / "other.npy")]) == 0
            (line,) = [
                line for line in capsys.readouterr().err.splitlines() if "warning: data" in line
            ]
            for words in ("other.npy", "other training examples", "other test examples"):
                assert words in line


# Which folder ---------------------------------------------------------------------------------------


def test_a_folder_without_a_checkpoint_is_no_run(tmp_path, data):
    """As a start leaves it that failed before its first checkpoint: the next one is as if it were the first."""
    broken = tiny(
        network__kind="tests.tiny_runs:Breaking", network__options={}, training__save_every=6
    )
    with pytest.raises(TrainingStopped, match="no checkpoint was written yet"):
        train(replace(broken, {"training.log_every": 1}), tmp_path / "run", data=data)
    assert (tmp_path / "run" / "config.json").exists()
    assert not list_checkpoints(tmp_path / "run" / "checkpoints")
    train(tiny(), tmp_path / "run", data=data)
    train(tiny(), tmp_path / "whole", data=data)
    assert_same(tensors_of(tmp_path / "run"), tensors_of(tmp_path / "whole"))
    assert not (tmp_path / "run" / CHANGES).exists()
    rows = [(tmp_path / name / "metrics.csv").read_text().splitlines() for name in ("run", "whole")]
    assert [[row.split(",")[:2] for row in each] for each in rows][0] == [
        row.split(",")[:2] for row in rows[1]
    ]


def refuses_to_begin(capsys, mistyped):
    for arguments in ([], ["--steps", "9"], ["--seed", "2", "--encoder", "identity"]):
        line = fails(capsys, "train", "--run", mistyped, "--resume", "--quiet", *arguments)
        assert str(mistyped) in line and "--preset" in line
        assert "--run" in fails(capsys, "train", "--resume", "--quiet", *arguments)


def test_resuming_needs_a_run_or_what_to_begin(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mistyped = tmp_path / "mistyped"
    with monkeypatch.context() as patch:
        patch.setattr("diffenc_ct.cli.train.train", None)  # it must not come to that
        refuses_to_begin(capsys, mistyped)
    assert not list(tmp_path.iterdir())
    begin = ["train", "--data", "swirl", "--run", str(mistyped), "--resume", *TINY]
    assert main(begin) == 0 and main(begin) == 0
    assert main(["train", "--run", str(mistyped), "--resume", "--steps", "5", "--quiet"]) == 0
    assert open_run(mistyped).step == 5
    assert "--resume" in fails(capsys, "train", "--data", "swirl", "--override", "--run", mistyped)


@pytest.mark.parametrize("resume", [[], ["--resume"]])
def test_an_exported_folder_is_not_trained_into(trained, tmp_path, capsys, resume):
    export(trained[0], tmp_path / "small")
    before = everything(tmp_path / "small")
    line = fails(capsys, "train", "--data", "swirl", "--run", tmp_path / "small", *resume, *TINY)
    assert f"--init-from {tmp_path / 'small'}" in line
    assert "exported" in fails(capsys, "train", "--run", tmp_path / "small", "--resume", "--quiet")
    assert everything(tmp_path / "small") == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--learning-rate inf", "optimizer.learning_rate = inf; input should be a finite number"),
        ("--learning-rate nan", "optimizer.learning_rate = nan; input should be a finite number"),
        ("--epsilon 0", "optimizer.epsilon = 0.0; input should be greater than 1e-38"),
        ("--beta1 1", "less than 1"),
        ("--weight-decay -1", "greater than or equal to 0"),
        ("--weight-decay inf", "optimizer.weight_decay = inf; input should be a finite number"),
        ("--clip 0", "greater than 0"),
        ("--clip nan", "clip"),
        ("--noise-level nan", "noise"),
        ("--seed -1", "greater than or equal to 0"),
        ("--network-options width=nan", "network.options.width = nan"),
        ("--schedule-options gamma_max=1e999", "schedule.options.gamma_max = inf"),
        ("--ema 0.9 nan", "ema"),
    ],
)
def test_numbers_that_cannot_be_trained_with_are_refused_before_the_start(
    tmp_path, capsys, monkeypatch, words, said
):
    monkeypatch.chdir(tmp_path)
    line = fails(capsys, "train", "--data", "swirl", "--run", tmp_path / "run", *words.split())
    assert said in line
    assert not list(tmp_path.iterdir())


# Beginning with weights -----------------------------------------------------------------------------


@given(st.sampled_from(["run", "exported", "checkpoint"]), st.booleans())
@settings(max_examples=4)
def test_a_run_begins_with_the_averages_of_another(tmp_path_factory, data, kind, wider):
    """Equal names and shapes are taken; the others are as drawn; the averages are at them, the optimiser is fresh."""
    folder = tmp_path_factory.mktemp("init")
    train(tiny(training__seed=5, optimizer__learning_rate=1e-2), folder / "first", data=data)
    averaged = {
        name.removeprefix("ema/0.9999/"): tensor
        for name, tensor in tensors_of(folder / "first").items()
        if name.startswith("ema/0.9999/")
    }
    export(folder / "first", folder / "small")
    source = {
        "run": folder / "first",
        "exported": folder / "small",
        "checkpoint": checkpoint_path(folder / "first" / "checkpoints", 6),
    }[kind]
    options = {"encoder__network__options": {"width": 12, "layers": 1}} if wider else {}
    config = tiny(
        training__init_from=str(source),
        training__steps=1,
        optimizer__learning_rate=1e-30,
        **options,
    )
    train(config, folder / "run", data=data)
    found, drawn = tensors_of(folder / "run"), State.fresh(config, data, CPU).model.state_dict()
    taken = {name for name in drawn if averaged[name].shape == drawn[name].shape}
    assert (set(drawn) == taken) == (not wider) and taken
    for name, tensor in drawn.items():
        expected = averaged[name] if name in taken else tensor
        for place in (f"model/{name}", f"ema/0.9999/{name}"):
            torch.testing.assert_close(found[place], expected, rtol=1e-6, atol=1e-7)
    assert load_config(folder / "run" / "config.json").training.init_from == str(source)
    steps = [tensor for name, tensor in found.items() if name.endswith("/step")]
    assert steps and all(tensor == 1 for tensor in steps)


def test_resuming_does_not_begin_again(tmp_path, data, capsys):
    train(tiny(training__seed=5), tmp_path / "first", data=data)
    config = tiny(training__init_from=str(tmp_path / "first"))
    train(config, tmp_path / "whole", data=data)
    train(replace(config, {"training.steps": 3}), tmp_path / "parts", data=data)
    capsys.readouterr()
    train(config, tmp_path / "parts", data=data, resume=True)
    assert "tensors" not in capsys.readouterr().out
    assert_same(tensors_of(tmp_path / "whole"), tensors_of(tmp_path / "parts"))


def test_where_no_checkpoint_is_intact_a_run_begins_as_it_began(tmp_path, data):
    train(tiny(training__seed=5), tmp_path / "first", data=data)
    config = tiny(training__init_from=str(tmp_path / "first"))
    train(config, tmp_path / "whole", data=data)
    train(config, tmp_path / "spoiled", data=data)
    for path in list_checkpoints(tmp_path / "spoiled" / "checkpoints"):
        path.write_bytes(path.read_bytes()[:-3])
    with pytest.warns(UserWarning, match="truncated"):
        train(config, tmp_path / "spoiled", data=data, resume=True)
    assert_same(tensors_of(tmp_path / "whole"), tensors_of(tmp_path / "spoiled"))


def test_data_are_standardised_by_their_own_numbers(tmp_path, capsys):
    """Those of the run whose weights are taken belong to its data."""
    values = np.random.default_rng(0).normal(5, 2, (60, 2))
    for name, shift in (("first", 0), ("second", 1e3)):
        np.save(tmp_path / f"{name}.npy", values + shift)
    common = ["train", "--standardise", *TINY]
    first, second = (
        [*common, "--data", str(tmp_path / f"{name}.npy"), "--run", str(tmp_path / name)]
        for name in ("first", "second")
    )
    assert main(first) == 0
    assert main([*second, "--init-from", str(tmp_path / "first")]) == 0
    assert "fresh are decoder.mean, decoder.deviation" in capsys.readouterr().out
    means = [open_run(tmp_path / name).model.decoder.mean for name in ("first", "second")]
    assert torch.allclose(means[0] + 1e3, means[1], rtol=1e-3)


def test_what_was_taken_is_said_and_nothing_is_refused(tmp_path, capsys):
    first = tmp_path / "first"
    assert main(["train", "--data", "swirl", "--run", str(first), *TINY]) == 0
    capsys.readouterr()
    begin = ["train", "--data", "swirl", "--init-from", first]
    again = [*begin, "--run", tmp_path / "second", *TINY]
    assert main([str(word) for word in again]) == 0
    said = capsys.readouterr().out
    count = len(open_run(first).model.state_dict())
    assert f"{count} of {count} tensors are those of {first}" in said and "fresh" not in said
    other = [
        *begin,
        "--run",
        tmp_path / "third",
        *TINY,
        "--encoder-network-options",
        "width=12",
        "layers=1",
    ]
    assert main([str(word) for word in other]) == 0
    said = capsys.readouterr().out
    assert f"of {count} tensors" in said and "fresh are encoder.network." in said
    line = fails(
        capsys, "train", "--data", "swirl", "--init-from", "mnist-vdm", "--run", tmp_path / "no", *TINY
    )  # fmt: skip
    assert "none of its" in line and "mnist-vdm" in line
    assert "no run at" in fails(
        capsys, "train", "--data", "swirl", "--init-from", "nowhere", "--run", tmp_path / "no", *TINY
    )  # fmt: skip
    assert not list_checkpoints(tmp_path / "no" / "checkpoints")
