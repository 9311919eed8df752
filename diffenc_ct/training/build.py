"""From a configuration to a model: parts by short name or import path, built from what the data require.

A part's constructor is given the options of the configuration and, of the facts below, those that it names:

    channels and height of images; dimensions (the number of values of an example); shape; levels;
    gamma_range (where the schedule starts and ends); out_channels and outputs, twice the data's for paired heads;
    network (for an encoder that has one); bounded=True (for an encoder's network)
    features (whether a network sees noise-aware Fourier features of z): True for heads, False for an encoder
    classes of labels, where data have them, for the score network: net(z, gamma, condition=None) then (see
    networks.conditions)
    fourier (whether it sees Fourier features of z itself) and residual (whether z is added to its output): True where
    it is read as v, x or eps, False for posterior heads, which need neither, and for an encoder's network
    gamma_min (for a schedule of data of V levels): -2 ln(3 V) to one decimal, which puts sigma_0 at a sixth of
    the levels' distance; the paper's -13.3 at V = 256

So `class MyNet(nn.Module): def __init__(self, channels, *, width=64)` works as it is, by the name
"my_package.my_module:MyNet", in the place of any network, encoder or schedule.
"""

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from diffenc_ct import networks as nets
from diffenc_ct.data import Dataset
from diffenc_ct.encoders import (
    Encoder,
    IdentityEncoder,
    NonTrainableEncoder,
    ResidualEncoder,
    TrainableEncoder,
)
from diffenc_ct.model import (
    DiffEnc,
    Heads,
    MixturePosterior,
    Paired,
    Posterior,
    Single,
    log_histogram,
)
from diffenc_ct.process import AnyNoiseLevel, NoiseLevel, NonTrainableNoiseLevel, as_noise_level
from diffenc_ct.schedules import (
    LearnedLinearSchedule,
    LinearSchedule,
    MonotoneSchedule,
    PolynomialSchedule,
    Schedule,
)
from diffenc_ct.training.config import Config, NetworkConfig
from diffenc_ct.training.decoders import make_decoder, standardised_by
from diffenc_ct.training.plugins import import_part
from diffenc_ct.training.settings import suggest

T = TypeVar("T")

SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "linear": LinearSchedule,
    "learned-linear": LearnedLinearSchedule,
    "monotone": MonotoneSchedule,
    "polynomial": PolynomialSchedule,
}
ENCODERS: dict[str, Callable[..., Encoder]] = {
    "identity": IdentityEncoder,
    "non-trainable": NonTrainableEncoder,
    "trainable": TrainableEncoder,
    "residual": ResidualEncoder,
}
HEADS: dict[str, Callable[..., Heads]] = {"single": Single, "paired": Paired}
MOST_LEVELS = 1024  # of a categorical head
NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "unet": nets.UNet,
    "score-unet": nets.ScoreUNet,
    "encoder-unet": nets.EncoderUNet,
    "multi-resolution-unet": functools.partial(nets.EncoderUNet, body="multiresolution"),
    "vector": nets.VectorNetwork,
    "mlp": nets.MLP,
}


def build_model(config: Config, data: Dataset) -> DiffEnc:
    """The untrained model of a configuration, with weights drawn from its seed.

    Args:
        config: whose parts they are.
        data: what they must fit.

    Raises:
        ValueError: where a name, an option or a combination is not possible, naming it.
    """
    prior = None
    if config.model.prediction == "posterior" and _by_levels(data.levels):
        assert data.levels is not None
        prior = log_histogram(data.train, data.levels, each=_prior(config))
    classes = None if data.labels is None else data.labels.classes
    model = build_model_for(config, data.shape, data.levels, prior, classes=classes)
    if config.data.standardise:
        model.decoder = standardised_by(data.train)
    return model


def build_model_for(
    config: Config,
    shape: tuple[int, ...],
    levels: int | None,
    prior: Tensor | None = None,
    *,
    classes: int | None = None,
) -> DiffEnc:
    """As build_model, without the data.

    Args:
        config: whose parts they are.
        shape: of one example.
        levels: of integers, None for reals.
        prior: log histogram of the data for posterior heads; 0 of that shape where it is to be loaded.
        classes: of labels that the score network is given, None without.

    Raises:
        ValueError: as build_model.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.training.seed)
        start = {} if levels is None else {"gamma_min": round(-2 * math.log(3 * levels), 1)}
        named = config.schedule
        schedule = _build("schedule", named.kind, SCHEDULES, named.options, start)
        schedule = _checked("schedule", schedule, Schedule)
        dimensions = torch.Size(shape).numel()
        facts: dict[str, Any] = {
            "shape": shape,
            "levels": levels,
            "dimensions": dimensions,
            "gamma_range": gamma_range(schedule),
        }
        if len(shape) == 3:
            facts |= {"channels": shape[0], "height": shape[1]}
        encoder = _encoder(config, facts)
        known = {} if classes is None else {"classes": classes}
        heads = _heads(config, facts | known, prior)
        if classes is not None:
            heads.given(torch.zeros(1, dtype=torch.long))  # refuses a network that takes no labels
        decoder = make_decoder(config.data, shape, levels)
        return DiffEnc(schedule, encoder, heads, decoder, shape=tuple(shape))


def named_noise_level(value: AnyNoiseLevel | str) -> NoiseLevel:
    """A noise level by its name in a configuration.

    Args:
        value: a number (also as text), "tight" (eta^2 = 1 + 2 sigma^2), or what `as_noise_level` takes.

    Raises:
        ValueError: for another word.

    Example:
        >>> named_noise_level("0.8").eta
        0.8
    """
    if not isinstance(value, str):
        return as_noise_level(value)
    if value == "tight":
        return NonTrainableNoiseLevel()
    try:
        return as_noise_level(float(value))
    except ValueError:
        raise ValueError(
            f'noise level {value!r} is neither a number nor "tight" nor "optimal"'
        ) from None


@torch.no_grad()
def gamma_range(schedule: Schedule) -> tuple[float, ...]:
    """gamma at depths 0 and 1, to six decimals."""
    ends = schedule(torch.tensor([0.0, 1.0], dtype=torch.float64)).gamma.tolist()
    return tuple(round(end, 6) for end in ends)


def _heads(config: Config, facts: dict[str, Any], prior: Tensor | None) -> Heads:
    part, shape, levels = config.model, facts["shape"], facts["levels"]
    paired, posterior = part.heads == "paired", part.prediction == "posterior"
    outputs = 1 + paired
    if posterior:
        kind = Posterior if _by_levels(levels) else MixturePosterior
        known = {"levels": levels, "paired": paired}
        outputs = _build(
            "model", part.prediction, {part.prediction: kind.outputs_for}, part.head_options, known
        )
        if prior is None and kind is Posterior:
            none = torch.zeros((1, *shape), dtype=torch.long)
            prior = 0 * log_histogram(none, levels, each=_prior(config))
    elif part.head_options:
        raise ValueError(
            f"model.head_options are posterior heads'; prediction {part.prediction!r} has none"
        )
    facts = facts | {"out_channels": outputs * shape[0], "outputs": outputs * facts["dimensions"]}
    facts |= {"features": True} | dict.fromkeys(("fourier", "residual"), not posterior)
    network = _network("network", config.network, facts, {"auto": "unet", "authors": "score-unet"})
    if posterior:
        known = {"network": network, "levels": levels, "paired": paired, "prior": prior}
        heads: Heads = _build(
            "model", part.prediction, {part.prediction: kind}, part.head_options, known
        )
        return heads
    return HEADS[part.heads](network, predicts=part.prediction)


def _by_levels(levels: int | None) -> bool:
    """Whether posterior heads are a categorical: a mixture for reals, and for more levels than a table should have."""
    return levels is not None and levels <= MOST_LEVELS


def _prior(config: Config) -> str:
    """What the histogram of posterior heads is of; every place of a patch sees the same pixels."""
    if config.model.prior != "auto":
        return config.model.prior
    return "value" if config.data.patch is None else "channel"


def _encoder(config: Config, facts: dict[str, Any]) -> Encoder:
    part = config.encoder
    if "network" in inspect.signature(_named("encoder", part.kind, ENCODERS)).parameters:
        inner = {**facts, "bounded": True, "features": False}
        facts = {
            **facts,
            "network": _network(
                "encoder.network", part.network, inner, {"auto": "unet", "authors": "encoder-unet"}
            ),
        }
    elif part.network not in (NetworkConfig(), NetworkConfig(kind="authors")):
        raise ValueError(f"encoder.network is set but encoder {part.kind!r} has none; remove it")
    encoder = _build("encoder", part.kind, ENCODERS, part.options, facts)
    return _checked("encoder", encoder, Encoder)


def _network(
    where: str, part: NetworkConfig, facts: Mapping[str, Any], for_images: Mapping[str, str]
) -> nn.Module:
    kind = part.kind
    if kind in ("auto", "authors"):
        kind = for_images[kind] if len(facts["shape"]) == 3 else "mlp"
    network = _build(where, kind, NETWORKS, part.options, facts)
    return _checked(where, network, nn.Module)


def _named(where: str, kind: str, known: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
    if ":" in kind:
        return import_part(where, kind)
    if kind not in known:
        raise ValueError(
            f"unknown {where} {kind!r}{suggest(kind, [*known, 'package.module:Class'])}"
        )
    return known[kind]


def _build(
    where: str,
    kind: str,
    known: Mapping[str, Callable[..., Any]],
    options: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> Any:
    part = _named(where, kind, known)
    parameters = inspect.signature(part).parameters
    for name in options:
        if name not in parameters:
            raise ValueError(f"{where} {kind!r} has no option {name!r}{suggest(name, parameters)}")
    arguments = {**{name: facts[name] for name in facts if name in parameters}, **options}
    for name, parameter in parameters.items():
        needed = parameter.default is parameter.empty and parameter.kind not in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        )
        if needed and name not in arguments:
            raise ValueError(
                f"{where} {kind!r} does not fit: it needs {name}; give it as an option"
            )
    try:
        return part(**arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where} {kind!r}: {error}") from error


def _checked(where: str, part: Any, kind: type[T]) -> T:
    if isinstance(part, kind):
        return part
    raise ValueError(
        f"{where}: {type(part).__name__} is no {kind.__name__}; derive it from {kind.__name__}"
    )
