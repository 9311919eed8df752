"""Everything but training looks at a model in evaluation mode, and gives it back as it was."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import diffenc_ct as dc
from diffenc_ct.calibration import Measurement, fit_values, measure_steps, step_excess
from diffenc_ct.likelihood import log_density, sample_with_log_prob
from diffenc_ct.model import evaluating
from diffenc_ct.report.values import encodings
from diffenc_ct.training.evaluation import evaluate, importance_depths
from diffenc_ct.training.heads import HeadFitting, fit_head
from diffenc_ct.training.state import leaves_out
from diffenc_ct.verification import verify
from tests.strategies import generator, normal


class Dropping(nn.Module):
    """Half of what it says is left out in training, and counted is how often that happened."""

    def __init__(self, outputs: int, seed: int) -> None:
        super().__init__()
        self.linear, self.drop = nn.Linear(3, outputs, bias=False).double(), nn.Dropout(0.5)
        with torch.no_grad():
            self.linear.weight.copy_(normal(seed, outputs, 3) / 3)

    def forward(self, z: Tensor, gamma: Tensor) -> Tensor:
        inputs = torch.cat([z, gamma[:, None] / 6], 1)
        return self.drop(torch.tanh(self.linear(inputs)))


def dropping(heads: str = "paired") -> dc.DiffEnc:
    made = dc.Paired(Dropping(4, 1)) if heads == "paired" else dc.Single(Dropping(2, 1))
    encoder = dc.TrainableEncoder(Dropping(2, 2))
    return dc.DiffEnc(dc.LinearSchedule(-4.0, 3.0), encoder, made, dc.Reals(), shape=(2,))


X = normal(0, 32, 2) / 2
LOOSE = dc.Adams(atol=0.1)
CALIBRATED = dc.CalibrationOptions(candidates=8, ratio="value")


def calibrated(model: dc.DiffEnc) -> Tensor:
    found = dc.calibrate(model, X, 4, CALIBRATED, generator=generator(1))
    assert found.ratio_per_value is not None
    return torch.cat([found.ratio, found.ratio_per_value.values.flatten()])


def values_fitted(model: dc.DiffEnc) -> Tensor:
    found = dc.calibrate(model.eval(), X, 4, CALIBRATED, generator=generator(1))
    grid, ratio = torch.linspace(0, 1, 5), found.ratio_per_value
    return fit_values(ratio, model, X, grid, generator=generator(2)).values


def verified(model: dc.DiffEnc) -> Tensor:
    options = {"depths": (4, 8, 16), "draws": 2, "path_steps": 4}
    found = verify(model, X, generator=generator(1), **options)
    return torch.tensor([check.value for check in found.checks])


def flowing(**options):
    def nats(model: dc.DiffEnc) -> Tensor:
        given = {"solver": LOOSE} | options
        return dc.log_likelihood(model, X[:3], generator=generator(1), **given).nats

    return nats


CALLS = {
    "sample": lambda model: dc.sample(model, 3, generator=generator(1)).samples,
    "log_likelihood": flowing(),
    "with model noise": flowing(dequantisation=dc.ModelNoise(samples=2)),
    "torchdiffeq": flowing(solver=dc.TorchDiffEqFixed("rk4", steps=8)),
    "log_density": lambda model: log_density(model, X[:3], solver=LOOSE).log_prob,
    "sample_with_log_prob": lambda model: (
        sample_with_log_prob(model, (3, 2), solver=LOOSE, generator=generator(1)).log_prob
    ),
    "calibrate": calibrated,
    "measure_steps": lambda model: measure_steps(
        model, X, Measurement(candidates=4), generator=generator(1)
    ).excess(),
    "step_excess": lambda model: step_excess(
        model, X, torch.linspace(0, 1, 5), generator=generator(1)
    ),
    "tightness": lambda model: dc.tightness(model, X, depths=5, generator=generator(1)).a,
    "verify": verified,
    "evaluate": lambda model: evaluate(model, X).terms["total"],
    "importance_depths": lambda model: importance_depths(model, X).draw(
        8, like=torch.empty(()), generator=generator(1)
    )[0],
    "encodings": lambda model: encodings(model, X[:2]),
}


def modes(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


def set_modes(model: nn.Module, drawn: list[bool]) -> None:
    for module, training in zip(model.modules(), drawn, strict=False):
        module.training = training


@pytest.mark.parametrize("name", CALLS)
@given(st.lists(st.booleans(), min_size=16, max_size=16))
@example([True] * 16)
@settings(max_examples=2)
def test_what_is_found_does_not_depend_on_the_mode(name, drawn):
    torch.manual_seed(0)
    expected = CALLS[name](dropping().eval())
    assert expected.isfinite().all()
    model = dropping()
    set_modes(model, drawn)
    assert torch.equal(CALLS[name](model), expected)
    assert modes(model) == drawn[: len(modes(model))]


def test_dropout_would_be_seen():
    """The control: in training mode the same predictions differ from each other."""
    model, gamma = dropping(), torch.zeros(32, dtype=torch.float64)
    assert not torch.equal(model.predict(X, gamma).x_hat, model.predict(X, gamma).x_hat)


class Stopped(Exception):
    pass


def stop(done: int) -> None:
    raise Stopped


@pytest.mark.parametrize(
    "call",
    [
        lambda model: dc.sample(model, 3, work=dc.Work(progress=stop)),
        lambda model: dc.log_likelihood(model, X, work=dc.Work(progress=stop)),
        lambda model: dc.tightness(model, X, work=dc.Work(progress=stop)),
        lambda model: evaluate(model, X, work=dc.Work(progress=stop)),
        lambda model: dc.calibrate(model, X, 4, CALIBRATED, progress=stop),
        lambda model: fit_head(model, X, HeadFitting(steps=2), progress=stop),
    ],
)
@given(st.lists(st.booleans(), min_size=16, max_size=16))
@settings(max_examples=3)
def test_modes_are_given_back_after_an_exception(call, drawn):
    model = dropping("single")
    set_modes(model, drawn)
    with pytest.raises(Stopped):
        call(model)
    assert modes(model) == drawn[: len(modes(model))]


def test_fitting_a_head_and_looking_for_idle_parameters_leave_modes_alone():
    model = dropping("single")
    set_modes(model, [True, False] * 8)
    before = modes(model)
    fitted = fit_head(model, X, HeadFitting(steps=2), generator=generator(0)).model
    assert fitted.training and not leaves_out(model, X)
    assert modes(model) == before


def test_the_context_is_of_every_submodule():
    net = nn.Sequential(nn.Dropout().eval(), nn.Sequential(nn.Dropout()))
    before = modes(net)
    with evaluating(net):
        assert not any(modes(net))
    assert modes(net) == before
