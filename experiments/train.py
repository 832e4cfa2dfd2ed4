"""Trains one run, or continues it if the same command was stopped in the same workdir.

    python -m experiments.train --config=configs/digits.py:selector=infobatch --workdir=runs/digits \
        [--config.FIELD=VALUE ...]
"""

import jax
import ml_collections
from absl import flags

from dynsel_jax import offline, options
from dynsel_jax.runs import console
from dynsel_jax.training import parallel
from experiments import cli

_HEARTBEAT = 60  # seconds after which a process that sends nothing counts as dead

_DISTRIBUTED = flags.DEFINE_bool(
  "distributed", False, "Join several processes, which JAX finds through Slurm, Open MPI or TPU."
)
_COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, if JAX cannot find the processes.")
_PROCESSES = flags.DEFINE_integer("processes", None, "With --coordinator: the number of processes.", lower_bound=1)
_PROCESS = flags.DEFINE_integer(
  "process", None, "With --coordinator: the number of this process, from 0.", lower_bound=0
)


def _join_processes() -> None:
  """Joins several processes if a flag says so; must come before JAX is asked for its devices."""
  if _COORDINATOR.value:
    if _PROCESSES.value is None or _PROCESS.value is None:
      raise options.UserError(f"coordinator={_COORDINATOR.value}: --processes and --process must be given too")
    jax.distributed.initialize(
      _COORDINATOR.value,
      _PROCESSES.value,
      _PROCESS.value,
      heartbeat_timeout_seconds=_HEARTBEAT,
      coordinator_bind_address=_COORDINATOR.value,  # by default it would listen on every interface
    )
  elif _DISTRIBUTED.value:
    jax.distributed.initialize(heartbeat_timeout_seconds=_HEARTBEAT)


def main(config: ml_collections.ConfigDict, workdir: str) -> None:
  """Trains, and prints the summary."""
  _join_processes()
  result = offline.train_and_evaluate(config, workdir)
  if parallel.is_first_process():
    print(console.closing_lines(result.summary, result.run.recipe.task.metric, workdir))


if __name__ == "__main__":
  cli.run_on_config(main)
