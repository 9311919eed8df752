"""A density of a table of reals: how good is it beside a mixture of Gaussians?

Trains an MLP on scikit-learn's wine (178 bottles, 13 properties), each column less its mean over its deviation, and
compares the log-density of held-out rows with that of scikit-learn's Gaussian mixtures, their size chosen by
cross-validation. Five splits; standard errors are over the held-out rows of all.

    python examples/table_density.py --steps 1500 --splits 5
"""

import argparse

import numpy as np
import torch
from sklearn.datasets import load_wine
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, KFold

import diffenc_ct as dc


def trained(x: torch.Tensor, steps: int, seed: int) -> dc.DiffEnc:
    """A diffusion model of rows x, the average of its weights over the last steps."""
    torch.manual_seed(seed)
    d = x.shape[1]
    outputs = dc.MixturePosterior.outputs_for(components=3)
    network = dc.networks.MLP(d, width=64, layers=2, outputs=outputs * d)
    heads = dc.MixturePosterior(network, components=3)
    # Where gamma begins: the density is that of rows with noise of exp(-4/2) = 0.14 deviations.
    model = dc.DiffEnc(dc.LinearSchedule(-4.0, 5.0), dc.IdentityEncoder(), heads, dc.Reals())
    averaged = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.1)
    for _ in range(steps):
        rows = x[torch.randint(len(x), (128,))]
        loss = model(rows).total.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        averaged.update_parameters(model)
    return averaged.module


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=300, help="training steps a split")
    parser.add_argument("--splits", type=int, default=2, help="splits of ten that are tried")
    arguments = parser.parse_args()
    table = load_wine().data
    found: dict[str, list[float]] = {"flow": [], "bound": [], "mixture": []}
    splits = list(KFold(10, shuffle=True, random_state=0).split(table))[: arguments.splits]
    for number, (train, test) in enumerate(splits):
        mean, deviation = table[train].mean(0), table[train].std(0)
        x, y = ((table[part] - mean) / deviation for part in (train, test))
        search = GridSearchCV(
            GaussianMixture(reg_covar=1e-2, random_state=0),
            {"n_components": [1, 2, 3, 4], "covariance_type": ["full", "diag"]},
        )
        found["mixture"] += search.fit(x).best_estimator_.score_samples(y).tolist()
        rows, others = (torch.from_numpy(part).float() for part in (x, y))
        model = trained(rows, arguments.steps, number)
        likelihood = dc.log_likelihood(model, others)
        found["flow"] += likelihood.nats.tolist()
        with torch.no_grad():
            draws = [-model(others).total for _ in range(64)]
        found["bound"] += torch.stack(draws).mean(0).tolist()
        print(f"split {number}: {np.mean(likelihood.evaluations.tolist()):.0f} evaluations a row")
    names = {"flow": "probability flow", "bound": "ELBO", "mixture": "Gaussian mixture"}
    for name, values in found.items():
        error = np.std(values, ddof=1) / len(values) ** 0.5
        print(f"{names[name]:<18}{np.mean(values):8.3f} ± {error:.3f} nats a held-out row")
    gain = np.subtract(found["flow"], found["mixture"])
    error = gain.std(ddof=1) / len(gain) ** 0.5
    print(f"flow less mixture {gain.mean():8.3f} ± {error:.3f} nats, row by row")


if __name__ == "__main__":
    main()
