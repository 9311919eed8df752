"""decode(encode(x)) == x, at the length of the bound, or an error."""

import dataclasses
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import diffenc_ct as dc
from diffenc_ct.coding import CodingOptions, batches, decode, encode, read
from diffenc_ct.coding.bits_back import BitsBack
from diffenc_ct.coding.file import write
from diffenc_ct.coding.stack import Stack, initial_words
from diffenc_ct.elbo import ratio_at
from diffenc_ct.process import Gaussian, marginal, posterior
from diffenc_ct.schedules import sigma
from tests.coding.cases import codings, small
from tests.coding.test_laws import bits
from tests.parts import LEVELS
from tests.refusals import refused
from tests.strategies import close, generator, make_model, seeds


@given(codings())
def test_what_is_encoded_is_decoded(case):
    data = encode(case.model, case.x, case.steps, case.options)
    found = decode(case.model, data, case.steps)
    assert torch.equal(found, case.x) and found.dtype == torch.int64
    header = read(data).header
    assert (header.count, tuple(header.shape)) == (len(case.x), tuple(case.x.shape[1:]))
    assert header.depth == case.steps.depth and header.step == case.steps.step_kind


# Length -------------------------------------------------------------------------------------------------


def textbook(case, code, k):
    """log2 of q over p at the coded latents, from the model's own laws; how far they are from q's and p's means."""
    model, steps, x = case.model, case.steps, model_data(case)
    gamma, z = code.gamma, [code.latents(node, each) for node, each in enumerate(k)]
    at = [g.expand(len(x)) for g in gamma]
    x_t = [model.encoder.encode(x, g) for g in at]
    nats = marginal(x_t[-1], at[-1]).log_prob(z[-1])
    nats = nats - Gaussian(torch.zeros_like(z[-1]), torch.ones_like(z[-1])).log_prob(z[-1])
    nats = nats - model.decode_log_prob(case.x, z[0], gamma[0])
    drawn = far = 0.0
    for s in range(steps.depth):
        t = s + 1
        q = posterior(z[t], x_t[s], x_t[t], at[s], at[t], steps.level)
        estimates, index = model.predict(z[t], at[t]), torch.full((len(x),), s)
        w = ratio_at(steps.variance_ratio, index, estimates)
        if steps.step_kind == "mixture":
            p = model.values(z[t], at[t]).step(z[t], at[s], steps.level, w)
            all_of = p.mixture(slice(None))
            off = ((z[s].flatten()[:, None] - all_of.mean) / all_of.std).abs()
            far = max(far, float((off - 0.3 * all_of.log_weights).min(-1).values.max()))
        else:
            p = model.reverse(z[t], at[s], at[t], noise_level=steps.level, ratio=w)
            far = max(far, float(((z[s] - p.mean) / p.std).abs().max()))
        nats = nats + q.log_prob(z[s]) - p.log_prob(z[s])
        drawn = max(drawn, float(((z[s] - q.mean) / q.std).abs().max()))
    return float(nats.sum()) / math.log(2), drawn, far


def model_data(case):
    return case.model.scale(case.x)


def coded(case):
    """Bits of a batch on a stack of its own, its estimate at the same latents, and how far a step misses."""
    shape = tuple(case.x.shape[1:])
    code, stack = BitsBack(case.model, case.steps, shape, 4), Stack(0)
    with torch.no_grad():
        k = code.push(stack, case.x)
        wanted, drawn, far = textbook(case, code, k)
    return bits(stack.words) - bits(initial_words(0, stack.dug)), wanted, drawn, far


@given(codings())
def test_a_message_has_the_length_of_its_own_bound(case):
    """Never longer; and shorter only where a step misses by so much that an escape costs less than its Gaussian."""
    case.x = case.x.repeat(12, *[1] * (case.x.ndim - 1))
    length, wanted, drawn, far = coded(case)
    values = case.x.numel() * (case.steps.depth + 2)
    if drawn < 5:  # beyond, constriction's least probability takes over
        assert length < wanted + 1 + 0.01 * values
    if max(drawn, far) < 4.5:
        assert length > wanted - 1 - 0.01 * values


@given(seeds, st.sampled_from(["gaussian", "mixture"]), st.sampled_from([3.0, 20.0]))
def test_and_no_shorter(seed, step, ratio):
    """Steps wide enough to hit: the two lengths agree."""
    heads = "posterior" if step == "mixture" else "single"
    schedule = dc.LinearSchedule(-1.0, 3.0)  # where alpha_0 is not 1
    encoder = dc.NonTrainableEncoder()
    model = make_model(schedule, encoder, (4,), seed, heads=heads, levels=LEVELS)
    case = small(step)
    case.model, case.x = model, torch.randint(0, LEVELS, (60, 4), generator=generator(seed))
    case.steps = dc.FiniteDepth(4, step=step, ratio=ratio, noise_level=1.3)
    length, wanted, drawn, far = coded(case)
    if max(drawn, far) < 5:
        assert length == pytest.approx(wanted, abs=1 + 0.02 * case.x.numel())


@pytest.mark.parametrize("step", ["gaussian", "mixture"])
def test_the_mean_length_is_the_bound(step):
    """L_0 + L_1 + L_T by the estimator of `elbo`, every step of every example."""
    case, n, depth = small(step, 4, ratio=30.0), 4000, 4
    case.x = case.x.repeat(n // 2, 1)
    length, *_ = coded(case)
    with torch.no_grad():
        each = torch.stack([bound(case, (i + 0.5) / depth, i) for i in range(depth)]).mean(0)
    mean, error = float(each.mean()), 3 * 2**0.5 * float(each.std()) / n**0.5
    assert length / n == pytest.approx(mean, abs=error) and error < 0.04 * mean


def bound(case, t, seed):
    """Bits of each example, one step of the diffusion loss for all."""
    draws = dc.Draws(t=torch.full((len(case.x),), t).double())
    found = dc.elbo(case.model, case.x, case.steps, draws=draws, generator=generator(seed))
    return found.total / math.log(2)


def test_a_coarse_grid_costs_length_and_a_fine_one_initial_bits():
    case = small("gaussian", ratio=30.0)
    case.x = case.x.repeat(2000, 1)
    lengths = []
    for b in (0, 3, 7):
        code, stack = BitsBack(case.model, case.steps, (3,), b), Stack(0)
        with torch.no_grad():
            code.push(stack, case.x)
        lengths.append(bits(stack.words) - bits(initial_words(0, stack.dug)))
        assert 32 * stack.dug == pytest.approx(case.x.numel() * 4 * (b + 2.05), rel=0.03)
    assert lengths[0] > 1.005 * lengths[2] and lengths[1] == pytest.approx(lengths[2], rel=0.01)


def test_initial_bits_are_those_of_one_example():
    """ln(S/width sqrt(2 pi e)) of each latent and a component's: not of all examples."""
    case = small("gaussian")
    one = read(encode(case.model, case.x[:1], case.steps))
    many = read(encode(case.model, case.x.repeat(100, 1), case.steps))
    latents = 3 * (case.steps.depth + 1)
    assert 32 * one.header.initial == pytest.approx(latents * (4 + 2.05), abs=100)
    assert 32 * many.header.initial < 32 * one.header.initial + 300
    assert one.gross == pytest.approx(8 * one.size / 3)
    assert len(one.words) < one.header.initial + 20
    assert many.net + many.initial == pytest.approx(32 * len(many.words) / 600)


@given(st.integers(1, 3000), st.integers(1, 32), st.integers(1, 64))
def test_a_batch_is_paid_for_by_those_before_it(count, most, depth):
    sizes = batches(count, most, depth)
    assert sum(sizes) == count and sizes[0] == 1 and max(sizes) <= most
    done = 0
    for size in sizes:
        assert size == 1 or 4 * (depth + 1) * size <= done
        assert size in (most, count - done) or 4 * (depth + 1) * (size + 1) > done
        done += size
    if count >= 4 * (depth + 1) * (2 * most):
        assert max(sizes) == most


@pytest.mark.parametrize("most", [2, 3])
def test_batches_are_those_of_the_header(most):
    """So many examples of one step that several are coded at a time."""
    case = small("mixture")
    case.steps, case.x = dc.FiniteDepth(1, step="mixture"), case.x.repeat(20, 1)
    assert max(batches(len(case.x), most, 1)) == most
    data = encode(case.model, case.x, case.steps, CodingOptions(batch=most))
    assert torch.equal(decode(case.model, data, case.steps), case.x)


def test_latents_are_on_grids_of_their_steps():
    case = small(noise_level=0.7)
    code = BitsBack(case.model, case.steps, (3,), 5)
    q = posterior(
        torch.zeros(1, 3).double(),
        *[torch.zeros(1, 3).double()] * 2,
        code.gamma[:1],
        code.gamma[1:2],
        0.7,
    )
    assert code.widths[0] == pytest.approx(float(q.std) / 32)
    assert code.widths[-1] == pytest.approx(float(sigma(code.gamma[-1])) / 32)


# The same on both sides ---------------------------------------------------------------------------------

AGAIN = """
import sys, torch
from diffenc_ct.coding import decode
from tests.coding.cases import small
torch.set_num_threads(3)
case = small()
x = decode(case.model, open(sys.argv[1], "rb").read(), case.steps)
assert torch.get_num_threads() == 3
print(x.tolist())
"""


def test_another_process_on_other_threads(tmp_path):
    case, file = small(), tmp_path / "x"
    file.write_bytes(encode(case.model, case.x, case.steps))
    done = subprocess.run(
        [sys.executable, "-c", AGAIN, str(file)], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == str(case.x.tolist()), done.stderr


def test_as_many_threads_as_the_encoder_had():
    case, seen = small("gaussian", 1), []
    data = encode(case.model, case.x, case.steps)
    case.model.heads.network.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    decode(case.model, forged(data, threads=2), case.steps)
    assert set(seen) == {2} and torch.get_num_threads() == read(data).header.threads == 1


def test_a_model_is_asked_in_evaluation_mode_and_left_as_it_was():
    case = small()
    case.model.train()
    data = encode(case.model, case.x, case.steps)
    assert case.model.training
    case.model.eval()
    assert data == encode(case.model, case.x, case.steps)


def test_conditions():
    network = dc.networks.MLP(3, outputs=3 * dc.Posterior.outputs_for(levels=5), classes=2).double()
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.randn(p.shape, generator=generator(0), dtype=p.dtype))
    heads = dc.Posterior(network, 5).double()
    model = dc.DiffEnc(dc.LinearSchedule(-5.0, 3.0), dc.IdentityEncoder(), heads, dc.Levels(5))
    x = torch.randint(0, 5, (5, 3), generator=generator(1))
    given = model.given(torch.tensor([0, 1, 1, 0, 1]))
    options = CodingOptions(batch=2)
    data = encode(given, x, 3, options)
    assert torch.equal(decode(given, data, 3), x)
    with refused(ValueError, "floats differ"):
        decode(model.given(torch.tensor([1, 0, 1, 0, 1])), data, 3)


@pytest.mark.parametrize("step", ["gaussian", "mixture"])
def test_calibrated_steps(step):
    case = small(step)
    options = dc.CalibrationOptions(candidates=8, step=step)
    found = dc.calibrate(case.model, case.x.repeat(8, 1), 3, options, generator=generator(0))
    data = encode(case.model, case.x, found)
    assert torch.equal(decode(case.model, data, found), case.x)
    assert read(data).header.step == step
    with refused(ValueError, "coded with"):
        decode(case.model, data, 3)


# Refusals -----------------------------------------------------------------------------------------------


@given(st.data())
def test_a_damaged_file_is_refused(draws):
    case = small("gaussian", 1)
    data = encode(case.model, case.x, case.steps)
    place, bit = draws.draw(st.integers(0, len(data) - 1)), draws.draw(st.integers(0, 7))
    damaged = bytearray(data)
    damaged[place] ^= 1 << bit
    for wrong in (bytes(damaged), data[:place], data + b"\0"):
        with refused(ValueError, "^(these|the format)"):
            decode(case.model, wrong, case.steps)


def test_other_files():
    with refused(ValueError, "no coded images"):
        read(b"\x89PNG" + bytes(100))
    case = small()
    data = bytearray(encode(case.model, case.x, case.steps))
    data[7] = 2
    with refused(ValueError, "damaged"):
        read(bytes(data))
    import hashlib

    body = bytes(data[:-32])
    with refused(ValueError, "version is 2, this diffenc_ct reads version 1"):
        read(body + hashlib.sha256(body).digest())
    body = b"DIFFENC\x01" + (3).to_bytes(4, "little") + b"abc"
    with refused(ValueError, "header"):
        read(body + hashlib.sha256(body).digest())


def others(case):
    """Steps that differ from a case's in one thing, and how the refusal calls it."""
    ratio = torch.tensor([1.0, 2.0, 3.0])
    return [
        (4, "depth 3, not 4"),
        (torch.tensor([0.0, 0.3, 0.6, 1.0]), "grid uniform, not"),
        (dc.FiniteDepth(3, step="gaussian"), "step mixture, not gaussian"),
        (dc.FiniteDepth(3, step="mixture", noise_level=1.1), "noise_level 1, not 1.1"),
        (dc.FiniteDepth(3, step="mixture", ratio=1.1), "ratio 1, not 1.1"),
        (dc.FiniteDepth(3, step="mixture", ratio=ratio), "ratio 1, not"),
    ]


def test_other_steps():
    case = small()
    data = encode(case.model, case.x, case.steps)
    for steps, match in others(case):
        with refused(ValueError, f"coded with {match}"):
            decode(case.model, data, steps)


def test_other_numbers_under_the_same_words():
    def data_of(**options):
        case = small(**options)
        return case, encode(case.model, case.x, case.steps)

    def function(a):
        return lambda step, estimates: 1 + a * estimates.x_hat.square()

    pairs = [
        (
            {"noise_level": lambda gamma: 1 + 0 * gamma},
            {"noise_level": lambda gamma: 1.1 + 0 * gamma},
        ),
        ({"ratio": torch.tensor([1.0, 2.0, 3.0])}, {"ratio": torch.tensor([1.0, 2.0, 3.5])}),
        ({"ratio": function(1.0)}, {"ratio": function(1.1)}),
    ]
    for mine, yours in pairs:
        case, data = data_of(**mine)
        assert torch.equal(decode(case.model, data, case.steps), case.x)
        with refused(ValueError, "another noise level or variance ratio"):
            decode(case.model, data, small(**yours).steps)


def test_other_weights():
    case = small()
    data = encode(case.model, case.x, case.steps)
    with torch.no_grad():
        next(case.model.heads.network.parameters()).mul_(1 + 1e-12)
    with refused(ValueError, "other weights"):
        decode(case.model, data, case.steps)


def forged(data, **fields):
    """The file with other words in its header."""
    found = read(data)
    return write(dataclasses.replace(found.header, **fields), found.words)


def test_floats_that_differ_are_noticed():
    """The same file read by a model whose weights are off in their last digits but claim to be the same."""
    from diffenc_ct.model.fingerprint import fingerprint

    case = small()
    data = encode(case.model, case.x, case.steps)
    with torch.no_grad():
        for p in case.model.heads.network.parameters():
            p.mul_(1.1)
    with refused(ValueError, "floats differ here: coded with torch"):
        decode(case.model, forged(data, model=fingerprint(case.model)), case.steps)


@pytest.mark.parametrize("field", ["images", "initial", "seed", "bits", "count", "batch"])
def test_every_field_is_read(field):
    case = small("gaussian", 1)
    if field == "batch":  # the first that could go in pairs
        case.x = case.x.repeat(65, 1)
    data = encode(case.model, case.x, case.steps, CodingOptions(batch=2))
    other = {"images": "0" * 64, "batch": 1}.get(field) or getattr(read(data).header, field) + 1
    with refused(ValueError, "floats differ"):
        decode(case.model, forged(data, **{field: other}), case.steps)


def test_mistakes():
    case = small()
    with refused(ValueError, "must lie in 0..4"):
        encode(case.model, case.x + LEVELS, case.steps)
    with refused(ValueError, "one example or more"):
        encode(case.model, case.x[:0], case.steps)
    reals = make_model(dc.LinearSchedule(), dc.IdentityEncoder(), (3,), 0)
    with refused(ValueError, "model is one of reals"):
        encode(reals, torch.zeros(2, 3).double(), 3)
    for wrong in ({"bits": -1}, {"bits": 11}, {"batch": 0}, {"seed": -1}):
        with refused(ValueError, f"^{next(iter(wrong))}="):
            CodingOptions(**wrong)


def test_seeds():
    case = small()
    first, same, other = (
        encode(case.model, case.x, case.steps, CodingOptions(seed=seed)) for seed in (1, 1, 2)
    )
    assert first == same != other
    assert torch.equal(decode(case.model, other, case.steps), case.x)


def test_the_header_keeps_what_it_is_given():
    case = small()
    data = encode(case.model, case.x, case.steps, run={"name": "a run", "depth": 3})
    assert read(data).header.run == {"name": "a run", "depth": 3}
    assert np.prod(read(data).header.shape) * 2 == read(data).header.dimensions
    close(torch.tensor(read(data).gross), torch.tensor(8 * len(data) / 6))
