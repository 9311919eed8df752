"""Times training steps of the authors' code (called by train_step.py with an interpreter that has JAX and Flax).

    python authors_step.py CHECKOUT BATCH_SIZE THREADS

A step is theirs: their model, loss, AdamW and moving average, jitted. The last line is JSON: images a second.
"""

import json
import os
import statistics
import sys
import time

CHECKOUT, BATCH, THREADS = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-THREADS:])
sys.path.insert(0, CHECKOUT)

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import optax  # noqa: E402

if not hasattr(jax, "tree_map"):
    jax.tree_map = jax.tree_util.tree_map  # their code is older than its removal

from src.basic_ddpm.vdm_v import VDM2V  # noqa: E402
from src.config_classes.ddpm_config import DDPMConfig  # noqa: E402
from src.config_classes.enc_dec_config import EncDecConfig  # noqa: E402
from src.config_classes.nn_config import NNConfig  # noqa: E402
from src.learned_encoder.sigma3_v_approx_model import Sigma3VA  # noqa: E402
from src.training.train_state import EMATrainState  # noqa: E402

SHAPE = (28, 28, 1)


def unet(groups: int, pooled: bool) -> NNConfig:
    """The networks of the reference configuration."""
    return NNConfig(
        m_type="unet", with_fourier_features=True, with_attention=False, n_embd=32, n_layer=2,
        num_groups_groupnorm=groups, p_dropout=0.1, down_conv=False, pooling=pooled,
        channel_scaling="double" if pooled else "same", non_id_init=False,
    )  # fmt: skip


def configuration(kind: str) -> DDPMConfig:
    """Of "vdm" or "diffenc"."""
    encoder = EncDecConfig(
        enc_type="trainable" if kind == "diffenc" else "simple", vocab_size=256,
        nn_config=unet(16, True), id_at_zero=False, m1_to_1=kind == "diffenc",
    )  # fmt: skip
    return DDPMConfig(
        ddpm_type="S3VA" if kind == "diffenc" else "VDM2_V", vocab_size=256, sample_softmax=False,
        n_timesteps=0, antithetic_time_sampling=True, loss_parameterisation="eps_hat",
        no_recon_loss=False, gamma_type="fixed", gamma_min=-13.3, gamma_max=5.0,
        score_model_config=unet(32, False), encoder_config=encoder,
    )  # fmt: skip


def images_per_second(kind: str, steps: int = 12) -> float:
    """The median over steps."""
    model = (Sigma3VA if kind == "diffenc" else VDM2V)(configuration(kind), SHAPE)
    keys = jax.random.split(jax.random.PRNGKey(0), 4)
    names = ("params", "sample", "dropout", "encode")
    images = jax.random.randint(keys[0], (BATCH, *SHAPE), 0, 256).astype("uint8")
    zeros = jnp.zeros((BATCH,))
    variables = model.init(dict(zip(names, keys, strict=True)), images=images, conditioning=zeros)

    def optimizer(rate):
        return optax.adamw(rate, b1=0.9, b2=0.99, eps=1e-8, weight_decay=0.01)

    state = EMATrainState.create(
        apply_fn=model.apply, variables=variables, optax_optimizer=optimizer
    )

    @jax.jit
    def step(state, key):
        rngs = dict(zip(names[1:], jax.random.split(key, 3), strict=True))

        def loss(params):
            out = model.apply({"params": params}, images, zeros, False, rngs=rngs)
            return jnp.mean(out.loss_recon) + jnp.mean(out.loss_klz) + jnp.mean(out.loss_diff)

        value, gradients = jax.value_and_grad(loss)(state.params)
        return state.apply_gradients(grads=gradients, lr=2e-4, ema_rate=0.9999), value

    times = []
    for number in range(steps + 2):
        begin = time.perf_counter()
        state, value = step(state, jax.random.PRNGKey(number))
        value.block_until_ready()
        jax.block_until_ready(state.params)
        times.append(time.perf_counter() - begin)
    return BATCH / statistics.median(times[2:])


print(json.dumps({kind: images_per_second(kind) for kind in ("vdm", "diffenc")}))
