"""The folder of a run: its files, lock, console and clock, what can be read of it, and archives of many. Host-side.

run = dynsel_jax.runs.load("runs/digits")
run.metrics[-1]["test_accuracy"]
run.usage["visits"]                    # how often each sample was trained on
probabilities = run.predict(images)    # [n, H, W, C] uint8, as the data set holds them
"""

from dynsel_jax.options import needs

with needs(__name__, "dynsel_jax[train]"):
  from dynsel_jax.runs.trained import Trained, load

__all__ = ["Trained", "load"]
