"""Mutants of training: processes, checkpoints, faults."""

from tests.mutants import Mutant

STEP, STATE = "diffenc_ct/training/step.py", "diffenc_ct/training/state.py"
PROCESSES = "diffenc_ct/distributed.py"
CHECKPOINTS, FOLDER = "diffenc_ct/training/checkpoints.py", "diffenc_ct/training/folder.py"
PLAIN, FAULTS = "tests/training/test_training.py", "tests/training/test_training_faults.py"
KEPT, SHARED = (
    "tests/training/test_training_checkpoints.py",
    "tests/training/test_training_processes.py",
)
GRADIENTS = f"{SHARED}::test_gradients_of_two_processes_are_those_of_one"
IDLE = f"{SHARED}::test_a_parameter_that_never_gets_a_gradient_does_not_hinder_two_processes"
EVALUATION = "diffenc_ct/training/evaluation.py"
DENSE = f"{PLAIN}::test_depths_by_importance_leave_the_mean_and_lower_the_error"
LOOP, METER = "diffenc_ct/training/loop.py", "diffenc_ct/training/meter.py"

RECORDED = "tests/training/test_recorded.py"

MUTANTS = [
    Mutant(
        STEP,
        "inputs = (x, draws.t, draws.noise, draws.noise_0, draws.weight, labels)",
        "inputs = (x, draws.t, draws.noise_0, draws.noise, draws.weight, labels)",
        "a recorded step takes one noise for the other",
        (f"{RECORDED}::test_recorded_steps_are_the_steps",),
    ),
    Mutant(
        STEP,
        "if state.recorded is None:",
        "if True:",
        "every step is recorded anew",
        (f"{RECORDED}::test_recorded_steps_are_the_steps",),
    ),
    Mutant(
        LOOP,
        "and processes.size == settings.accumulate == 1",
        "and processes.size == 1",
        "parts of a batch are recorded, of which the last alone has a gradient",
        (f"{RECORDED}::test_what_cannot_be_recorded_is_refused",),
    ),
    Mutant(
        EVALUATION,
        "draws=Draws(t=t, weight=weight)",
        "draws=Draws(t=t)",
        "what is drawn more often counts more",
        (DENSE,),
    ),
    Mutant(
        EVALUATION,
        "share = weights / weights.sum()",
        "share = torch.ones_like(weights) / len(weights)",
        "the mean of a bin is that of where the density is larger",
        (DENSE,),
    ),
    Mutant(
        EVALUATION,
        "(correction * (share * (values - mean)).square().sum()).sqrt()",
        "(correction * (share * (values - mean).square()).sum()).sqrt()",
        "the spread of values for the error of their mean",
        (f"{PLAIN}::test_the_error_by_depth_is_that_of_repeated_means",),
    ),
    Mutant(
        PROCESSES,
        "tensor.copy_(part.view(tensor.shape))",
        "tensor.copy_(part.view(tensor.shape) / self.size)",
        "the mean over processes, as if each had divided by its own rows",
        (f"{SHARED}::test_collectives",),
    ),
    Mutant(
        PROCESSES,
        "slice(self.rank * share, (self.rank + 1) * share)",
        "slice(0, share)",
        "every process takes the first rows",
        (f"{SHARED}::test_shares_of_a_batch",),
    ),
    Mutant(
        PROCESSES,
        "dist.ReduceOp.MAX",
        "dist.ReduceOp.MIN",
        "a signal to one process is ignored until all have it",
        (f"{SHARED}::test_collectives",),
    ),
    Mutant(
        PROCESSES,
        "shares[i % self.size][i // self.size]",
        "shares[-1 - i % self.size][i // self.size]",
        "results of processes in the wrong order",
        (f"{SHARED}::test_collectives",),
    ),
    Mutant(
        STEP,
        "(v[rows].chunk(settings.accumulate) for v in",
        "((v[rows] if v.ndim == 1 else v[: len(x)]).chunk(settings.accumulate) for v in",
        "all processes draw the first process's noise",
        (GRADIENTS,),
    ),
    Mutant(
        STEP,
        "(v[rows].chunk(settings.accumulate) for v in",
        "((v[: len(x)] if v.ndim == 1 else v[rows]).chunk(settings.accumulate) for v in",
        "all processes see the first process's depths",
        (f"{SHARED}::test_processes_share_depths_and_draw_their_own_dropout",),
    ),
    Mutant(
        STEP,
        "derived_seed(settings.seed, DROPOUT, state.step, processes.rank)",
        "derived_seed(settings.seed, DROPOUT, state.step)",
        "all processes drop the same units",
        (f"{SHARED}::test_processes_share_depths_and_draw_their_own_dropout",),
    ),
    Mutant(
        STEP,
        "processes.sum([sums, *counted, *sighted])",
        "processes.sum([sums])",
        "the noise level's moments differ between processes",
        (GRADIENTS,),
    ),
    Mutant(
        STEP,
        "sums / settings.batch_size",
        "sums / len(x)",
        "sums over all rows divided by this process's",
        (GRADIENTS,),
    ),
    Mutant(
        STEP,
        "(step + 1) / max(optimizer.warmup, 1)",
        "step / max(optimizer.warmup, 1)",
        "the learning rate one step late",
        (f"{PLAIN}::test_learning_rate_warms_up_and_decays",),
    ),
    Mutant(
        STEP,
        "share = settings.batch_size / size",
        "share = settings.batch_size",
        "the wrapper's mean over processes taken for their sum",
        (GRADIENTS,),
    ),
    Mutant(
        STEP,
        "_apart(parallel, number < len(parts))",
        "_apart(parallel, number <= len(parts))",
        "the processes never meet",
        (GRADIENTS,),
    ),
    Mutant(
        STEP,
        "_add_regression(heads, regression.sum() / share)",
        "(regression.sum() / share).backward(retain_graph=True)",
        "the regression reaches the encoder",
        ("tests/training/test_training_heads.py::test_the_regression_reaches_the_network_only",),
    ),
    Mutant(
        STATE,
        "find_unused_parameters=bool(unused)",
        "find_unused_parameters=False",
        "a plug-in's idle parameter is waited for",
        (IDLE,),
    ),
    Mutant(
        PROCESSES,
        '"gloo|nccl|c10d"',
        '"gloo|nccl|c10d|timed out|peer"',
        "errors of networks told as lost processes",
        (f"{SHARED}::test_an_error_of_the_network_is_not_taken_for_a_lost_process",),
    ),
    Mutant(
        LOOP,
        "now=bool(stop) or any(due)",
        "now=any(due)",
        "a signal saves weights that are not finite",
        (f"{FAULTS}::test_what_is_fetched_late_reaches_no_checkpoint",),
    ),
    Mutant(
        LOOP,
        "now=bool(stop) or any(due)",
        "now=bool(stop)",
        "weights that are not finite are saved",
        (f"{FAULTS}::test_what_is_fetched_late_reaches_no_checkpoint",),
    ),
    Mutant(
        CHECKPOINTS,
        'r"^(model|ema/[^/]+|optimizer)/network',
        'r"^(model|ema/[^/]+)/network',
        "the optimiser's moments of old checkpoints are lost",
        ("tests/training/test_old_runs.py::test_a_run_goes_on_as_it_would_have",),
    ),
    Mutant(
        METER,
        "if not all(map(math.isfinite, row)):",
        "if any(map(math.isinf, row)):",
        "infinite is caught, NaN is not",
        (f"{FAULTS}::test_a_loss_that_is_not_finite_stops_with_its_name_and_seed",),
    ),
    Mutant(
        STATE,
        '_prefixed(f"ema/{rate_name(rate)}", averaged.state_dict())',
        '_prefixed(f"ema/{rate_name(rate)}", self.model.state_dict())',
        "averages begin anew at each resumption",
        (f"{PLAIN}::test_an_interrupted_run_ends_bit_for_bit_like_an_undisturbed_one",),
    ),
    Mutant(
        STATE,
        "now = min(rate, (1 + self.step) / (10 + self.step))",
        "now = rate",
        "averages that remember the untrained weights",
        (f"{PLAIN}::test_averages_follow_the_ramp_then_the_rate",),
    ),
    Mutant(
        CHECKPOINTS,
        "if hashlib.sha256(data).hexdigest() != digest:",
        "if len(digest) != 64:",
        "the checksum is written and never compared",
        (f"{KEPT}::test_any_changed_byte_or_lost_tail_is_recognised",),
    ),
    Mutant(
        CHECKPOINTS,
        "spared = {*list_checkpoints(folder)[-keep:], best(folder)}",
        "spared = {*list_checkpoints(folder)[:keep], best(folder)}",
        "the oldest are kept",
        (f"{KEPT}::test_pruning_keeps_the_newest_and_the_best",),
    ),
    Mutant(
        FOLDER,
        "held[held.index(found[0]) + 1 :]",
        "held[held.index(found[0]) + 9 :]",
        "a corrupt checkpoint counts as the newest when old ones are deleted",
        (f"{FAULTS}::test_a_corrupt_checkpoint_is_passed_over_with_a_warning",),
    ),
]
