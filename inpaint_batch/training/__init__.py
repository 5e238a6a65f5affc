"""Training: dataset, holes to learn from, losses, the loop, checkpoints.

Needs the `train` extra. It must not know the runtime engines, files other than images and checkpoints, or the
command line.
"""
