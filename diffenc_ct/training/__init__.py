"""Training: from a configuration to a run's folder, and back to a model.

config, settings, presets   what determines a run
versions                    the same of earlier releases
build                       its model
loop, step, meter           the loop, one step of it, what is shown of it
state, randomness           what a step changes, and what it draws
examples                    what it sees
folder, checkpoints, runs   what is left on disk, and how it is opened
evaluation, heads, cost     bounds on test data, fitted heads, what a step costs
tensorboard                 curves and pictures
"""
