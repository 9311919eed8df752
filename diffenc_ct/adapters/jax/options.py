"""The authors' model configuration: which options are implemented, which refused, which nobody reads.

Every option of a configuration is checked by name. Three kinds exist:

    implemented    the value decides what is built
    one value      the importer does not implement the others: they are refused, with the reason
    unread         the authors' networks and losses never read it (`UNREAD` says why): checked for its type only

Some implemented options are read by some networks only; where the network at hand does not, as in the authors'
code, they change nothing:

    with_fourier_features               read by score networks, not by encoders
    with_attention                      read by "vdm_unet" and the score network "unet" alone; the others attend in
                                        their middle whatever it says
    down_conv, pooling, channel_scaling read by the bodies that change resolution
    m1_to_1, k, gamma_reg, end_reg      read by the trainable encoder (ddpm_type S3VA) alone

Reference: the authors' config_classes/ and the classes that take them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

UNREAD: dict[str, str] = {
    "n_timesteps": "the loss is continuous in time; only their sampling script takes it as a default",
    "antithetic_time_sampling": "depths are stratified over the batch whatever it says",
    "loss_parameterisation": "ddpm_type decides what the network predicts",
    "non_id_init": "it appears in file names only",
    "kernel_init": "initial weights are Flax's defaults, and a checkpoint replaces them",
}
ENC_TYPES = {"VDM2": "simple", "VDM2_V": "simple", "S4V_NT": "nt", "S3VA": "trainable"}
GAMMA_TYPES = ("fixed", "train_scalar", "poly10")
SCORE_NETWORKS = ("unet", "unet_alt")
ENCODER_NETWORKS = ("unet", "vdm_unet", "unet_mult_res")


@dataclass(frozen=True)
class Option:
    """What a value may be.

    Attributes:
        of: its kind: bool, int, float, str, or the options of a section.
        choices: where only these are implemented.
        least: the smallest number.
        most: the largest number.
        default: where the option may be missing.
        nullable: whether it may be null.
        why: other choices are refused.
    """

    of: Any
    choices: tuple[Any, ...] | None = None
    least: float = -math.inf
    most: float = math.inf
    default: Any = None  # none: the option must be given
    nullable: bool = False
    why: str = ""

    def read(self, value: Any, where: str) -> Any:
        """The value, checked.

        Args:
            value: as JSON has it.
            where: the option's name.

        Raises:
            ValueError: for a value that is not allowed.
        """
        if value is None and self.nullable:
            return None
        if isinstance(self.of, dict):
            return read_section(value, self.of, where)
        kinds = (int, float) if self.of is float else (self.of,)
        if type(value) not in kinds or (self.of is float and not math.isfinite(value)):
            raise ValueError(f"{where}={value!r} must be a {_NAMES[self.of]}")
        if self.choices is not None and value not in self.choices:
            allowed = " or ".join(repr(choice) for choice in self.choices)
            because = f": {self.why}" if self.why else ""
            raise ValueError(f"{where}={value!r} is not supported, only {allowed}{because}")
        if self.of is not bool and self.of is not str and not self.least <= value <= self.most:
            raise ValueError(f"{where}={value!r} must lie in [{self.least}, {self.most}]")
        return value


_NAMES = {bool: "truth value", int: "whole number", float: "finite number", str: "string"}


def _network(kinds: tuple[str, ...]) -> dict[str, Option]:
    return {
        "m_type": Option(str, kinds),
        "with_fourier_features": Option(bool),
        "with_attention": Option(bool),
        "n_embd": Option(int, least=4),
        "n_layer": Option(int, least=1),
        "num_groups_groupnorm": Option(int, least=1),
        "p_dropout": Option(float, least=0, most=1),
        "down_conv": Option(bool),
        "pooling": Option(bool),
        "channel_scaling": Option(str, ("same", "double")),
        "non_id_init": Option(bool, (False,), why=UNREAD["non_id_init"]),
        "kernel_init": Option(str, ("",), default="", why=UNREAD["kernel_init"]),
    }


ENCODER: dict[str, Option] = {
    "enc_type": Option(str, ("simple", "nt", "trainable")),
    "vocab_size": Option(int, least=2),
    "nn_config": Option(_network(ENCODER_NETWORKS), nullable=True),
    "id_at_zero": Option(bool, (False,), why="y + x in the place of y is not implemented"),
    "m1_to_1": Option(bool),
    "k": Option(float, default=1.0),
    "init_var": Option(float, (0.0,), default=0.0, why="bounding y's variance is not implemented"),
    "min_var": Option(float, (0.0,), default=0.0, why="bounding y's variance is not implemented"),
    "use_x_var": Option(bool, (False,), default=False, why="y of x's variance is not implemented"),
    "gamma_reg": Option(bool, default=False),
    "end_reg": Option(bool, default=False),
    "end_half_reg": Option(
        bool,
        (False,),
        default=False,
        why="its factor is a maximum over the batch, no function of x",
    ),
}
MODEL: dict[str, Option] = {
    "ddpm_type": Option(str, tuple(ENC_TYPES)),
    "vocab_size": Option(int, least=2),
    "sample_softmax": Option(
        bool, (False,), why="set it to false and draw with decode(..., sample=True)"
    ),
    "n_timesteps": Option(int, least=0),
    "antithetic_time_sampling": Option(bool),
    "loss_parameterisation": Option(str, ("eps_hat",), why=UNREAD["loss_parameterisation"]),
    "no_recon_loss": Option(
        bool, (False,), why="set it to false; the weights are the same, the bound needs the term"
    ),
    "gamma_type": Option(str, GAMMA_TYPES),
    "gamma_min": Option(float),
    "gamma_max": Option(float),
    "score_model_config": Option(_network(SCORE_NETWORKS)),
    "encoder_config": Option(ENCODER),
}


def read_section(values: Any, options: Mapping[str, Option], where: str = "") -> dict[str, Any]:
    """A section's values with defaults filled in.

    Args:
        values: as JSON has them.
        options: of the section.
        where: its name.

    Raises:
        ValueError: naming the option that is wrong.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{where or 'the configuration'} must be a JSON object, not {values!r}")
    prefix = f"{where}." if where else ""
    for name in values:
        if name not in options:
            raise ValueError(f"unknown option {prefix}{name}; known are {', '.join(options)}")
    result = {}
    for name, option in options.items():
        if name in values:
            result[name] = option.read(values[name], prefix + name)
        elif option.default is None:
            raise ValueError(f"option {prefix}{name} is missing")
        else:
            result[name] = option.default
    return result


def read_options(values: Any) -> dict[str, Any]:
    """A whole configuration, checked, with defaults filled in.

    Args:
        values: as JSON has them.

    Raises:
        ValueError: naming an option that is unknown, missing, of the wrong kind, not supported, or at odds with
            another.
    """
    options = read_section(values, MODEL)
    encoder = options["encoder_config"]
    if encoder["vocab_size"] != options["vocab_size"]:
        raise ValueError(
            f"encoder_config.vocab_size={encoder['vocab_size']} differs from vocab_size={options['vocab_size']}"
        )
    kind, wanted = options["ddpm_type"], ENC_TYPES[options["ddpm_type"]]
    if encoder["enc_type"] != wanted:
        raise ValueError(
            f"encoder_config.enc_type={encoder['enc_type']!r}; ddpm_type={kind!r} has an encoder of type {wanted!r}"
        )
    if options["gamma_min"] >= options["gamma_max"]:
        raise ValueError(
            f"gamma_min={options['gamma_min']} must be below gamma_max={options['gamma_max']}"
        )
    networks = {"score_model_config": options["score_model_config"]}
    if kind == "S3VA":
        networks["encoder_config.nn_config"] = encoder["nn_config"]
    for where, network in networks.items():
        if network is None:
            raise ValueError(f"{where}=null, but ddpm_type={kind!r} has an encoder network")
        if network["pooling"] and network["down_conv"]:
            raise ValueError(f"{where}: pooling and down_conv exclude each other; set one to false")
    return options
