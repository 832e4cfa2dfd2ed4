"""Trains one run, or continues it: the same command on the same workdir.

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

_HEARTBEAT = 60  # seconds without a sign of life after which a process counts as dead

_DISTRIBUTED = flags.DEFINE_bool(
  "distributed", False, "Several processes, which JAX finds from Slurm, Open MPI or TPU."
)
_COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, where JAX cannot find the processes.")
_PROCESSES = flags.DEFINE_integer("processes", None, "With --coordinator: how many there are.", lower_bound=1)
_PROCESS = flags.DEFINE_integer("process", None, "With --coordinator: this one's number, from 0.", lower_bound=0)


def _join_processes() -> None:
  """Makes this process one of several, if a flag says so. Before anything asks JAX for its devices."""
  if _COORDINATOR.value:
    if _PROCESSES.value is None or _PROCESS.value is None:
      raise options.UserError(f"coordinator={_COORDINATOR.value} needs --processes and --process beside it")
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
  """Runs, and prints the closing summary."""
  _join_processes()
  result = offline.train_and_evaluate(config, workdir)
  if parallel.is_first_process():
    print(console.closing_lines(result.summary, result.run.recipe.task.metric, workdir))


if __name__ == "__main__":
  cli.run_on_config(main)
