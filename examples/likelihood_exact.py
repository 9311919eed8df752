"""The exact likelihood of a flow whose truth is known: bits per dimension, errors, and evaluations.

python examples/likelihood_exact.py
"""

import torch

import diffenc_ct as dc
from diffenc_ct.likelihood import log_density
from diffenc_ct.process import marginal
from diffenc_ct.worlds import MixtureWorld


def main() -> None:
    torch.set_default_dtype(torch.float64)
    generator = torch.Generator().manual_seed(0)
    # three clusters in two dimensions, and the model of optimal heads
    means = torch.tensor([[-1.0, 0.0], [1.0, 0.5], [0.2, -1.0]])
    world = MixtureWorld(means, 0.3, dc.NonTrainableEncoder())
    model = world.model(dc.LinearSchedule(-10.0, 5.0))
    x = world.sample(5, generator)
    gamma_0, gamma_1 = (model.schedule.at(t, x).gamma for t in (0.0, 1.0))
    x_0 = model.encoder.encode(x, gamma_0.expand(len(x)))
    z = marginal(x_0, gamma_0).sample(generator)

    print("atol      evaluations   error (nats)   the solver's estimate")
    for atol in (1e-4, 1e-6, 1e-8):
        solver = dc.Adams(atol=atol)
        found = log_density(model, z, solver=solver, prior=lambda end: world.log_q(end, gamma_1))
        error = (found.log_prob - world.log_q(z, gamma_0)).abs()
        steps, told = found.solution.evaluations.double(), found.solution.error
        print(f"{atol:<10g}{steps.mean():>11.1f}{error.max():>15.1e}{told.max():>24.1e}")

    # the other way: samples that know their log-probability
    drawn = dc.sample_with_log_prob(model, (3, 2), generator=generator)
    for sample, log_prob in zip(drawn.z_0, drawn.log_prob, strict=True):
        print("sample", [round(v, 3) for v in sample.tolist()], f"log p = {log_prob:.3f}")


if __name__ == "__main__":
    main()
