"""Trains one run, or continues it: the same command on the same workdir.

    python -m experiments.train --config=configs/digits.py:selector=infobatch --workdir=runs/digits \
        [--config.FIELD=VALUE ...]
"""

import sys

from absl import flags
from ml_collections import config_flags

from dynsel_jax.training import console, loop
from experiments import cli

_CONFIG = config_flags.DEFINE_config_file(
  "config", None, "A file of configs/, with variants after a colon.", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder: made, or continued.")
flags.mark_flags_as_required(["config", "workdir"])


def main() -> int:
  """Runs, and prints the closing summary."""
  cli.check_config_file(_CONFIG)
  try:
    result = loop.train_and_evaluate(_CONFIG.value, _WORKDIR.value)
  except loop.Interrupted as stopped:
    print(f"{stopped}; the same command continues it", file=sys.stderr)
    return 0
  except loop.NonFiniteError as error:
    print(f"error: {error}", file=sys.stderr)
    return 1
  print(console.closing_lines(result.summary, _WORKDIR.value))
  return 0


if __name__ == "__main__":
  cli.run(main)
