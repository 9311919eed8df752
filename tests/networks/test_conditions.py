"""Conditions of networks: zero at first, none is a condition of its own, what is none is refused."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import diffenc_ct as dc
from diffenc_ct.networks.conditions import ConditionEmbedding
from tests.refusals import refused
from tests.strategies import close, generator, normal, seeds

NETWORKS = {
    "MLP": (lambda **o: dc.networks.MLP(4, width=8, **o), (4,)),
    "VectorNetwork": (lambda **o: dc.networks.VectorNetwork((4,), width=4, **o), (4,)),
    "UNet": (lambda **o: dc.networks.UNet(1, width=8, halvings=1, **o), (1, 4, 4)),
    "ScoreUNet": (
        lambda **o: dc.networks.ScoreUNet(
            1, width=8, layers=1, groups=4, block_groups=4, dropout=0.0, **o
        ),
        (1, 4, 4),
    ),
}


def made(name, seed, **options):
    """A network with random weights, and latents for it."""
    make, shape = NETWORKS[name]
    network = make(**options).double()
    with torch.no_grad():
        for number, parameter in enumerate(network.parameters()):
            parameter.copy_(0.4 * normal(seed + number, *parameter.shape))
    return network, normal(seed, 3, *shape), torch.tensor([-4.0, 0.0, 2.0], dtype=torch.float64)


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_of_a_network_without_conditions_are_as_they_were(name):
    """Names and shapes: the authors' checkpoints and older runs still fit."""
    make, _ = NETWORKS[name]
    plain, labelled = make(), make(classes=3)
    extra = labelled.state_dict().keys() - plain.state_dict().keys()
    assert extra == {"condition.labels"} and not hasattr(plain.condition, "labels")


@pytest.mark.parametrize("name", NETWORKS)
@given(seed=seeds)
def test_labels(name, seed):
    """Each row by its own label; -1 is no label; depth and label work together, not as a sum."""
    network, z, gamma = made(name, seed, classes=3)
    labels = torch.tensor([2, -1, 0])
    found = network(z, gamma, labels)
    for i, label in enumerate(labels):
        close(found[i : i + 1], network(z[i : i + 1], gamma[i : i + 1], label[None]), 1e-12)
    close(found[1], network(z, gamma)[1], 1e-12)
    assert (found - network(z, gamma))[[0, 2]].flatten(1).abs().amax(1).min() > 1e-6
    alike, other = z[:1].expand(2, *z.shape[1:]), gamma[[0, 2]]
    change = network(alike, other, labels[:1].expand(2)) - network(alike, other)
    assert (change[0] - change[1]).abs().max() > 1e-6


@pytest.mark.parametrize("name", NETWORKS)
def test_an_untrained_network_is_told_nothing_and_learns_of_its_labels(name):
    make, shape = NETWORKS[name]
    network = make(classes=3).double()
    if name in ("VectorNetwork", "ScoreUNet"):
        last = list(network.parameters())[-1]
        last.data.normal_(generator=generator(0))
    z, gamma = normal(1, 3, *shape), torch.zeros(3, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2])
    assert torch.equal(network(z, gamma, labels), network(z, gamma))
    for parameter in network.parameters():
        parameter.data += 0.1
    network(z, gamma, labels).square().sum().backward()
    seen = network.condition.labels.grad.abs().sum(1)
    assert (seen[:3] > 0).all() and seen[3] == 0


@given(seed=seeds, dimensions=st.integers(1, 4))
def test_vectors(seed, dimensions):
    embed = ConditionEmbedding(5, dimensions=dimensions).double()
    assert not embed(normal(1, 2, dimensions), normal(0, 2, 1)).any()
    for number, parameter in enumerate(embed.parameters()):
        parameter.data.copy_(normal(seed + number, *parameter.shape))
    vectors = normal(seed, 3, dimensions)
    vectors[1, -1] = torch.nan
    found = embed(vectors, normal(0, 3, 1))
    close(found[1], embed.none, 0)
    close(found[0], embed.vectors(vectors[0]), 1e-12)
    close(embed(None, normal(0, 2, 1)), embed.none.expand(2, -1), 0)
    found.sum().backward()  # a NaN stays in its row
    assert embed.vectors.weight.grad.isfinite().all()


@pytest.mark.parametrize(
    ("options", "condition", "words"),
    [
        ({"classes": 3}, torch.tensor([0, 3]), r"labels are 0..2, and -1 for none; got 0..3"),
        ({"classes": 3}, torch.tensor([-2, 1]), "got -2..1"),
        ({"classes": 3}, torch.tensor([0.0, 1.0]), "labels are whole numbers.*float32"),
        ({"classes": 3}, torch.tensor([True]), "labels are whole numbers.*bool"),
        ({"classes": 3}, torch.tensor([[0], [1]]), r"one an example.*\(2, 1\)"),
        ({"conditions": 2}, torch.zeros(3, 3), r"of shape \(batch, 2\); got .*\(3, 3\)"),
        ({"conditions": 2}, torch.zeros(3, 2).long(), "reals of shape.*int64"),
        ({}, torch.tensor([0]), "made without conditions; give it classes=10"),
    ],
)
def test_what_is_no_condition_is_refused(options, condition, words):
    model = dc.DiffEnc(
        dc.LinearSchedule(),
        dc.IdentityEncoder(),
        dc.Single(dc.networks.MLP(2, **options)),
        dc.Reals(),
    )
    with refused(ValueError, words):
        model.given(condition)


@pytest.mark.parametrize(
    "options", [{"classes": 2, "conditions": 2}, {"classes": 0}, {"conditions": 0}]
)
def test_impossible_embeddings_are_refused(options):
    with refused(ValueError, "classes="):
        dc.networks.MLP(2, **options)


def test_where_values_are_not_looked_at_what_is_no_label_makes_the_loss_nan():
    network = dc.networks.UNet(1, width=8, halvings=1, classes=3)
    parts = (dc.LinearSchedule(), dc.IdentityEncoder(), dc.Single(network), dc.Levels(4))
    model = dc.DiffEnc(*parts)
    x = torch.randint(0, 4, (4, 1, 4, 4))
    terms = model(x, condition=torch.tensor([0, 3, -1, -2]))
    assert terms.total.isnan().tolist() == [False, True, False, True]
    with pytest.raises(ValueError, match="labels are whole numbers"):
        model(x, condition=torch.zeros(4, 1, dtype=torch.int64))
