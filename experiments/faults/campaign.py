"""Hundreds of faults, one after another, each followed by the same command. Host-side.

Each fault must end with the bits of an undisturbed run, perhaps after warnings; or with one line and a status that is
not 0, and with those bits once the cause is removed.
"""

import collections
import pathlib
import random
import re
import shutil
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from dynsel_jax.runs import files
from experiments.faults import damage
from experiments.faults.commands import METHODS, Attempt, Place, differences, train

__all__ = ["FAULTS", "Outcome", "campaign", "table"]

_MEGABYTES = 24  # of the small disk
_NOTHING = "nothing to damage"  # a run that had not begun
_MOST_LEFT = 1 << 20  # bytes of it; a run writes about two such checkpoints, and its last files


class Outcome(NamedTuple):
  """What became of one fault."""

  kind: str
  what: str  # was done to which run
  ended: str  # "right", "right after a warning", "right after an error", "skipped", or what is wrong
  wrong: bool


class _Trial:
  """One fault: its run, what has been done to it, and the attempts at it."""

  def __init__(self, method: str, place: Place, reference: Place, rng: random.Random, seconds: float):
    self.method, self.place, self.reference, self.rng = method, place, reference, rng
    self.seconds = seconds  # that an undisturbed run takes
    self.done: list[str] = []
    self.attempts: list[Attempt] = []
    self.damaged: list[pathlib.Path] = []

  def start(self) -> None:
    """Begins with a finished run, one with a part left to do, or none."""
    state = self.rng.choice(("finished", "unfinished", "unfinished", "new"))
    self.done.append(f"{self.method}, {state}")
    shutil.copytree(self.reference.cache, self.place.cache)
    if state == "new":
      return
    shutil.copytree(self.reference.workdir, self.place.workdir)
    if state == "unfinished":
      for name in ("summary.json", "usage.npz"):
        (self.place.workdir / name).unlink()
      newest = self.place.workdir / "checkpoints" / str(damage.newest_step(self.place.workdir))
      if self.rng.random() < 0.7:  # else the end is saved, and only its files are left to be written
        shutil.rmtree(newest)

  def attempt(self, meanwhile: Callable[..., bool] | None = None) -> Attempt:
    """Runs the command."""
    self.attempts.append(train(self.method, self.place, meanwhile))
    return self.attempts[-1]

  def _moment(self) -> damage.Moment:
    """Returns a random moment: while the command begins, or soon after one of its checkpoints."""
    if self.rng.random() < 0.3:
      return damage.Moment(self.rng.uniform(0.1, 0.9) * self.seconds)
    last = damage.newest_step(self.reference.workdir) or 0
    done = damage.newest_step(self.place.workdir) or 0
    step = self.rng.randint(done + 1, last) if done < last else last
    return damage.Moment(self.rng.uniform(0, 0.3), step, self.place.workdir)

  def kill(self) -> None:
    """Kills the command at a random moment."""
    moment = self._moment()
    self.done.append(f"killed {moment}")
    self.attempt(damage.killing(moment))

  def remove(self) -> None:
    """Deletes the run's folder while the command runs."""
    moment = self._moment()
    self.done.append(f"folder deleted {moment}")
    self.attempt(damage.removing(self.place.workdir, moment))

  def damage(self, only: str = "") -> None:
    """Damages a random file."""
    cache = self.place.cache if self.method == "rrd" else None
    found = damage.sources_of_damage(self.place.workdir, cache)
    if only in found:
      found = {only: found[only]}
    if not found:
      return
    kind = self.rng.choice(sorted(found))
    path = self.rng.choice(found[kind])
    self.done.append(damage.damage(path, self.rng.choice(damage.KINDS), self.rng) + f" ({kind})")
    self.damaged.append(path)

  def stray(self) -> None:
    """Makes a folder with the name of a checkpoint that there never was, empty or with a file in it."""
    folder = self.place.workdir / "checkpoints" / str(self.rng.choice((0, 1, 999, 10**6)))
    folder.mkdir(parents=True, exist_ok=True)
    if self.rng.random() < 0.5:
      (folder / "_CHECKPOINT_METADATA").write_text("{}")
    self.done.append(f"stray checkpoints/{folder.name}")

  def full_disk(self) -> str:
    """Runs the command on a disk that fills up; returns why that cannot be done here, or ""."""
    with damage.small_disk(self.place.workdir.parent, _MEGABYTES) as reason:
      if reason:
        return reason
      self.start()
      left = self.rng.randrange(_MOST_LEFT)
      self.done.append(f"{left:,} bytes left")
      with damage.filled(self.place.workdir.parent, left):
        self.attempt()
      return self.end()

  def end(self) -> str:
    """Runs the command until it succeeds, removing what its error names; returns what is wrong, or ""."""
    for attempt in self.attempts:
      if attempt.wrong:
        return attempt.wrong
    known = damage.newest_step(self.place.workdir)
    for number in range(4):
      attempt = self.attempt()
      if attempt.wrong:
        return attempt.wrong
      if attempt.status == 0:
        break
      if number:  # the same command does not help: remove what was damaged, as the line says
        for path in self.damaged:
          if str(path.name) in attempt.errors[-1]:
            path.unlink(missing_ok=True)
    else:
      return f"does not succeed: {self.attempts[-1].errors[-1]}"
    if differing := differences(self.place.workdir, self.reference.workdir):
      return f"{'; '.join(differing)} differ{' in silence' if not self._said() else ''}"
    return self._lost(known)

  def _lost(self, known: int | None) -> str:
    """Returns which checkpoint was not continued from, though nothing had damaged it; "" if there is none."""
    kept = [int(step) for a in self.attempts for line in a.errors for step in re.findall(r"step (\d+) is kept", line)]
    if known is not None and not self.damaged and not any("stray" in words for words in self.done):
      kept.append(known)
    summary = files.read_json(self.place.workdir / "summary.json") or {}
    resumed, last = summary.get("resumed_from", []), summary.get("steps")
    lost = [step for step in kept if step not in resumed and step != last and self.place.workdir.exists()]
    return f"the checkpoint of step {lost[0]} is lost" if lost and not self._removed() else ""

  def _removed(self) -> bool:
    return any("folder deleted" in words for words in self.done)

  def _said(self) -> bool:
    return any(attempt.warnings or attempt.status for attempt in self.attempts if not attempt.killed)

  def how(self) -> str:
    """Says how a fault that ended well did so."""
    if any(attempt.status for attempt in self.attempts if not attempt.killed):
      return "right after an error"
    return "right after a warning" if self._said() else "right"


def _kill(trial: _Trial) -> str:
  trial.start()
  for _ in range(trial.rng.choice((1, 1, 2))):
    trial.kill()
  return trial.end()


def _damage(trial: _Trial) -> str:
  trial.start()
  trial.damage()
  return trial.end() if trial.damaged else _NOTHING


def _damage_twice(trial: _Trial) -> str:
  trial.start()
  for _ in range(2):
    trial.damage()
  return trial.end() if trial.damaged else _NOTHING


def _damage_then_kill(trial: _Trial) -> str:
  trial.start()
  first, second = trial.rng.sample((trial.damage, trial.kill), 2)
  first()
  second()
  return trial.end()


def _damage_cache(trial: _Trial) -> str:
  trial.method = "rrd"
  trial.reference = trial.reference._replace(workdir=trial.reference.workdir.with_name("rrd"))
  trial.start()
  for name in ("columns.npz", "firings.npz"):  # so that the cache is read
    if trial.rng.random() < 0.5:
      (trial.place.workdir / name).unlink(missing_ok=True)
  trial.damage("cache")
  return trial.end() if trial.damaged else _NOTHING


def _damage_all(trial: _Trial) -> str:
  trial.start()
  for step in sorted((trial.place.workdir / "checkpoints").glob("[0-9]*")):
    path = trial.rng.choice(sorted(path for path in step.rglob("*") if path.is_file() and path.stat().st_size))
    trial.done.append(f"{damage.damage(path, trial.rng.choice(damage.KINDS), trial.rng)} (step {step.name})")
    trial.damaged.append(path)
  return trial.end() if trial.damaged else _NOTHING


def _stray(trial: _Trial) -> str:
  trial.start()
  trial.stray()
  return trial.end()


def _delete_folder(trial: _Trial) -> str:
  trial.start()
  trial.remove()
  return trial.end()


FAULTS: dict[str, tuple[Callable[[_Trial], str], int]] = {  # each with its weight
  "killed": (_kill, 5),
  "a damaged file": (_damage, 8),
  "two damaged files": (_damage_twice, 3),
  "damaged and killed": (_damage_then_kill, 3),
  "every checkpoint damaged": (_damage_all, 2),
  "damaged cache": (_damage_cache, 2),
  "stray checkpoint": (_stray, 1),
  "folder deleted": (_delete_folder, 1),
  "full disk": (_Trial.full_disk, 3),
}


def _references(folder: pathlib.Path) -> dict[str, tuple[Place, float]]:
  """Makes the undisturbed run of each method, and measures the seconds of a second one."""
  found = {}
  for method in METHODS:
    place = Place(folder / method, folder / "cache", folder.parent / "programs")
    for _ in range(2):  # the first compiles
      shutil.rmtree(place.workdir, ignore_errors=True)
      attempt = train(method, place)
      if attempt.status != 0 or attempt.errors:
        raise RuntimeError(f"the undisturbed run of {method} failed: {attempt.errors}")
    found[method] = (place, attempt.seconds)
  return found


def campaign(folder: pathlib.Path, count: int, seed: int, first: int = 0) -> Iterator[Outcome]:
  """Yields the outcome of each of `count` faults; the fault `first` of a seed is always the same.

  Args:
    folder: for the runs; that of a fault is kept if it ends wrong.
    count: number of faults.
    seed: of the faults.
    first: number of the first.
  """
  references = _references(folder / "references")
  kinds = [kind for kind, (_, weight) in FAULTS.items() for _ in range(weight)]
  for number in range(first, first + count):
    rng = random.Random(f"{seed} {number}")
    kind, method = rng.choice(kinds), METHODS[number % len(METHODS)]
    reference, seconds = references[method]
    inside = folder / f"fault{number}"
    shutil.rmtree(inside, ignore_errors=True)
    place = Place(inside / "disk" / "run", inside / "cache", reference.programs)
    trial = _Trial(method, place, reference, rng, seconds)
    start = time.perf_counter()
    wrong = FAULTS[kind][0](trial)
    ended = wrong or trial.how()
    skipped = not trial.attempts
    what = f"{number}: {'; '.join(trial.done)} ({time.perf_counter() - start:.0f} s)"
    yield Outcome(kind, what, f"skipped: {wrong}" if skipped else ended, bool(wrong) and not skipped)
    if skipped or not wrong:
      shutil.rmtree(inside, ignore_errors=True)


def table(outcomes: list[Outcome]) -> str:
  """Returns the counts of each kind of fault, in Markdown."""
  columns = ("right", "right after a warning", "right after an error", "skipped", "wrong")
  lines = ["| fault | tried | " + " | ".join(columns) + " |", "|---|" + "---:|" * (len(columns) + 1)]
  kinds = [*dict.fromkeys(outcome.kind for outcome in outcomes)]
  for name, members in [*((kind, [o for o in outcomes if o.kind == kind]) for kind in kinds), ("all", outcomes)]:
    counts = collections.Counter("wrong" if outcome.wrong else outcome.ended.partition(":")[0] for outcome in members)
    tried = len(members) - counts["skipped"]
    lines.append(f"| {name} | {tried} | " + " | ".join(str(counts[column]) for column in columns) + " |")
  return "\n".join(lines)
