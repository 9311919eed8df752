"""Mutants of conditional models: labels, guidance, p(label | x), signals and volumes."""

from tests.mutants import Mutant

EMBEDDING = "diffenc_ct/networks/conditions.py"
HEADS, PLAIN = "diffenc_ct/model/heads.py", "diffenc_ct/model/plain.py"
GUIDANCE, CLASSES = "diffenc_ct/model/guidance.py", "diffenc_ct/likelihood/classification.py"
LABELS, EXAMPLES = "diffenc_ct/data/labels.py", "diffenc_ct/training/examples.py"
NETWORKS, MODELS = "tests/networks/test_conditions.py", "tests/model/test_conditions.py"
CLASSIFIED, LABELLED = "tests/likelihood/test_classification.py", "tests/training/test_labelled.py"
OF_DATA, SIDES = "tests/data/test_labels.py", "tests/networks/test_sides.py"

MUTANTS = [
    Mutant(
        EMBEDDING,
        "condition = torch.full((len(like),), -1, device=like.device)",
        "condition = torch.full((len(like),), 0, device=like.device)",
        "no condition is taken for the first class",
        (f"{NETWORKS}::test_labels",),
    ),
    Mutant(
        EMBEDDING,
        "self.labels = nn.Parameter(torch.zeros(classes + 1, features))",
        "self.labels = nn.Parameter(torch.zeros(classes, features))",
        "no row for no label: it is the last class",
        (NETWORKS,),
    ),
    Mutant(
        EMBEDDING,
        "found: Tensor = self.vectors(torch.where(known, condition, 0.0))",
        "found: Tensor = self.vectors(condition)",
        "a NaN that is masked afterwards is in the gradient of everything",
        (f"{NETWORKS}::test_vectors",),
    ),
    Mutant(
        EMBEDDING,
        "if low < -1 or high >= self.classes:",
        "if high >= self.classes:",
        "-2 is the last class but one",
        (f"{NETWORKS}::test_what_is_no_condition_is_refused",),
    ),
    Mutant(
        EMBEDDING,
        "return torch.where(known[:, None], rows, math.nan)",
        "return rows",
        "in training what is no label counts as none",
        (f"{NETWORKS}::test_where_values_are_not_looked_at_what_is_no_label_makes_the_loss_nan",),
    ),
    Mutant(
        HEADS,
        "        if values:\n            check(condition)",
        "        if True:\n            check(condition)",
        "a training step waits for its labels",
        ("tests/elbo/test_no_wait.py::test_nothing_asks_for_a_condition",),
    ),
    Mutant(
        "diffenc_ct/networks/small.py",
        "h = F.silu(h if known is None or number else h + known)",
        "h = F.silu(h)",
        "the network is not told",
        (f"{NETWORKS}::test_labels",),
    ),
    Mutant(
        "diffenc_ct/networks/features.py",
        "return silu(h if known is None else each(lambda a: a + known, h))",
        "return silu(h)",
        "the network is not told",
        (f"{NETWORKS}::test_labels",),
    ),
    Mutant(
        HEADS,
        "        found.condition = self.condition[index]\n",
        "        found.condition = self.condition\n",
        "a part of a batch has the conditions of the whole",
        (MODELS,),
    ),
    Mutant(
        HEADS,
        "        found = copy.copy(self)\n        found.condition = condition\n",
        "        found = self\n        found.condition = condition\n",
        "giving a condition changes the model",
        (f"{MODELS}::test_a_given_model_shares_its_weights_and_leaves_the_other_as_it_was",),
    ),
    Mutant(
        PLAIN,
        "self, *(part.given(condition, values=values) for part in (self.tied, self.head))",
        "self, self.tied.given(condition, values=values), self.head",
        "a fitted head is not told",
        (f"{MODELS}::test_bounds_are_those_of_each_example_and_its_condition",),
    ),
    Mutant(
        "diffenc_ct/likelihood/estimate.py",
        "                model.rows(images),\n",
        "                model.rows(pairs),\n",
        "importance samples are numbered as if they were examples",
        (f"{MODELS}::test_importance_samples_keep_their_conditions",),
    ),
    Mutant(
        "diffenc_ct/likelihood/field.py",
        "model = self.model if rows is None else self.model.rows(rows)",
        "model = self.model if rows is None else self.model.rows(rows.flip(0))",
        "examples that go on are taken for others",
        (f"{MODELS}::test_likelihoods_are_those_of_each_example_and_its_condition",),
    ),
    Mutant(
        "diffenc_ct/likelihood/field.py",
        "model, z = model.rows(first), z[first]",
        "model, z = model, z[first]",
        "the comparison of derivatives has the conditions of other examples",
        (f"{MODELS}::test_likelihoods_are_those_of_each_example_and_its_condition",),
    ),
    Mutant(
        "diffenc_ct/sampling/samples.py",
        "model.rows(indices), level, noise",
        "model.rows(range(len(indices))), level, noise",
        "every batch of samples has the first one's conditions",
        (f"{MODELS}::test_samples_are_those_of_their_conditions",),
    ),
    Mutant(
        "diffenc_ct/training/evaluation.py",
        "model.rows(some)",
        "model.rows(slice(len(images[some])))",
        "every batch of an evaluation has the first one's conditions",
        (f"{LABELLED}::test_evaluate_is_given_the_labels_of_its_split", MODELS),
    ),
    Mutant(
        "diffenc_ct/calibration/tables.py",
        "torch.split(torch.arange(g, len(data), how.groups), how.examples_at_once)",
        "torch.split(torch.arange(len(data[g :: how.groups])), how.examples_at_once)",
        "every group is the first one",
        (f"{MODELS}::test_groups_of_a_calibration_keep_their_conditions",),
    ),
    Mutant(
        "diffenc_ct/training/heads.py",
        "fitted_heads.rows(index)",
        "fitted_heads",
        "a head is fitted to the conditions of other examples",
        (f"{MODELS}::test_a_fitted_head_sees_the_conditions_of_its_batch",),
    ),
    Mutant(
        GUIDANCE,
        "free.x_hat + w * (given.x_hat - free.x_hat)",
        "given.x_hat + w * (given.x_hat - free.x_hat)",
        "the weight of Ho and Salimans, one less than the other convention's",
        (MODELS,),
    ),
    Mutant(
        CLASSES,
        "        return (self.log_prior - self.losses.mean(2)).softmax(1)\n",
        "        return (self.log_prior + self.losses.mean(2)).softmax(1)\n",
        "the least probable class",
        (CLASSIFIED,),
    ),
    Mutant(
        CLASSES,
        "influence = -p * (self.losses - (p * self.losses).sum(1, keepdim=True))",
        "influence = -p * self.losses",
        "what all conditions have in common is counted as an error",
        (f"{CLASSIFIED}::test_standard_errors_are_the_spread_of_repeated_estimates",),
    ),
    Mutant(
        CLASSES,
        "(differences / (2 * draws * (draws - 1))).sqrt()",
        "(differences / (draws * (draws - 1))).sqrt()",
        "the variance of a difference is twice that of one",
        (f"{CLASSIFIED}::test_standard_errors_are_the_spread_of_repeated_estimates",),
    ),
    Mutant(
        CLASSES,
        "apart.abs().sum().item() / len(truth)",
        "apart.abs().mean().item()",
        "bins without examples count",
        (f"{CLASSIFIED}::test_numbers_of_a_table",),
    ),
    Mutant(
        CLASSES,
        "math.sqrt(mean * (1 - mean) / len(right))",
        "math.sqrt(mean / len(right))",
        "the error of a count",
        (f"{CLASSIFIED}::test_numbers_of_a_table",),
    ),
    Mutant(
        CLASSES,
        "drawn = (t[order], *noises, weight[order])",
        "drawn = (t[order], *noises, weight)",
        "each depth has another's weight",
        (f"{CLASSIFIED}::test_draws_come_in_the_order_of_their_depths",),
    ),
    Mutant(
        CLASSES,
        "losses.std(1).flatten()",
        "losses.mean(1).flatten()",
        "depths where the loss is large in the place of those where it depends on the condition",
        (
            f"{CLASSIFIED}::test_draws_where_conditions_lie_apart_agree_with_even_ones_and_have_smaller_errors",
        ),
    ),
    Mutant(
        CLASSES,
        "depths.count(t.flatten(),",
        "depths.count(1 - t.flatten(),",
        "draws at the depths that tell nothing",
        (f"{CLASSIFIED}::test_telling_depths_are_where_the_losses_lie_apart",),
    ),
    Mutant(
        CLASSES,
        "t, weight = bound.depths.draw(",
        "t, weight = InfiniteDepth().depths.draw(",
        "the bound's own way of drawing depths is left out",
        (f"{CLASSIFIED}::test_draws_come_in_the_order_of_their_depths",),
    ),
    Mutant(
        LABELS,
        "return target[order[:-360]], target[order[-360:]]",
        "return target[:-360], target[-360:]",
        "labels in the order of the file, examples in another",
        (f"{OF_DATA}::test_digits_have_theirs",),
    ),
    Mutant(
        LABELS,
        "int(max(part.max() for part in parts)) + 1",
        "int(parts[0].max()) + 1",
        "a class that only the tests have",
        (f"{OF_DATA}::test_two_arrays_of_labels",),
    ),
    Mutant(
        EXAMPLES,
        "return torch.where(left_out, -1, found)[rows]",
        "return torch.where(left_out[rows], -1, found[rows])[: len(found)].flip(0)",
        "labels in another order than their examples",
        (f"{LABELLED}::test_every_example_is_told_its_own_label_or_none",),
    ),
    Mutant(
        EXAMPLES,
        "generator=generator_for(seed, CONDITION, step)) < dropout",
        "generator=generator_for(seed, CONDITION)) < dropout",
        "the same rows are never told anything",
        (f"{LABELLED}::test_every_example_is_told_its_own_label_or_none",),
    ),
    Mutant(
        "diffenc_ct/training/step.py",
        "nats: Terms = parallel(x, loss, draws=draws, condition=labels)",
        "nats: Terms = parallel(x, loss, draws=draws)",
        "a model with labels is trained without",
        (LABELLED,),
    ),
    Mutant(
        "diffenc_ct/training/loop.py",
        'model = told(state.averaged, data, "test", len(images))',
        "model = state.averaged",
        "evaluated in training without its labels",
        (f"{LABELLED}::test_a_model_learns_what_a_label_says",),
    ),
    Mutant(
        "diffenc_ct/networks/jets.py",
        "grow = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rate.ndim - 3]\n"
        "        return grow(rate, layer.weight, None, layer.stride)",
        "grow = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rate.ndim - 3]\n"
        "        return grow(rate, layer.weight, layer.bias, layer.stride)",
        "the bias has no derivative",
        (f"{SIDES}::test_jets_are_derivatives",),
    ),
]
