"""Generated mutants that no test can notice, each with its reason: they do not count."""

from typing import NamedTuple


class Equivalent(NamedTuple):
    """A line of a file, before and after, as a survivor is printed."""

    file: str
    original: str
    mutated: str
    reason: str


EQUIVALENTS = [
    Equivalent(
        "diffenc_ct/data/points.py",
        "return (corner + random.random((size, 2))) / 2 - 1",
        "return -((corner + random.random((size, 2))) / 2 - 1)",
        "the board is its own mirror image through the origin",
    ),
    Equivalent(
        "diffenc_ct/training/checkpoints.py",
        "if place < len(key):",
        "if place <= len(key):",
        "what is found begins at 8 or later, so that its end is never len(key)",
    ),
    Equivalent(
        "diffenc_ct/training/changes.py",
        'write_atomically(path, (as_json({"changes": [*entries, entry]}, indent=1) + "\\n").encode())',
        'write_atomically(path, (as_json({"changes": [*entries, entry]}) + "\\n").encode())',
        "the same JSON without line breaks",
    ),
    Equivalent(
        "diffenc_ct/training/config.py",
        'return json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\\n"',
        'return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\\n"',
        "the same JSON, indented further",
    ),
    Equivalent(
        "diffenc_ct/training/state.py",
        "_parallel: nn.parallel.DistributedDataParallel | None = field(default=None, repr=False)",
        "_parallel: nn.parallel.DistributedDataParallel | None = field(default=None)",
        "nobody prints a state; its text would name the same networks twice",
    ),
    Equivalent(
        "diffenc_ct/training/state.py",
        "network.compile(backend=backend, dynamic=False)",
        "network.compile(backend=backend)",
        "how often the compiler begins anew, not what it computes",
    ),
    Equivalent(
        "diffenc_ct/data/readers.py",
        "data = stream.read(promised + 1)",
        "data = stream.read(promised + 2)",
        "one byte more than promised is enough to tell, two are, too",
    ),
    Equivalent(
        "diffenc_ct/calibration/kept.py",
        'plain = json.loads(Path(path).read_text(encoding="utf-8"))',
        "plain = json.loads(Path(path).read_text())",
        "what is written there is ASCII, which every locale's encoding reads alike",
    ),
    Equivalent(
        "diffenc_ct/training/loop.py",
        "dynamic_ncols=True,",
        "dynamic_ncols=False,",
        "whether a bar follows its window when that is drawn wider",
    ),
    Equivalent(
        "diffenc_ct/dynamics.py",
        "raise NotImplementedError",
        "pass",
        "of a private base class that nobody makes",
    ),
    Equivalent(
        "diffenc_ct/encoders.py",
        "return torch.where(to_y < 0.5, x + to_y * y - to_y * x, to_x * x + to_y * y)",
        "return torch.where(to_y <= 0.5, x + to_y * y - to_y * x, to_x * x + to_y * y)",
        "at one half both forms are (x + y)/2",
    ),
    Equivalent(
        "diffenc_ct/process/gaussians.py",
        "return torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator)",
        "return torch.randn(x.shape, dtype=x.dtype, generator=generator)",
        "without a GPU there is one device; tests/ on a GPU would notice",
    ),
]
