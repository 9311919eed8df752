"""Mutants of lossless coding: the stack, its laws, the order of pushes, the file, what must be the same."""

from tests.mutants import Mutant

STACK, LAWS = "diffenc_ct/coding/stack.py", "diffenc_ct/coding/laws.py"
BITS_BACK, CODEC = "diffenc_ct/coding/bits_back.py", "diffenc_ct/coding/codec.py"
FILE = "diffenc_ct/coding/file.py"
COMPRESS, DECOMPRESS = "diffenc_ct/cli/compress.py", "diffenc_ct/cli/decompress.py"
OF_LAWS, OF_CODES = "tests/coding/test_laws.py", "tests/coding/test_codec.py"
COMMANDS = "tests/cli/test_codec_commands.py"

MUTANTS = [
    Mutant(
        BITS_BACK,
        "        q[-1](None).push(stack, k[-1])\n",
        "",
        "the first latent's bits are never given back",
        (f"{OF_CODES}::test_what_is_encoded_is_decoded",),
    ),
    Mutant(
        BITS_BACK,
        "        for node in range(self.steps.depth):\n            q[node]",
        "        for node in reversed(range(self.steps.depth)):\n            q[node]",
        "bits are given back in the order in which they were taken",
        (f"{OF_CODES}::test_what_is_encoded_is_decoded",),
    ),
    Mutant(
        BITS_BACK,
        "            self.reverse(node, k[node + 1]).push(stack, k[node])",
        "            q[node](k[node + 1]).push(stack, k[node])",
        "q for p: the decoder, which has no x, cannot pop it",
        (f"{OF_CODES}::test_what_is_encoded_is_decoded",),
    ),
    Mutant(
        BITS_BACK,
        "return Normals(Gaussian(p.mean, p.std * w.sqrt()), width)",
        "return Normals(Gaussian(p.mean, p.std), width)",
        "the ratio is forgotten: on both sides, which only the length tells",
        (f"{OF_CODES}::test_and_no_shorter", f"{OF_CODES}::test_the_mean_length_is_the_bound"),
    ),
    Mutant(
        BITS_BACK,
        "mixtures = values.step(z_t, gamma_s, level, ratio_of_values(ratio, step, values))",
        "mixtures = values.step(z_t, gamma_s, level)",
        "the same of mixture steps",
        (f"{OF_CODES}::test_and_no_shorter", f"{OF_CODES}::test_the_mean_length_is_the_bound"),
    ),
    Mutant(
        BITS_BACK,
        "return [float(s) * 2.0**-self.bits for s in [*stds, sigma(self.gamma[-1])]]",
        "return [2.0**-self.bits for s in [*stds, sigma(self.gamma[-1])]]",
        "one width for all depths, coarser than the noise near the data",
        (f"{OF_CODES}::test_latents_are_on_grids_of_their_steps",),
    ),
    Mutant(
        BITS_BACK,
        "u = (self.latents(0, k_0) / alpha(self.gamma[0])).flatten()",
        "u = self.latents(0, k_0).flatten()",
        "z_0 for z_0/alpha_0",
        (f"{OF_CODES}::test_and_no_shorter", f"{OF_CODES}::test_the_mean_length_is_the_bound"),
    ),
    Mutant(
        BITS_BACK,
        "reverse_step(z_t, found, gamma_s, gamma_t, level)",
        "reverse_step(z_t, _double(self.model.predict(*seen[:1], gamma_s.to(like))), gamma_s, gamma_t, level)",
        "the network is asked at the depth where the step ends",
        (f"{OF_CODES}::test_and_no_shorter",),
    ),
    Mutant(
        LAWS,
        "offset = k - centre\n",
        "offset = k - centre + 1\n",
        "one side's grid is shifted by a cell",
        (f"{OF_LAWS}::test_gaussians",),
    ),
    Mutant(
        LAWS,
        "return centre.astype(np.int64), mean - centre, std, reach",
        "return centre.astype(np.int64), centre - mean, std, reach",
        "the mean on the other side of its cell: no more than a length",
        (f"{OF_LAWS}::test_gaussians",),
    ),
    Mutant(
        LAWS,
        "            _push_excess(stack, np.abs(offset - inside)[far])\n",
        "",
        "what lies beyond the reach is cut off",
        (f"{OF_LAWS}::test_any_integer_at_any_gaussian",),
    ),
    Mutant(
        LAWS,
        "reach = min(math.ceil(DEVIATIONS * float(std.max())) + 1, MOST)",
        "reach = min(math.ceil(float(std.max())) + 1, MOST)",
        "an escape for every third value",
        (f"{OF_LAWS}::test_gaussians",),
    ),
    Mutant(
        LAWS,
        "        j = self._which(k).pop(stack)\n",
        "        j = Choices(self.mixture.log_weights).pop(stack)\n",
        "the component from p(j) for p(j | z)",
        (f"{OF_LAWS}::test_mixtures",),
    ),
    Mutant(
        LAWS,
        "        self._which(k).push(stack, j)\n",
        "",
        "the component's bits are never given back",
        (f"{OF_LAWS}::test_mixtures",),
    ),
    Mutant(
        LAWS,
        "        for rows in reversed(self.slices):\n",
        "        for rows in self.slices:\n",
        "slices are popped in the order in which they were pushed",
        (f"{OF_LAWS}::test_parts_are_popped_in_their_order",),
    ),
    Mutant(
        LAWS,
        ".log_softmax(-1).clamp(min=LEAST)",
        ".log_softmax(-1)",
        "a group of components without weight has no distribution",
        (f"{OF_LAWS}::test_a_choice_without_weight_can_be_made",),
    ),
    Mutant(
        STACK,
        "            self._deepen(count * PRECISION // WORD + 4)\n",
        "            pass\n",
        "a floor of one slab, then zeros: latents are no draws any more",
        (f"{OF_LAWS}::test_the_floor_is_as_deep_as_is_dug",),
    ),
    Mutant(
        STACK,
        "        return compressed[self._untouched :]",
        "        return compressed",
        "the whole floor in every message",
        (
            f"{OF_CODES}::test_initial_bits_are_those_of_one_example",
            f"{OF_CODES}::test_a_message_has_the_length_of_its_own_bound",
        ),
    ),
    Mutant(
        CODEC,
        "done // (PAID * (depth + 1))",
        "done // PAID",
        "many images of many steps begin on bits that nobody left",
        (f"{OF_CODES}::test_a_batch_is_paid_for_by_those_before_it",),
    ),
    Mutant(
        CODEC,
        "reversed(list(_rows(batches(header.count, header.batch, header.depth))))",
        "list(_rows(batches(header.count, header.batch, header.depth)))",
        "the first batch lies on top of the stack",
        (f"{OF_CODES}::test_conditions",),
    ),
    Mutant(
        CODEC,
        "batches(header.count, header.batch, header.depth)",
        "batches(header.count, 16, header.depth)",
        "the header's batch is not read",
        (f"{OF_CODES}::test_batches_are_those_of_the_header",),
    ),
    Mutant(
        CODEC,
        "min(max(1, done // (PAID * (depth + 1))), most, count - done)",
        "min(most, count - done)",
        "initial bits of a whole batch",
        (f"{OF_CODES}::test_a_batch_is_paid_for_by_those_before_it",),
    ),
    Mutant(
        CODEC,
        "    if _digest(x) != header.images or not np.array_equal(stack.words, floor):",
        "    if not np.array_equal(stack.words, floor):",
        "the images' checksum is not looked at",
        (f"{OF_CODES}::test_every_field_is_read",),
    ),
    Mutant(
        CODEC,
        "    if header.steps != _steps_digest(model, loss, tuple(header.shape)):",
        "    if False:",
        "steps are the same where their words are",
        (f"{OF_CODES}::test_other_numbers_under_the_same_words",),
    ),
    Mutant(
        CODEC,
        "    if header.model != fingerprint(model):",
        "    if False:",
        "other weights are found out only after all has been decoded",
        (f"{OF_CODES}::test_other_weights",),
    ),
    Mutant(
        CODEC,
        "    torch.set_num_threads(count)\n",
        "    pass\n",
        "the decoder's own threads",
        (f"{OF_CODES}::test_as_many_threads_as_the_encoder_had",),
    ),
    Mutant(
        FILE,
        "_digest(data[:-_DIGEST]) != data[-_DIGEST:]",
        "False",
        "damage is met somewhere later",
        (f"{OF_CODES}::test_a_damaged_file_is_refused",),
    ),
    Mutant(
        FILE,
        "        return WORD * len(self.words) / self.header.dimensions - self.initial",
        "        return WORD * len(self.words) / self.header.dimensions",
        "the initial bits are called the code's",
        (
            f"{OF_CODES}::test_initial_bits_are_those_of_one_example",
            f"{COMMANDS}::test_what_is_printed",
        ),
    ),
    Mutant(
        DECOMPRESS,
        "**header.run | own",
        "**own | header.run",
        "--run is not looked at",
        (f"{COMMANDS}::test_mistakes_are_one_line_and_nothing_is_written",),
    ),
    Mutant(
        COMPRESS,
        "        check_levels(part, levels, name)\n",
        "",
        "levels that the model has not, met by the coder",
        (f"{COMMANDS}::test_mistakes_are_one_line_and_nothing_is_written",),
    ),
]
