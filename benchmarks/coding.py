"""What images cost on disk by a model's own code, and by the codecs that everybody has.

    python benchmarks/coding.py [--models digits-vdm mnist-vdm] [--images 360] [--depths 8 16 32] [--data-root ROOT]

Test images of each model, coded by mixture steps on the uniform grid in one file, which another process decodes; its
images are compared with the originals byte for byte. net: bits per dimension without the initial bits; gross: of the
file, header and initial bits and all; bound: L_0 + L_1 + L_T, every image visiting every step once, with the standard
error of its mean over images, which the net length shares. PNG, WebP and JPEG XL (where pillow-jxl-plugin is installed)
code image by image, what a file has beside its pixels included; xz, bzip2 and zstd (where there is a module of it) all
images as one string of bytes.

Last line: JSON, of the first model at the last depth; lossless is of all. --write keeps every row,
beside those of other models.
"""

import argparse
import bz2
import importlib
import io
import json
import lzma
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import diffenc_ct as dc
from diffenc_ct.coding import CodingOptions, encode, read
from diffenc_ct.data import load_dataset
from diffenc_ct.model import evaluating

RESULTS = Path(__file__).parent / "results"


@torch.no_grad()
def bound(model: dc.DiffEnc, x: Tensor, steps: dc.FiniteDepth) -> Tensor:
    """L_0 + L_1 + L_T of each image in bits per dimension: every step once."""
    g, total = torch.Generator().manual_seed(0), torch.zeros(len(x), dtype=torch.float64)
    with evaluating(model):
        for rows in torch.arange(len(x)).split(64):
            for step in range(steps.depth):
                t = torch.full((len(rows),), (step + 0.5) / steps.depth)
                terms = dc.elbo(model, x[rows], steps, draws=dc.Draws(t=t), generator=g)
                total[rows] += terms.bits_per_dimension().total.double()
    return total / steps.depth


def decoded_elsewhere(data: bytes) -> tuple[bytes, float]:
    """The images' bytes as another process decodes them, and its seconds, which begin with its imports."""
    with tempfile.TemporaryDirectory() as folder:
        file, array = Path(folder) / "x.diffenc", Path(folder) / "x.npy"
        file.write_bytes(data)
        command = [
            sys.executable,
            "-m",
            "diffenc_ct.cli",
            "decompress",
            str(file),
            "-o",
            str(array),
        ]
        started = time.perf_counter()
        subprocess.run([*command, "--device", "cpu"], check=True, capture_output=True)
        return np.load(array).tobytes(), time.perf_counter() - started


def by_model(name: str, model: dc.DiffEnc, x: Tensor, depth: int, options: CodingOptions) -> dict:
    """One row of the table."""
    steps, evaluations = dc.FiniteDepth(depth, step="mixture"), []
    hook = model.heads.network.register_forward_hook(
        lambda _, inputs, __: evaluations.append(len(inputs[0]))
    )
    asked = {"run": name, "weights": "ema", "checkpoint": "latest", "calibration": None}
    started = time.perf_counter()
    data = encode(model, x, steps, options, run=asked | {"depth": depth, "step": "mixture"})
    encoding = time.perf_counter() - started
    hook.remove()
    found, decoding = decoded_elsewhere(data)
    each, coded = bound(model, x, steps), read(data)
    return {
        "net_bpd": coded.net,
        "gross_bpd": coded.gross,
        "bound_bpd": float(each.mean()),
        "error_bpd": float(each.std()) / math.sqrt(len(each)),
        "evaluations": sum(evaluations) / len(x),
        "encoded_per_second": len(x) / encoding,
        "decoded_per_second": len(x) / decoding,
        "lossless": found == x.numpy().astype(np.uint8).tobytes(),
    }


def by_others(x: Tensor) -> dict[str, float]:
    """Bits per dimension of the usual codecs, as far as they are installed."""
    from PIL import Image

    pixels = x.numpy().astype(np.uint8)
    images = [Image.fromarray(p[0] if len(p) == 1 else np.moveaxis(p, 0, 2)) for p in pixels]
    rgb = [image.convert("RGB") for image in images]
    found = {
        "png": _files(images, "PNG", optimize=True),
        "webp": _files(rgb, "WEBP", lossless=True, quality=100, method=6),
        "xz": len(lzma.compress(pixels.tobytes(), preset=9 | lzma.PRESET_EXTREME)),
        "bzip2": len(bz2.compress(pixels.tobytes(), 9)),
    }
    for name in ("zstandard", "compression.zstd"):
        try:
            zstd = importlib.import_module(name)
        except ImportError:
            continue
        found["zstd"] = len(zstd.compress(pixels.tobytes(), 19))
    try:
        importlib.import_module("pillow_jxl")
        found["jxl"] = _files(images, "JXL", lossless=True, effort=9)
    except ImportError:
        pass
    return {name: 8 * size / pixels.size for name, size in found.items()}


def _files(images: list, kind: str, **options: object) -> int:
    total = 0
    for image in images:
        stream = io.BytesIO()
        image.save(stream, kind, **options)
        total += stream.tell()
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", default=["digits-vdm", "mnist-vdm"])
    parser.add_argument("--images", type=int, help="of each (default 360 digits, 1,000 others)")
    parser.add_argument("--depths", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--bits", type=int, default=CodingOptions().bits)
    parser.add_argument("--batch-size", type=int, default=CodingOptions().batch)
    parser.add_argument("--data-root")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--write", action="store_true", help="keep all rows in benchmarks/results/")
    settings = parser.parse_args()
    if settings.threads:
        torch.set_num_threads(settings.threads)
    options = CodingOptions(settings.bits, settings.batch_size)
    results = []
    for name in settings.models:
        model = dc.load(name)
        data = load_dataset(name.split("-")[0], root=settings.data_root)
        x = data.test[: settings.images or (360 if name.startswith("digits") else 1000)]
        others = by_others(x)
        print(f"\n{name}: {len(x)} test images")
        print("".join(f"{other} {bpd:.3f}   " for other, bpd in others.items()), flush=True)
        for depth in settings.depths:
            row = by_model(name, model, x, depth, options)
            print(
                f"T = {depth:<3} net {row['net_bpd']:.4f}  bound {row['bound_bpd']:.4f} ± {row['error_bpd']:.4f}  "
                f"gross {row['gross_bpd']:.4f}  {row['evaluations']:g} evaluations an image  "
                f"{row['encoded_per_second']:.3g} and {row['decoded_per_second']:.3g} images a second  "
                f"{'lossless' if row['lossless'] else 'NOT LOSSLESS'}",
                flush=True,
            )
            usual = {f"{other}_bpd": bpd for other, bpd in others.items()}
            results.append((name, depth, len(x), {"jxl_bpd": None} | usual | row))
    if settings.write:
        path = RESULTS / "coding.json"
        kept = json.loads(path.read_text())["rows"] if path.exists() else []
        rows = [row for row in kept if row["model"] not in settings.models]
        for name, depth, count, row in results:
            rows.append({"model": name, "depth": depth, "images": count} | row)
        path.write_text(json.dumps({"rows": rows}, indent=1) + "\n")
    first = [row for name, *_, row in results if name == settings.models[0]][-1]
    names = ("net_bpd", "bound_bpd", "png_bpd", "jxl_bpd", "evaluations")
    whole = all(row["lossless"] for *_, row in results)
    print(json.dumps({name: first[name] for name in names} | {"lossless": whole}))


if __name__ == "__main__":
    main()
