"""Runs the entry points: parses flags, and turns errors and signals into one line and an exit status.

The status is 2 after a wrong flag or value; 1 after a loss or gradient that is not finite, or a failure outside the
program such as a full disk; 0 after a signal that stopped a run, and 130 after a second one. `DEBUG=1` shows the
traceback of a failure.
"""

import logging as std_logging
import os
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

import experiments
from dynsel_jax import options
from dynsel_jax.runs import interruption
from experiments import command_help, programs

__all__ = ["run", "run_on_config", "set_xla_defaults"]

# With jax 0.11, XLA's Triton matrix products crash in the forward pass of a ResNet-18 on GPUs
# (github.com/openxla/xla/issues/47381); without them cuBLAS computes the products.
_XLA_DEFAULTS = {"--xla_gpu_enable_triton_gemm": "false"}


def _parse(arguments: Sequence[str]) -> list[str]:
  """Parses the command line; after a wrong flag or field the program ends with one line."""
  try:
    return list(flags.FLAGS(list(arguments)))
  except (flags.Error, KeyError, AttributeError, TypeError, ValueError, OSError, SyntaxError) as error:
    text = error.args[0] if isinstance(error, KeyError) and error.args else str(error)
    # If a config file raises, ml_collections puts the whole traceback into the text.
    plain = " ".join(str(text).rpartition("UserError: ")[2].split()).removesuffix("\\n")  # as repr spells its end
    unknown = _unknown_field(arguments) if isinstance(error, KeyError | AttributeError) else ""
    raise SystemExit(_fail(unknown or plain)) from None


def _unknown_field(arguments: Sequence[str]) -> str:
  """Returns the error line for the first override of a field that the config lacks, since ml_collections has none."""
  flag, _, given = next(argument for argument in arguments if argument.split("=")[0] == "--config").partition("=")
  config = flags.FLAGS["config"].parser.parse(given or arguments[arguments.index(flag) + 1])
  overrides = [argument.partition("=")[0] for argument in arguments if argument.startswith("--config.")]
  for override in overrides if isinstance(config, ml_collections.ConfigDict) else ():
    section, known = "config", config
    for name in override.split(".")[1:]:
      if not isinstance(known, ml_collections.ConfigDict) or name not in known:
        has = ", ".join(sorted(known)) if isinstance(known, ml_collections.ConfigDict) else ""
        return f"{section}.{name} is not a field; {section} has {has or 'no fields'}"
      section, known = f"{section}.{name}", known[name]
  return ""


def _fail(text: str, status: int = 2) -> int:
  print(f"error: {options.printable(text)}", file=sys.stderr)
  return status


def _end(status: int) -> int:
  """Returns the exit status. One of several processes ends here, since at exit JAX waits for those that are gone."""
  return _end_now(status) if jax.process_count() > 1 else status


def _end_now(status: int) -> int:
  """Ends the process without Python's exit, in which JAX may crash if it was interrupted in the middle of its work."""
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(status)


def _quiet_libraries() -> None:
  """Drops the long reports that libraries print about an error which they also raise."""
  handler = logging.get_absl_handler()
  handler.addFilter(_is_ours)
  handler.setFormatter(_Plain())
  # Pillow's remarks on single files; a reader says in a line of its own what it makes of them.
  warnings.filterwarnings("ignore", module=r"PIL\.")
  # After a read has failed, Python finds asyncio's tasks unfinished at exit.
  sys.unraisablehook = lambda unraisable: None
  threading.excepthook = lambda failed: logging.warning("the thread %s ended: %s", failed.thread.name, failed.exc_value)


class _Plain(std_logging.Formatter):
  """Shows a log record as one plain line."""

  def format(self, record: std_logging.LogRecord) -> str:
    return options.printable(f"{record.levelname.lower()}: {record.getMessage()}")


def _is_ours(record: std_logging.LogRecord) -> bool:
  """Whether to show a log record: not a library's long report about an error that is also raised."""
  return not (record.exc_info or ("orbax" in record.pathname and record.levelno >= std_logging.ERROR))


def _workdirs() -> list[str]:
  """Returns the values of the flag `--workdir`; [] if the command has none."""
  given = flags.FLAGS["workdir"].value if "workdir" in flags.FLAGS else []
  return given if isinstance(given, list) else [given]


def set_xla_defaults() -> None:
  """Adds the defaults that `XLA_FLAGS` does not set; JAX reads the variable when it first looks for devices."""
  given = os.environ.get("XLA_FLAGS", "")
  named = {flag.partition("=")[0] for flag in given.split()}
  missing = [f"{flag}={value}" for flag, value in _XLA_DEFAULTS.items() if flag not in named]
  os.environ["XLA_FLAGS"] = " ".join(filter(None, [given, *missing]))


def run(main: Callable[..., Any], *, with_arguments: bool = False) -> None:
  """Parses the flags, calls `main`, and ends the program with its exit status.

  Arguments that are not flags are passed to `main` if `with_arguments`, else they are an error.
  """

  def guarded(arguments: Sequence[str]) -> int:
    experiments.listen()
    _, *others = arguments
    if others and not with_arguments:
      return _fail(f"unexpected argument {others[0]!r}")
    if "" in _workdirs():  # a shell's variable that is not set; "" would be the current folder
      return _fail("workdir='' must name a folder")
    logging.set_verbosity(logging.WARNING)
    if not os.environ.get("DEBUG"):
      _quiet_libraries()
    try:
      return main(*others) or 0
    except options.UserError as error:
      return _fail(str(error))
    except (interruption.NonFiniteError, interruption.RunFailedError) as error:
      if os.environ.get("DEBUG"):
        raise
      return _end(_fail(str(error), status=1))
    except interruption.Interrupted as stopped:
      # A note replaces the default line where the same command starts anew, see `offline.backbone`.
      then = getattr(stopped, "__notes__", ["the same command continues it"])
      print(options.printable("; ".join([str(stopped), *then])), file=sys.stderr)
      return _end_now(0)
    except KeyboardInterrupt:  # a second Ctrl-C: not even a checkpoint that is being written is waited for
      print("stopped at once; the same command continues from the last checkpoint", file=sys.stderr, flush=True)
      os._exit(130)
    except Exception as error:
      if os.environ.get("DEBUG"):
        raise
      lines = str(error).strip().splitlines() or ["no message"]
      return _fail(f"{type(error).__name__}: {lines[0][:300]} (DEBUG=1 shows where)", status=1)

  set_xla_defaults()
  programs.keep()
  if command_help.asks_for_help(sys.argv[1:]):
    print(command_help.help_text(_named_config(sys.argv)))
    sys.exit(0)
  if len(sys.argv) == 1:  # every command needs something, a folder in most cases
    print(f"{command_help.example()}\n", file=sys.stderr)
    sys.exit(_fail("nothing is given; --help says more"))
  app.run(guarded, flags_parser=_parse)


def _named_config(arguments: Sequence[str]) -> ml_collections.ConfigDict | None:
  """Returns the config that the command line names, with its overrides; None without a readable one."""
  named = [argument for argument in arguments if argument.split("=")[0].startswith("--config")]
  if not any(argument.startswith("--config=") for argument in named):
    return None
  try:
    flags.FLAGS([arguments[0], *named, *(["--workdir=."] if "workdir" in flags.FLAGS else [])])
    return flags.FLAGS.config
  except Exception:  # help is given to a command whose config is wrong, too
    return None


def run_on_config(main: Callable[..., Any], *, with_workdir: bool = True) -> None:
  """Calls `main(config, workdir)` with the values of these flags, and ends the program with its exit status.

  Without `with_workdir` there is no flag `--workdir`, and `main(config)` is called. The flags are defined here rather
  than at import, so that one program can import several entry points.
  """
  config = config_flags.DEFINE_config_file(
    "config", None, "A file in configs/, with variants after a colon.", lock_config=True
  )
  flags.mark_flag_as_required("config")
  flags.DEFINE_bool("print_config", False, "Print every field of the config with its value, and end.")
  if with_workdir:
    flags.DEFINE_string("workdir", None, "The folder to write; a run in it is continued.", required=True)

  def on_config() -> Any:
    filename, _, _ = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
    if not os.path.isfile(filename):  # the error of ml_collections has many lines
      raise options.UserError(f"config={filename} is not a file")
    if flags.FLAGS.print_config:
      print(command_help.fields_text(config.value))
      return 0
    expanded = ml_collections.ConfigDict(options.expand_homes(config.value.to_dict())).lock()
    if not with_workdir:
      return main(expanded)
    return main(expanded, options.expand_home("workdir", flags.FLAGS.workdir))

  run(on_config)
