"""What does a training step cost? Images a second of full steps, of DiffEnc and of VDM, against the machine's bound.

The configuration: score U-Net of width 32, 2 layers; the encoder's U-Net of width 32, 2 levels, channels doubled;
dropout 0.1; random images of 28 x 28 in 256 levels, whose content changes no time. A step is all terms of the ELBO,
backward, AdamW, moving average. Both models and the matrix product (2048 cubed, float32) take turns; medians are told.

    python benchmarks/train_step.py                      two threads, batch 16; about two minutes
    python benchmarks/train_step.py --profile            where the time goes
    python benchmarks/train_step.py --memory             peak memory against batch size
    python benchmarks/train_step.py --device cuda --paper [--minutes 60]
        the paper's MNIST and CIFAR-10 models in float32, bf16, bf16 and compiled, against the card's bf16 matrix
        product; with --minutes, VDM and DiffEnc are trained on MNIST for as long (DIFFENC_DATA holds it)

AUTHORS_CODE: a checkout of the authors' code that its JAX can import, AUTHORS_PYTHON: the interpreter that has it; then
their steps, jitted, are timed in the same run. The last line is JSON.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from step_timing import count_flops, matmul, random_images, seconds, stepper
from torch.profiler import ProfilerActivity, profile

from diffenc_ct.training.config import (
    Config,
    EncoderConfig,
    ModelConfig,
    NetworkConfig,
    TrainingConfig,
    replace,
)
from diffenc_ct.training.loop import train
from diffenc_ct.training.presets import preset

Settings = argparse.Namespace


def reference(kind: str, settings: Settings, **changes) -> Config:
    """The configuration of the module's text, of kind "vdm" or "diffenc"."""
    encoder = EncoderConfig(kind="identity")
    if kind == "diffenc":
        options = {"width": settings.width, "layers": 2, "groups": settings.width // 2}
        options["block_groups"] = settings.width
        network = NetworkConfig(kind="encoder-unet", options=options)
        encoder = EncoderConfig(kind="trainable", network=network)
    options = {"width": settings.width, "layers": 2, "groups": settings.width}
    options["block_groups"] = settings.width
    training = {
        "batch_size": settings.batch_size,
        "ends_fraction": settings.ends_fraction,
        "rate_fraction": settings.rate_fraction,
        "precision": settings.precision,
        "compile": settings.compile,
        "channels_last": settings.channels_last,
    }
    return Config(
        encoder=encoder,
        network=NetworkConfig(kind="score-unet", options=options),
        model=ModelConfig(prediction="v"),
        training=TrainingConfig(**training | changes),
    )


def authors_rates(settings: Settings) -> dict[str, float] | None:
    """Images a second of the authors' own steps, or None where their code or JAX is not at hand."""
    code, python = (os.environ.get(name) for name in ("AUTHORS_CODE", "AUTHORS_PYTHON"))
    if not code or not python:
        return None
    script = Path(__file__).with_name("authors_step.py")
    command = [python, str(script), code, str(settings.batch_size), str(settings.threads)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(f"the authors' code cannot be timed: {done.stderr.strip().splitlines()[-1]}")
        return None
    return json.loads(done.stdout.splitlines()[-1])


def compare(settings: Settings) -> None:
    """The table of the reference configuration, and the JSON line."""
    device, data = torch.device(settings.device), random_images(1, settings.side, settings.side)
    whole = {"ends_fraction": 1.0, "rate_fraction": 1.0}
    configs = {
        "VDM": reference("vdm", settings),
        "DiffEnc": reference("diffenc", settings),
        "DiffEnc, all terms on the whole batch": reference("diffenc", settings, **whole),
    }
    runs = {name: stepper(config, data, device) for name, config in configs.items()}
    runs["matmul"] = matmul(settings.matmul, torch.float32, device)
    took = seconds(runs, device, settings.rounds)
    peak = 2 * settings.matmul**3 / took["matmul"] / 1e9
    flops = {name: count_flops(config, data) for name, config in configs.items()}
    print(f"matrix product {peak:.1f} GFLOP/s; DiffEnc with ends on {settings.ends_fraction:g}, "
          f"rate on {settings.rate_fraction:g} of the batch")  # fmt: skip
    print(
        f"{'step':<40}{'images/s':>9}{'ms':>8}{'MFLOP/image':>13}{'of matmul':>11}{'/ VDM':>7}{'bound':>7}"
    )
    for name in configs:
        print(f"{name:<40}{settings.batch_size / took[name]:>9.1f}{1e3 * took[name]:>8.1f}"
              f"{flops[name] / settings.batch_size / 1e6:>13.0f}{flops[name] / took[name] / 1e9 / peak:>11.2f}"
              f"{took[name] / took['VDM']:>7.2f}{flops[name] / flops['VDM']:>7.2f}")  # fmt: skip
    theirs = authors_rates(settings)
    if theirs:
        print(f"the authors' code: VDM {theirs['vdm']:.1f}, DiffEnc {theirs['diffenc']:.1f} images/s, "
              f"ratio {theirs['vdm'] / theirs['diffenc']:.2f}")  # fmt: skip
    result = {
        "images_per_second": settings.batch_size / took["DiffEnc"],
        "vdm_images_per_second": settings.batch_size / took["VDM"],
        "matmul_gflops": peak,
        "flops_fraction": flops["DiffEnc"] / took["DiffEnc"] / 1e9 / peak,
        "authors_images_per_second": theirs and theirs["diffenc"],
    }
    print(json.dumps(result))


def show_profile(settings: Settings) -> None:
    """Self times of the operations of a step, in ms and in parts of the whole."""
    device, data = torch.device(settings.device), random_images(1, settings.side, settings.side)
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    for kind in ("vdm", "diffenc"):
        step = stepper(reference(kind, settings), data, device)
        step(), step()
        with profile(activities=activities) as seen:
            for _ in range(settings.rounds):
                step()
        own = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
        times = {event.key: getattr(event, own) for event in seen.key_averages()}
        total = sum(times.values())
        print(f"{kind}: {total / settings.rounds / 1e3:.0f} ms a step")
        for name, value in sorted(times.items(), key=lambda item: -item[1])[:14]:
            print(f"    {name[:60]:<62}{value / settings.rounds / 1e3:>9.1f}{value / total:>8.1%}")


def show_memory(settings: Settings) -> None:
    """Peak memory of a step above that of the imported program, by batch size, each in a process of its own."""
    print(f"{'batch':>6}{'VDM, MiB':>12}{'DiffEnc, MiB':>14}")
    for batch in (4, 16, 64):
        peaks = []
        for kind in ("vdm", "diffenc"):
            command = [sys.executable, __file__, "--peak-of", kind, "--batch-size", str(batch)]
            command += ["--threads", str(settings.threads), "--width", str(settings.width)]
            command += ["--ends-fraction", str(settings.ends_fraction)]
            command += ["--rate-fraction", str(settings.rate_fraction)]
            out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            peaks.append(float(out))
        print(f"{batch:>6}{peaks[0]:>12.0f}{peaks[1]:>14.0f}", flush=True)


def print_peak(settings: Settings) -> None:
    """MiB that two steps add to the process's peak."""
    data = random_images(1, settings.side, settings.side)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step = stepper(reference(settings.peak_of, settings), data, torch.device("cpu"))
    step(), step()
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def paper(settings: Settings) -> None:
    """The paper's configurations on a card: speed in three arithmetics, and MNIST trained for a while."""
    device = torch.device(settings.device)
    peak_run = {"matmul": matmul(settings.matmul, torch.bfloat16, device)}
    peak = 2 * settings.matmul**3 / seconds(peak_run, device, settings.rounds)["matmul"] / 1e12
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(f"{name}: bf16 matrix product {peak:.3g} TFLOP/s")
    print(f"{'model':<18}{'arithmetic':<20}{'images/s':>10}{'of matmul':>11}{'GiB':>8}")
    result: dict[str, object] = {"device": name, "bf16_matmul_tflops": peak}
    arithmetics = {
        "float32": {},
        "bf16": {"training.precision": "bf16"},
        "bf16 + compile": {"training.precision": "bf16", "training.compile": True},
    }
    for data_name, shape in (("mnist", (1, 28, 28)), ("cifar10", (3, 32, 32))):
        for kind in ("vdm", "diffenc"):
            config = small(preset(f"{data_name}-{kind}"), settings)
            data, batch = random_images(*shape), config.training.batch_size
            flops = batch * count_flops(replace(config, {"training.batch_size": 1}), data)
            for arithmetic, changes in arithmetics.items():
                if device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                run = {"step": stepper(replace(config, changes), data, device)}
                took = seconds(run, device, settings.rounds)["step"]
                used = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0.0
                print(f"{data_name + ' ' + kind:<18}{arithmetic:<20}{batch / took:>10.1f}"
                      f"{flops / took / 1e12 / peak:>11.2f}{used:>8.1f}", flush=True)  # fmt: skip
                result[f"{data_name}-{kind} {arithmetic}"] = batch / took
    if settings.minutes:
        for kind in ("vdm", "diffenc"):
            result[f"mnist-{kind} bpd"] = train_for(kind, settings, result)
    print(json.dumps(result))


def small(config: Config, settings: Settings) -> Config:
    """The configuration itself, or with --width, --batch-size of its own a small version for trying the script."""
    if not settings.tiny:
        return config
    changes: dict[str, object] = {"training.batch_size": 2, "network.options": TINY}
    if config.encoder.kind == "trainable":
        changes["encoder.network.options"] = TINY
    return replace(config, changes)


TINY = {"width": 8, "layers": 1, "groups": 4, "block_groups": 4}


def train_for(kind: str, settings: Settings, rates: dict[str, object]) -> float:
    """Bits per dimension of test images after --minutes of the paper's MNIST configuration, in bf16 and compiled."""
    config = small(preset(f"mnist-{kind}"), settings)
    rate = float(str(rates[f"mnist-{kind} bf16 + compile"]))
    steps = max(1, int(60 * settings.minutes * rate / config.training.batch_size))
    changes = {"training.steps": steps, "training.precision": "bf16", "training.compile": True,
               "optimizer.ema": (0.999,), "training.eval_every": steps, "training.save_every": steps}  # fmt: skip
    if settings.tiny:
        changes["training.eval_examples"] = 4
    data = random_images(1, 28, 28) if settings.tiny else None
    with tempfile.TemporaryDirectory() as folder:
        summary = train(
            replace(config, changes), folder, device=settings.device, data=data, progress=True
        )
    print(
        f"mnist {kind}: {summary.steps} steps, {summary.metrics['bpd']:.3f} bits/dim of test images"
    )
    return summary.metrics["bpd"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--ends-fraction", type=float, default=1 / 16)
    parser.add_argument("--rate-fraction", type=float, default=1 / 8)
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--rounds", type=int, default=15, help="timed steps of each model")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--matmul", type=int, help="side of the matrices (2048; 8192 with --paper)")
    parser.add_argument("--width", type=int, default=32, help="of both networks")
    parser.add_argument("--side", type=int, default=28, help="of the images")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--peak-of", choices=("vdm", "diffenc"), help=argparse.SUPPRESS)
    parser.add_argument("--paper", action="store_true")
    parser.add_argument("--minutes", type=float, default=0.0, help="with --paper: of training")
    parser.add_argument(
        "--tiny", action="store_true", help="with --paper: small networks, to try it"
    )
    settings = parser.parse_args()
    torch.set_num_threads(settings.threads)
    settings.matmul = settings.matmul or (8192 if settings.paper else 2048)
    chosen = [
        (settings.peak_of, print_peak),
        (settings.memory, show_memory),
        (settings.profile, show_profile),
        (settings.paper, paper),
    ]
    next((run for wanted, run in chosen if wanted), compare)(settings)


if __name__ == "__main__":
    main()
