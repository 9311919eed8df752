"""The state of training: model, moving averages, optimiser, step; to and from a checkpoint, bit for bit."""

import copy
import re
from dataclasses import dataclass, field
from textwrap import shorten
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from diffenc_ct.calibration import RunningNoiseLevel
from diffenc_ct.data import Dataset
from diffenc_ct.distributed import Processes
from diffenc_ct.elbo import Depths, ImportanceDepths, LowDiscrepancyDepths, Terms
from diffenc_ct.model import DiffEnc, evaluating
from diffenc_ct.process import NoiseLevel
from diffenc_ct.training.build import build_model, gamma_range, named_noise_level
from diffenc_ct.training.checkpoints import Checkpoint, rate_name
from diffenc_ct.training.config import Config, OptimizerConfig
from diffenc_ct.training.data_record import DataRecord
from diffenc_ct.training.recorded import Recorded

MOMENTS = "noise_level/moments"
DEPTHS = "depths/moments"


@dataclass
class State:
    """What a step changes.

    Attributes:
        model: that is trained.
        averages: a model of averaged weights for each rate.
        optimizer: AdamW.
        noise_level: eta, a running estimate of eta* where training is at it.
        depths: how t is drawn.
        step: how many were done.
        skipped: how many of them were passed over.
        recorded: the gradient's CUDA graph, once there is one.
    """

    model: DiffEnc
    averages: dict[float, DiffEnc]
    optimizer: torch.optim.Optimizer
    noise_level: NoiseLevel
    depths: Depths
    step: int = 0
    skipped: int = 0
    recorded: Recorded[tuple[Tensor, Terms]] | None = field(default=None, repr=False)
    _parallel: nn.parallel.DistributedDataParallel | None = field(default=None, repr=False)

    @classmethod
    def fresh(cls, config: Config, data: Dataset, device: torch.device) -> "State":
        """The state before the first step.

        Args:
            config: of the run.
            data: that the model must fit.
            device: of everything.
        """
        model = build_model(config, data).to(device)
        if config.training.channels_last:
            model = model.to(memory_format=torch.channels_last)
        averages = {
            rate: copy.deepcopy(model).requires_grad_(False).eval() for rate in config.optimizer.ema
        }
        if config.training.compile:
            compile_networks(model)
        if config.training.noise_level == "optimal":
            level: NoiseLevel = RunningNoiseLevel(*gamma_range(model.schedule)).to(device)
        else:
            level = named_noise_level(config.training.noise_level)
        importance = config.training.depths == "importance"
        depths: Depths = ImportanceDepths().to(device) if importance else LowDiscrepancyDepths()
        return cls(model, averages, make_optimizer(model, config.optimizer), level, depths)

    @property
    def averaged(self) -> DiffEnc:
        """The model of the first moving average: the one that is evaluated and loaded."""
        return next(iter(self.averages.values()))

    def parallel(
        self, processes: Processes, example: Shaped[Tensor, "one *data"]
    ) -> DiffEnc | nn.parallel.DistributedDataParallel:
        """The model as it is called in training: alone itself, else wrapped to take the mean of gradients.

        Args:
            processes: of the launch.
            example: one or more of the data; whether a gradient reaches every parameter is seen on it.
        """
        if processes.size == 1:
            return self.model
        if self._parallel is None:
            own = [processes.device.index] if processes.device.type == "cuda" else None
            unused = processes.largest(int(leaves_out(self.model, example)))
            with processes.answered():
                self._parallel = nn.parallel.DistributedDataParallel(
                    self.model, device_ids=own, find_unused_parameters=bool(unused)
                )
        return self._parallel

    def update_averages(self) -> None:
        """ema <- ema + (1 - r_n) (weights - ema) after step n = self.step, r_n = min(rate, (1 + n) / (10 + n)).

        The ramp makes the average forget the untrained weights in short runs; it spans a tenth of the run so far.
        """
        with torch.no_grad():
            for rate, averaged in self.averages.items():
                now = min(rate, (1 + self.step) / (10 + self.step))
                get_ema_multi_avg_fn(now)(  # type: ignore[no-untyped-call]
                    list(averaged.parameters()), list(self.model.parameters()), None
                )
                for mine, theirs in zip(averaged.buffers(), self.model.buffers(), strict=True):
                    mine.copy_(theirs)

    def checkpoint(self, config: Config, data: DataRecord, metrics: dict[str, float]) -> Checkpoint:
        """Everything that `restore` needs.

        Args:
            config: of the run.
            data: that it is trained on.
            metrics: of an evaluation at this step, or none.
        """
        tensors = _prefixed("model", self.model.state_dict())
        for rate, averaged in self.averages.items():
            tensors |= _prefixed(f"ema/{rate_name(rate)}", averaged.state_dict())
        for name, parameter in self.model.named_parameters():
            tensors |= _prefixed(f"optimizer/{name}", self.optimizer.state.get(parameter, {}))
        if isinstance(self.noise_level, RunningNoiseLevel):
            tensors[MOMENTS] = self.noise_level.moments
        if isinstance(self.depths, ImportanceDepths):
            tensors[DEPTHS] = self.depths.moments
        return Checkpoint(
            tensors,
            config.to_dict(),
            self.step,
            data.shape,
            data.levels,
            dict(metrics),
            self.skipped,
            data.parts,
        )

    def begin_with(self, weights: dict[str, Tensor], where: str) -> list[str]:
        """Take the weights, and the averages at them, that agree in name and shape; the optimiser begins anew.

        Args:
            weights: of another model, by name.
            where: they are from, for the error.

        Returns:
            Names of the tensors that stay as they were.

        Raises:
            ValueError: where none fits.
        """
        # What the decoder scales by is a fact of the data, not a weight.
        own = self.model.state_dict()
        wanted = {k: v for k, v in own.items() if not k.startswith("decoder.")}
        fits = {k: v for k, v in weights.items() if k in wanted and wanted[k].shape == v.shape}
        if not fits:
            raise ValueError(
                f"{where}: none of its {len(weights)} tensors agrees in name and shape with the {len(own)} of this "
                "model; name a run with the same parts"
            )
        for model in (self.model, *self.averages.values()):
            model.load_state_dict(fits, strict=False)
        return [name for name in own if name not in fits]

    def restore(self, saved: Checkpoint) -> None:
        """Continue from a checkpoint: of the same configuration, or of one from which the weights are the same.

        Averages and moments that it does not have begin here.

        Args:
            saved: the checkpoint.

        Raises:
            ValueError: where its weights are those of another model.
        """
        try:
            self.model.load_state_dict(saved.under("model/"))
        except RuntimeError as error:
            raise ValueError(
                f"the weights of step {saved.step} do not fit the model of the changed configuration "
                f"({shorten(str(error), 200)}); begin a new run with --init-from"
            ) from error
        for rate, averaged in self.averages.items():
            # Version 0.1 named averages by six digits.
            places = (f"ema/{rate_name(rate)}/", f"ema/{rate:g}/", "model/")
            averaged.load_state_dict(next(held for n in places if (held := saved.under(n))))
        groups = self.optimizer.state_dict()["param_groups"]
        names = {id(parameter): name for name, parameter in self.model.named_parameters()}
        state: dict[int, dict[str, Tensor]] = {}
        ordered = [p for group in self.optimizer.param_groups for p in group["params"]]
        for index, parameter in enumerate(ordered):
            if tensors := saved.under(f"optimizer/{names[id(parameter)]}/"):
                state[index] = tensors
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        if isinstance(self.noise_level, RunningNoiseLevel) and MOMENTS in saved.tensors:
            self.noise_level.moments = saved.tensors[MOMENTS].to(self.noise_level.edges)
        if isinstance(self.depths, ImportanceDepths) and DEPTHS in saved.tensors:
            self.depths.moments = saved.tensors[DEPTHS].to(self.depths.moments)
        self.step, self.skipped = saved.step, saved.skipped


def compile_networks(model: DiffEnc, backend: str = "inductor", *, encoder: bool = False) -> None:
    """Have torch.compile do the forward and backward passes of the score network.

    In place; names of the parameters do not change. Every batch size is compiled by itself.

    Args:
        model: whose heads' networks they are.
        backend: of torch.compile.
        encoder: also the encoder's network, if it takes jets (PyTorch cannot compile forward-mode differentiation that
            a backward pass follows). That is traced without breaks and gives equal numbers, but PyTorch 2.14's inductor
            needs many minutes for it.
    """
    for network in model.heads.children():
        network.compile(backend=backend, dynamic=False)
    inner = getattr(model.encoder, "network", None)
    if encoder and isinstance(inner, nn.Module) and getattr(inner, "takes_jets", False):
        inner.compile(backend=backend, dynamic=False)


def leaves_out(model: DiffEnc, example: Shaped[Tensor, "one *data"]) -> bool:
    """Whether the loss gives a parameter that is trained no gradient, as a part of a plug-in that is not used.

    DistributedDataParallel waits for all gradients, unless it is told to look for those that will not come: which costs
    a walk through the graph at every step, and a warning where there are none.

    Args:
        model: that is trained.
        example: one or more of its data.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    # not to compile for this one example
    with evaluating(model), torch.compiler.set_stance("force_eager"):
        loss = model(example).total.sum()
        found = torch.autograd.grad(loss, trained, allow_unused=True)
    return any(gradient is None for gradient in found)


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW with decoupled weight decay on everything but biases, as the authors have it."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (plain if re.search(r"(^|\.)bias$", name) else decayed).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        eps=config.epsilon,
        fused=True,
    )


def _prefixed(prefix: str, tensors: dict[str, Any]) -> dict[str, Tensor]:
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def count_parameters(part: nn.Module) -> int:
    """Number of trainable numbers."""
    return sum(p.numel() for p in part.parameters() if p.requires_grad)
