"""Flags of `diffenc train`: one for every setting, and what the words after them become."""

import json

import pytest

from diffenc_ct.cli import main, make_parser
from diffenc_ct.cli.flags import flag_of, given_settings
from diffenc_ct.training.config import Config
from diffenc_ct.training.settings import leaves


def test_every_setting_has_a_flag_of_its_own():
    flags = [flag_of(name) for name in leaves(Config)]
    assert len(set(flags)) == len(flags)


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        ("--data x.npy --data-root /d", {"data.name": "x.npy", "data.root": "/d"}),
        ("--data-root none --levels None", {"data.root": None, "data.levels": None}),
        ("--data none", {"data.name": "none"}),
        ("--levels 17 --download", {"data.levels": 17, "data.download": True}),
        ("--no-compile --no-download", {"training.compile": False, "data.download": False}),
        ("--learning-rate 1e-3 --clip 1", {"optimizer.learning_rate": 1e-3, "optimizer.clip": 1.0}),
        ("--clip none --ema 0.9 0.99", {"optimizer.clip": None, "optimizer.ema": [0.9, 0.99]}),
        ("--noise-level 0.5", {"training.noise_level": 0.5}),
        ("--noise-level tight", {"training.noise_level": "tight"}),
        ("--encoder-network a.b:C", {"encoder.network.kind": "a.b:C"}),
        (
            "--schedule-options a=1 b=1.5 c=true d=none e=x=y",
            {"schedule.options": {"a": 1, "b": 1.5, "c": True, "d": None, "e": "x=y"}},
        ),
        ("--network-options", {"network.options": {}}),
        ("", {}),
    ],
)
def test_words_become_settings(words, settings):
    found = given_settings(make_parser().parse_args(["train", *words.split()]))
    assert repr(found) == repr(settings)  # 1, 1.0 and True are equal, and not the same


def test_help_says_every_setting_with_its_default(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for name, item in leaves(Config).items():
        assert flag_of(name) in text
        assert item.description[:10] in text
    for default in ("digits", "linear", "0.0002", "0.9999", "128", "constant", "1.0"):
        assert f"(default {default})" in text
    assert "(default None)" not in text and "(default False)" not in text


def test_flags_override_a_preset_and_a_file(tmp_path, capsys):
    file = tmp_path / "c.toml"
    file.write_text("[training]\nbatch_size = 32\nsteps = 7\n[data]\nname = 'swirl'\n")
    for source, learning_rate in ((["--preset", "digits"], 2e-3), (["--config", str(file)], 2e-4)):
        assert main(["train", *source, "--steps", "9", "--dry-run"]) == 0
        printed = capsys.readouterr().out
        config = json.loads(printed[: printed.rindex("}") + 1])
        assert config["training"]["steps"] == 9
        assert config["training"]["batch_size"] == {2e-3: 64, 2e-4: 32}[learning_rate]
        assert config["optimizer"]["learning_rate"] == learning_rate
