"""Mutants of adapters: processes, readings, what is asked of a network, and what is said of it."""

from tests.mutants import Mutant

NATIVE, TABLES = "diffenc_ct/adapters/native.py", "diffenc_ct/adapters/tabulated.py"
PROCESSES, HEADS = "diffenc_ct/adapters/processes.py", "diffenc_ct/adapters/heads.py"
ADAPT, PACKAGES = "diffenc_ct/adapters/adapt.py", "diffenc_ct/adapters/packages.py"
LAST, FACE = "diffenc_ct/adapters/last_step.py", "diffenc_ct/adapters/hugging_face.py"
COMMANDS, OF_COMMANDS = "diffenc_ct/cli/adapters.py", "tests/cli/test_adapters.py"
OF_PACKAGES = "tests/adapters/test_packages.py"
TESTS = "tests/adapters/test_adapters.py"
ESTIMATES = f"{TESTS}::test_estimates_errors_and_score_are_the_worlds"
THEOREM = f"{TESTS}::test_readings_are_the_theorem_to_ten_digits"
SAID = f"{TESTS}::test_processes_are_what_they_say"

MUTANTS = [
    # How an output is read ----------------------------------------------------------------------------
    Mutant(
        HEADS,
        '"v": lambda at: (-at.b, at.a),',
        '"v": lambda at: (at.b, at.a),',
        "v's sign",
        (ESTIMATES,),
    ),
    Mutant(
        HEADS,
        '"v": lambda at: (-at.b, at.a),',
        '"v": lambda at: (-at.a, at.b),',
        "a and b of v exchanged",
        (ESTIMATES,),
    ),
    Mutant(
        HEADS, "-1 / at.b)", "1 / at.b)", "a score that points away from the data", (ESTIMATES,)
    ),
    Mutant(HEADS, "-1 / at.b)", "-at.b)", "the score as eps times b", (ESTIMATES,)),
    Mutant(
        HEADS,
        "x_hat = (q * native - b * u) / (a * q - b * p)",
        "x_hat = (q * native - b * u) / (a * q + b * p)",
        "the determinant's sign",
        (ESTIMATES,),
    ),
    Mutant(
        HEADS,
        "x_hat = (q * native - b * u) / (a * q - b * p)",
        "x_hat = (q * z - b * u) / (a * q - b * p)",
        "this library's z beside the network's a and b",
        (ESTIMATES,),
    ),
    Mutant(
        HEADS,
        "return Errors(b / (a * q - b * p) * missed",
        "return Errors(a / (a * q - b * p) * missed",
        "a for b in the error",
        (THEOREM,),
    ),
    Mutant(
        HEADS,
        "native = expand(torch.hypot(at.a, at.b), z) * z\n",
        "native = z\n",
        "the network is given latents of another scale than it was trained on",
        (ESTIMATES,),
    ),
    # What is asked of a network -----------------------------------------------------------------------
    Mutant(
        HEADS,
        "return out[:, : z.shape[1]]",
        "return out[:, z.shape[1] :]",
        "the learned variance for the mean",
        (f"{TESTS}::test_twice_the_channels_are_a_learned_variance_and_said_once",),
    ),
    Mutant(
        HEADS,
        "return _first_half(out, z).to(z.dtype)",
        "return _first_half(out, z)",
        "the network's precision for that of the latents",
        (f"{TESTS}::test_a_model_goes_to_another_precision_and_is_copied",),
    ),
    Mutant(
        HEADS,
        "dict.fromkeys((torch.promote_types(own, torch.float32), own))",
        "(own,)",
        "times of a thousand steps in half precision",
        (f"{TESTS}::test_half_precision_networks_are_cast_in_and_out",),
    ),
    Mutant(
        HEADS,
        "        self._tried = True\n",
        "",
        "every call of the network is two, and every warning many",
        (f"{TESTS}::test_twice_the_channels_are_a_learned_variance_and_said_once",),
    ),
    Mutant(
        ADAPT,
        "torch.promote_types(floats[0], torch.float32)",
        "floats[0]",
        "data and losses in half precision",
        (f"{TESTS}::test_half_precision_networks_are_cast_in_and_out",),
    ),
    Mutant(
        ADAPT,
        "noise <= width / 2",
        "noise <= width * 2",
        "nothing is said of noise that hides levels",
        (f"{TESTS}::test_noise_that_begins_coarse_is_said_with_its_price",),
    ),
    Mutant(
        ADAPT,
        "math.sqrt(2 * math.pi * math.e)",
        "math.sqrt(2 * math.pi)",
        "half a nat too little for the price",
        (f"{TESTS}::test_noise_that_begins_coarse_is_said_with_its_price",),
    ),
    # Processes ----------------------------------------------------------------------------------------
    Mutant(
        NATIVE,
        "return 2 * (b.log() - a.log())",
        "return b.log() - a.log()",
        "gamma without its 2",
        (SAID,),
    ),
    Mutant(
        NATIVE,
        "torch.where(below, middle, low), torch.where(below, high, middle)",
        "torch.where(below, low, middle), torch.where(below, middle, high)",
        "the wrong half",
        (SAID,),
    ),
    Mutant(
        NATIVE,
        "_NODES, _HALVINGS = 1025, 54",
        "_NODES, _HALVINGS = 1025, 5",
        "times to five digits",
        (SAID,),
    ),
    Mutant(
        NATIVE,
        "told.round().long() if self.rounded",
        "told.long() if self.rounded",
        "times cut off for rounded ones",
        (f"{TESTS}::test_rounded_times_are_the_nearest",),
    ),
    Mutant(
        NATIVE,
        "t if self.told is None else self.told(t)",
        "t",
        "the network is told another unit of time",
        (ESTIMATES,),
    ),
    Mutant(
        NATIVE,
        "if not bool((gamma.diff() > 0).all()):",
        "if not bool((gamma[1:] > gamma[0]).all()):",
        "a dent in the log SNR",
        (f"{TESTS}::test_a_schedule_that_is_not_monotone_is_refused",),
    ),
    Mutant(
        PROCESSES,
        "return cell + share.clamp(0, 1)",
        "return cell + 1 + share.clamp(0, 1)",
        "DDPM's times counted from one",
        (f"{TESTS}::test_whole_times_at_the_tables_own_depths",),
    ),
    Mutant(
        PROCESSES,
        "(-torch.expm1(log_share)).sqrt()",
        "(1 - log_share.exp()).sqrt()",
        "the first betas' digits",
        (f"{TESTS}::test_noise_of_betas_keeps_its_digits",),
    ),
    Mutant(
        PROCESSES,
        "torch.hypot(a, b).log()",
        "torch.hypot(a, b)",
        "a scale for its logarithm",
        (SAID,),
    ),
    Mutant(
        PROCESSES,
        "return (gamma - gamma[0]) / (gamma[-1] - gamma[0])",
        "return torch.linspace(0, 1, len(self), dtype=torch.float64)",
        "depths that are not the table's own",
        (f"{TESTS}::test_whole_times_at_the_tables_own_depths",),
    ),
    Mutant(
        PROCESSES,
        "return theta * (2 / math.pi) * (1 + self.offset) - self.offset",
        "return theta * (2 / math.pi)",
        "the cosine without its offset",
        (SAID,),
    ),
    Mutant(
        PROCESSES,
        "return (t, 1 - t) if self.data_at else (1 - t, t)",
        "return 1 - t, t",
        "noise where others have their data",
        (SAID,),
    ),
    Mutant(
        PROCESSES,
        "return (gamma / 2).exp()\n",
        "return gamma.exp()\n",
        "sigma^2 told for sigma",
        (SAID,),
    ),
    Mutant(
        TABLES,
        "steps * change)",
        "change)",
        "the rate in steps of the table",
        (f"{TESTS}::test_the_rate_of_a_table",),
    ),
    # Other packages -----------------------------------------------------------------------------------
    Mutant(
        PACKAGES,
        "BYTES = Levels(256, ends=True)",
        "BYTES = Levels(256)",
        "bytes at the centres of bins, where other code has x/127.5 - 1",
        (f"{OF_PACKAGES}::test_ddpms_variational_bound",),
    ),
    Mutant(
        FACE,
        "told=lambda t: steps * t",
        "told=lambda t: t",
        "flow matching's times told without their thousand",
        (f"{OF_PACKAGES}::test_flow_matchings_scheduler",),
    ),
    Mutant(
        PACKAGES,
        '"pred_v": "v"}',
        '"pred_v": "eps"}',
        "lucidrains' default objective read as noise",
        (f"{OF_PACKAGES}::test_lucidrains_loss_is_ours",),
    ),
    Mutant(
        PACKAGES,
        "data_at: int = 1,",
        "data_at: int = 0,",
        "noise where flow matching has its data",
        (f"{OF_PACKAGES}::test_flow_matchings_own_likelihood",),
    ),
    Mutant(
        FACE,
        "scheduler.precondition_inputs(z, noise)",
        "z",
        "EDM's network given what is not scaled for it",
        (f"{OF_PACKAGES}::test_edms_scheduler_preconditions_a_network_of_a_world",),
    ),
    Mutant(
        PACKAGES,
        "return own if 0 < own < math.inf else otherwise",
        "return own",
        "a least noise of 0 and a most of infinity",
        (f"{OF_PACKAGES}::test_edm_networks_say_their_shape_and_range",),
    ),
    Mutant(
        PACKAGES,
        "value.to(z.device).expand(len(z), *value.shape[1:])",
        "value.to(z.device)",
        "a label for the first example alone",
        (f"{OF_PACKAGES}::test_edm_networks_say_their_shape_and_range",),
    ),
    Mutant(
        PACKAGES,
        "if decoder is None and float(diffusion.normalize(half)) != 0:",
        "if decoder is None and float(diffusion.normalize(half)) == 7:",
        "images in (0, 1) taken for ones in (-1, 1)",
        (f"{OF_PACKAGES}::test_lucidrains_images_that_are_not_scaled",),
    ),
    # The command line ---------------------------------------------------------------------------------
    Mutant(
        COMMANDS,
        "None if data in NAMES else model.decoder.levels",
        "None",
        "as many levels as a file happens to show",
        (f"{OF_COMMANDS}::test_a_model_of_more_levels_than_a_file_shows",),
    ),
    Mutant(
        COMMANDS,
        "folder = Path(arguments.out).parent",
        "folder = Path()",
        "fits of somebody's network in whatever folder one is in",
        (f"{OF_COMMANDS}::test_what_is_fitted_lies_beside_the_result_and_is_used",),
    ),
    Mutant(
        COMMANDS,
        "arguments.run = given  #",
        "arguments.run = arguments.adapter  #",
        "commands proposed that take the function for a run",
        (f"{OF_COMMANDS}::test_what_is_fitted_lies_beside_the_result_and_is_used",),
    ),
    Mutant(
        COMMANDS,
        "if arguments.run is not None:",
        "if arguments.run == 0:",
        "a run that is given and not looked at",
        (f"{OF_COMMANDS}::test_what_does_not_go_together_is_one_line",),
    ),
    Mutant(
        HEADS,
        "found.condition = condition\n",
        "found.condition = None\n",
        "labels that are taken and not passed",
        (f"{TESTS}::test_a_label_of_each_example_is_passed",),
    ),
    Mutant(
        FACE,
        "**given(z) | labels",
        "**labels | given(z)",
        "the label of all for an example's own",
        (f"{OF_PACKAGES}::test_labels_and_learned_variances",),
    ),
    # DDPM's last step ---------------------------------------------------------------------------------
    Mutant(
        LAST,
        "side * self.places.width / 2",
        "side * self.places.width",
        "bins twice as wide",
        ("tests/adapters/test_last_step.py::test_masses_are_those_of_the_bins",),
    ),
    Mutant(
        LAST,
        "low = torch.where(x == 0, -math.inf, low)",
        "low = low",
        "the outer bins closed",
        ("tests/adapters/test_last_step.py::test_masses_are_those_of_the_bins",),
    ),
    Mutant(
        LAST,
        "flip = low + high > 0",
        "flip = low + high > math.inf",
        "cancellation in the upper tail",
        (
            "tests/adapters/test_last_step.py::test_the_middle_level_keeps_its_digits_in_either_tail",
        ),
    ),
    Mutant(
        LAST,
        "z_0, gamma = alpha(gamma_0) * u,",
        "z_0, gamma = u,",
        "u for z_0",
        ("tests/adapters/test_last_step.py::test_masses_are_those_of_the_bins",),
    ),
]
