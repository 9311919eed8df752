"""The defaults of all that is public, and what presets hold, are those that are written down in defaults.json.

A default is a promise: whoever leaves an argument out gets other numbers when it changes. What is meant is written anew
by `python -m tests.test_defaults`, and said in CHANGELOG.md.
"""

import importlib
import inspect
import json
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffenc_ct as dc
from diffenc_ct.training import config
from diffenc_ct.training.presets import PRESETS

FILE = Path(__file__).with_name("defaults.json")
# Their words and options have tests of their own, or they are nobody's face.
LEFT_OUT = re.compile(r"diffenc_ct\.(cli|theory)|.*__main__")


def callables() -> Iterator[tuple[str, Any]]:
    """Public functions, classes and their methods, by name."""
    for module in pkgutil.walk_packages(dc.__path__, "diffenc_ct."):
        if LEFT_OUT.match(module.name):
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            if name.startswith("_") or getattr(value, "__module__", "") != module.name:
                continue
            path = f"{module.name}.{name}".removeprefix("diffenc_ct.")
            if inspect.isfunction(value):
                yield path, value
            elif inspect.isclass(value):
                methods = {k: v for k, v in vars(value).items() if inspect.isfunction(v)}
                for k, method in methods.items():
                    if k == "__init__" or not k.startswith("_"):
                        yield (path if k == "__init__" else f"{path}.{k}"), method


def shown(default: Any) -> str:
    """A default in words that are the same in every process."""
    if inspect.isfunction(default) or inspect.isclass(default):
        return str(default.__name__)
    return re.sub(r" at 0x[0-9a-f]+", "", repr(default))


def defaults() -> dict[str, dict[str, str]]:
    """Of every callable that has some: parameter and default; of sections of a configuration and presets: fields'."""
    sections = (getattr(config, n) for n in vars(config) if not n.startswith("_"))
    found = {
        f"training.config.{each.__name__}": {
            name: shown(field.get_default(call_default_factory=True))
            for name, field in each.model_fields.items()
        }
        for each in sections
        if inspect.isclass(each) and each.__module__ == config.__name__ and each.model_fields
    }
    for name, preset in PRESETS.items():
        plain = preset.to_dict()
        found[f"training.presets.{name}"] = {
            f"{section}.{key}": shown(value)
            for section, values in plain.items()
            if isinstance(values, dict)
            for key, value in values.items()
        }
    for path, value in callables():
        parameters = inspect.signature(value).parameters.values()
        own = {p.name: shown(p.default) for p in parameters if p.default is not p.empty}
        if own:
            found[path] = own
    return dict(sorted(found.items()))


def test_defaults_are_those_that_are_written_down():
    written, found = json.loads(FILE.read_text(encoding="utf-8")), defaults()
    assert found.keys() == written.keys()
    for path, own in found.items():
        assert own == written[path], f"{path}; if it is meant: python -m tests.test_defaults"


if __name__ == "__main__":
    FILE.write_text(json.dumps(defaults(), indent=1) + "\n", encoding="utf-8")
