"""Mutants of runs: what may change, which data and folder, weights to begin with, what was fitted beside them."""

from tests.mutants import Mutant

TRAINING = "diffenc_ct/training"
CHANGES, RECORD = f"{TRAINING}/changes.py", f"{TRAINING}/data_record.py"
FOLDER, LOOP, STATE = f"{TRAINING}/folder.py", f"{TRAINING}/loop.py", f"{TRAINING}/state.py"
CHECKPOINTS, RUNS, HEADS = (f"{TRAINING}/{n}.py" for n in ("checkpoints", "runs", "heads"))
STEP, METER, COMMAND = f"{TRAINING}/step.py", f"{TRAINING}/meter.py", "diffenc_ct/cli/train.py"
FILES, FINGERPRINT = "diffenc_ct/report/files.py", "diffenc_ct/model/fingerprint.py"
KEPT_FITS = "diffenc_ct/calibration/kept.py"
RESUMING, FITS = "tests/training/test_resuming.py", "tests/training/test_fits.py"
KEPT, FAULTS = (
    "tests/training/test_training_checkpoints.py",
    "tests/training/test_training_faults.py",
)
OPTIMISER, WHICH = "tests/training/test_optimiser.py", "tests/training/test_which_weights.py"
READ, WRITTEN = "tests/training/test_config.py", "tests/report/test_files.py"

MUTANTS = [
    Mutant(
        CHANGES,
        'decays and name == "training.steps"',
        'not decays and name == "training.steps"',
        "a cosine is extended, a constant rate is not",
        (f"{READ}::test_what_may_change_on_resuming_is_a_list",),
    ),
    Mutant(
        CHANGES,
        "if entry not in entries[-1:]:",
        "if not entries:",
        "only the first change is recorded",
        (f"{RESUMING}::test_what_may_change_is_obeyed_and_recorded",),
    ),
    Mutant(
        RECORD,
        "every = math.ceil(",
        "every = 2 + math.ceil(",
        "small data are looked at in part, too",
        (f"{RESUMING}::test_of_what_is_not_large_every_block_counts",),
    ),
    Mutant(
        RECORD,
        "for block in [*chosen, blocks[-1]]:",
        "for block in chosen:",
        "what is appended to large data is not seen",
        (f"{RESUMING}::test_large_data_are_told_by_blocks",),
    ),
    Mutant(
        RECORD,
        'elif before["sha256"] != after["sha256"]:',
        "elif before == after:",
        "data that stayed the same are refused, others are not",
        (f"{RESUMING}::test_a_record_tells_any_change",),
    ),
    Mutant(
        FOLDER,
        "if unfit or (unlike and not self.override):",
        "if unfit:",
        "a file that became another one is gone on with",
        (f"{RESUMING}::test_a_file_that_became_another_is_refused_on_resuming",),
    ),
    Mutant(
        FOLDER,
        "if unfit or (unlike and not self.override):",
        "if (unfit or unlike) and not self.override:",
        "an override of shapes",
        (f"{RESUMING}::test_a_file_that_became_another_is_refused_on_resuming",),
    ),
    Mutant(
        FOLDER,
        "if not list_checkpoints(self.checkpoints):",
        'if not (self.path / "config.json").exists():',
        "a start that failed occupies its folder",
        (f"{RESUMING}::test_a_folder_without_a_checkpoint_is_no_run",),
    ),
    Mutant(
        FOLDER,
        'changes.pop("data.name", None)',
        'changes.pop("data.levels", None)',
        "data that moved are other data",
        (f"{RESUMING}::test_the_same_data_elsewhere_are_the_same",),
    ),
    Mutant(
        COMMAND,
        "if arguments.resume and not begins:",
        "if arguments.resume and not arguments.run:",
        "a mistyped folder begins the default model",
        (f"{RESUMING}::test_resuming_needs_a_run_or_what_to_begin",),
    ),
    Mutant(
        LOOP,
        "elif settings.init_from is not None:",
        "elif settings.init_from is None:",
        "what is named is not taken",
        (f"{RESUMING}::test_a_run_begins_with_the_averages_of_another",),
    ),
    Mutant(
        LOOP,
        'unusable = not math.isfinite(metrics["bpd"])',
        'unusable = math.isinf(metrics["bpd"])',
        "NaN on test examples is a result",
        (f"{FAULTS}::test_an_evaluation_that_is_not_finite_stops",),
    ),
    Mutant(
        LOOP,
        "keeping = (saving or stop) and not unusable",
        "keeping = saving or stop",
        "weights that cannot be evaluated are saved",
        (f"{FAULTS}::test_an_evaluation_that_is_not_finite_stops",),
    ),
    Mutant(
        LOOP,
        "fresh = metrics if evaluation else {}",
        "fresh = metrics",
        "a checkpoint has the metrics of an earlier one",
        (f"{OPTIMISER}::test_a_checkpoint_has_the_metrics_of_its_own_step_or_none",),
    ),
    Mutant(
        LOOP,
        "told(state.averaged, data",
        "told(state.model, data",
        "the weights of the last step are evaluated",
        (f"{WHICH}::test_training_evaluates_the_average_on_test_examples_at_its_noise_level",),
    ),
    Mutant(
        LOOP,
        "images, level = data.test[: config.training.eval_examples]",
        "images, level = data.train[: config.training.eval_examples]",
        "training examples are evaluated",
        (f"{WHICH}::test_training_evaluates_the_average_on_test_examples_at_its_noise_level",),
    ),
    Mutant(
        LOOP,
        "InfiniteDepth(state.noise_level)",
        "InfiniteDepth()",
        "training is evaluated at eta = 1",
        (f"{WHICH}::test_training_evaluates_the_average_on_test_examples_at_its_noise_level",),
    ),
    Mutant(
        LOOP,
        "                speed.restart()",
        "                speed.recent = []",
        "evaluations count as training time",
        (f"{OPTIMISER}::test_a_row_is_the_mean_since_the_last_and_its_time_the_trainings",),
    ),
    Mutant(
        METER,
        "        self.recent = []\n        bpd",
        "        bpd",
        "a row is the mean since the start",
        (f"{OPTIMISER}::test_a_row_is_the_mean_since_the_last_and_its_time_the_trainings",),
    ),
    Mutant(
        STATE,
        "for model in (self.model, *self.averages.values()):",
        "for model in (self.model,):",
        "averages begin at weights that were drawn",
        (f"{RESUMING}::test_a_run_begins_with_the_averages_of_another",),
    ),
    Mutant(
        STATE,
        'if not k.startswith("decoder.")}',
        'if not k.startswith("encoder.")}',
        "data are standardised by another set's numbers",
        (f"{RESUMING}::test_data_are_standardised_by_their_own_numbers",),
    ),
    Mutant(
        STATE,
        "mine.copy_(theirs)",
        "pass",
        "averages keep the buffers of the start",
        (f"{WHICH}::test_averages_have_the_buffers_of_the_model",),
    ),
    Mutant(
        STATE,
        "betas=(config.beta1, config.beta2)",
        "betas=(config.beta2, config.beta1)",
        "the two rates in the wrong order",
        (f"{OPTIMISER}::test_steps_are_those_of_adamw_written_out",),
    ),
    Mutant(
        STATE,
        "eps=config.epsilon,",
        "",
        "the optimiser's own epsilon",
        (f"{OPTIMISER}::test_steps_are_those_of_adamw_written_out",),
    ),
    Mutant(
        STEP,
        "clip_grad_norm_(state.model.parameters(), limit)",
        "clip_grad_norm_(state.model.heads.parameters(), limit)",
        "the encoder's gradients are not clipped",
        (f"{OPTIMISER}::test_the_norm_that_is_clipped_is_of_all_gradients_together",),
    ),
    Mutant(
        STEP,
        'group["lr"] = learning_rate(config, state.step)',
        'group["lr"] = learning_rate(config, state.step + 1)',
        "the learning rate of the next step",
        (f"{OPTIMISER}::test_steps_are_those_of_adamw_written_out",),
    ),
    Mutant(
        STEP,
        "ends_fraction=settings.ends_fraction,",
        "ends_fraction=settings.rate_fraction,",
        "one fraction for the other",
        (f"{OPTIMISER}::test_parts_of_a_batch_are_the_configured_ones",),
    ),
    Mutant(
        HEADS,
        "0.5 * (1 + math.cos(math.pi * step / steps))",
        "0.5 * (1 - math.cos(math.pi * step / steps))",
        "the rate rises",
        (f"{OPTIMISER}::test_the_rate_of_fit_head_falls_along_half_a_cosine",),
    ),
    Mutant(
        CHECKPOINTS,
        "if math.isfinite(bpd :=",
        "if not math.isinf(bpd :=",
        "NaN is the best",
        (f"{KEPT}::test_pruning_keeps_the_newest_and_the_best",),
    ),
    Mutant(
        CHECKPOINTS,
        "return short if float(short) == rate else repr(rate)",
        "return short",
        "two averages under one name",
        (f"{KEPT}::test_averages_that_print_alike_are_kept_apart",),
    ),
    Mutant(
        RUNS,
        "return Tightness.load(path, model=self.model).noise_level",
        "return Tightness.load(path).noise_level",
        "the noise level of other weights",
        (f"{FITS}::test_commands_refuse_what_is_of_other_weights_or_cut_off",),
    ),
    Mutant(
        HEADS,
        "check_fitted_to(owner, model if whole else network",
        "check_fitted_to(owner if whole else None, model",
        "heads of version 0.1 are believed",
        ("tests/training/test_old_runs.py::test_a_head_of_other_weights_is_refused",),
    ),
    Mutant(
        FINGERPRINT,
        "digest.update(name.encode() + values",
        "digest.update(values",
        "names do not count",
        (f"{FITS}::test_fingerprints_see_names_values_and_types",),
    ),
    Mutant(
        KEPT_FITS,
        "needed <= set(plain) <= set(known)",
        "set(plain) <= set(known)",
        "a file that lacks fields is read",
        ("tests/calibration/test_tightness.py::test_saved_and_loaded",),
    ),
    Mutant(
        FILES,
        "return None if isinstance(value, float) and not math.isfinite(value) else value",
        "return None if isinstance(value, float) and math.isnan(value) else value",
        "infinity is left in",
        (f"{WRITTEN}::test_null_stands_for_what_is_not_finite_and_its_name_is_said",),
    ),
]
