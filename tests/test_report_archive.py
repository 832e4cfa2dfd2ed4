"""Archives of run folders: packed with the same bytes each time, reported like the folder, refused when unsafe."""

import io
import os
import pathlib
import subprocess
import sys
import tarfile

import pytest

from dynsel_jax import options
from dynsel_jax.report import page
from dynsel_jax.runs import archive, finished
from tests.support import ROOT, run_folders

pytest.importorskip("jinja2", reason="the extra `report` is not installed")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
  """A sweep's folder with two runs, all that a run may leave in its folder, and a cell that failed."""
  root = tmp_path_factory.mktemp("sweep") / "digits"
  for seed in (0, 1):
    run_folders.write(root / f"random-seed{seed}", "random", seed)
  (root / "random-seed0" / "checkpoints" / "4").mkdir(parents=True)
  (root / "random-seed0" / "checkpoints" / "4" / "config.json").write_text("{}")
  for name in (".lock", "events.out.tfevents.1.host", "summary.json.partial", "noise.npz"):
    (root / "random-seed0" / name).write_text("x")
  (root / "broken-seed0").mkdir()
  (root / "broken-seed0" / "error.txt").write_text("UserError: keep_fraction=2\n")
  (root / "sweep.txt").write_text("a table")
  return root


def _members(path):
  with tarfile.open(path) as tar:
    return {member.name: tar.extractfile(member).read() for member in tar}


def _archive(path, **contents):
  """Writes an archive with any members, by their names; a dict gives fields of the member instead of its content."""
  with tarfile.open(path, "w:xz") as tar:
    for name, content in contents.items():
      member = tarfile.TarInfo(name)
      if isinstance(content, dict):
        for field, value in content.items():
          setattr(member, field, value)
        tar.addfile(member)
      else:
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
  return str(path)


def _unpack(path):
  with archive.unpacked([path]) as (folder,):
    return sorted(p.relative_to(folder).as_posix() for p in pathlib.Path(folder).rglob("*") if p.is_file())


def test_an_archive_holds_what_a_run_left_without_what_only_the_run_needs(sweep, tmp_path):
  count = archive.pack(str(sweep), str(tmp_path / "a.tar.xz"))
  members = _members(tmp_path / "a.tar.xz")
  of_run = ("config.json", "metrics.jsonl", "summary.json", "usage.npz")
  expected = {f"random-seed{seed}/{name}" for seed in (0, 1) for name in of_run}
  assert set(members) == expected | {"broken-seed0/error.txt", "random-seed0/noise.npz"} and count == len(members)
  assert list(members) == sorted(members)
  for name, content in members.items():
    assert content == (sweep / name).read_bytes()


def test_an_archive_has_the_same_bytes_whatever_the_times_and_modes(sweep, tmp_path):
  archive.pack(str(sweep), str(tmp_path / "a.tar.xz"))
  changed = sweep / "random-seed0" / "summary.json"
  os.utime(changed, (1, 1))
  changed.chmod(0o600)
  archive.pack(str(sweep), str(tmp_path / "b.tar.xz"))
  assert (tmp_path / "a.tar.xz").read_bytes() == (tmp_path / "b.tar.xz").read_bytes()


def test_an_archive_of_one_run_does_not_hold_itself(sweep, tmp_path):
  run = tmp_path / "random-seed1"
  run_folders.write(run, "random", 1)
  out = run / "a.tar.xz"
  archive.pack(str(run), str(out))
  first = out.read_bytes()
  archive.pack(str(run), str(out))
  assert out.read_bytes() == first and "config.json" in _members(out)
  with archive.unpacked([str(out)]) as folders:
    assert [found.path.name for found in finished.find(folders)] == ["a"]


def test_a_report_on_an_archive_is_that_on_its_folder(sweep, tmp_path):
  packed = tmp_path / "digits.tar.xz"
  archive.pack(str(sweep), str(packed))
  page.write(finished.find([str(sweep)]), str(tmp_path / "one"), lost=finished.lost([str(sweep)]))
  with archive.unpacked([str(packed)]) as folders:
    page.write(finished.find(folders), str(tmp_path / "other"), lost=finished.lost(folders))
  assert not pathlib.Path(folders[0]).exists()
  one, other = (sorted(p for p in (tmp_path / name).rglob("*") if p.is_file()) for name in ("one", "other"))
  assert len(one) > 10 and [p.name for p in one] == [p.name for p in other]
  for ours, theirs in zip(one, other, strict=True):
    assert ours.read_bytes() == theirs.read_bytes()


def test_the_commands_pack_and_report(sweep, tmp_path):
  def call(module, *arguments):
    command = [sys.executable, "-m", f"experiments.{module}", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

  packed = tmp_path / "digits.tar.xz"
  ended = call("pack_runs", f"--workdir={sweep}", f"--out={packed}")
  assert (ended.returncode, ended.stderr) == (0, "") and ended.stdout.startswith("10 files, ")
  extra = tmp_path / "extra"
  run_folders.write(extra / "full-seed0", "full", 0)
  ended = call("report", f"--workdir={packed}", str(extra), f"--out={tmp_path / 'out'}")
  assert ended.returncode == 0 and ended.stdout.splitlines()[-1].startswith("3 runs: ")
  assert "broken-seed0: failed (UserError: keep_fraction=2)" in ended.stderr
  ended = call("report", f"--workdir={packed}")
  assert ended.returncode == 2 and "is an archive; name a folder for the report: --out=FOLDER" in ended.stderr


@pytest.mark.parametrize(
  ("name", "content", "line"),
  [
    ("/etc/x", b"x", "leads out of the archive"),
    ("../x", b"x", "leads out of the archive"),
    ("run/../../x", b"x", "leads out of the archive"),
    ("..\\x", b"x", "leads out of the archive"),
    ("C:x", b"x", "leads out of the archive"),
    ("run/x", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, "is not a plain file"),
    ("run/x", {"type": tarfile.LNKTYPE, "linkname": "run/config.json"}, "is not a plain file"),
    ("run/x", {"type": tarfile.FIFOTYPE}, "is not a plain file"),
  ],
)
def test_members_that_are_unsafe_are_refused(name, content, line, tmp_path):
  path = _archive(tmp_path / "a.tar.xz", **{"run/config.json": b"{}", name: content})
  with pytest.raises(options.UserError) as refused:
    _unpack(path)
  text = str(refused.value)
  assert text.startswith(f"workdir={path} is refused: ") and line in text and repr(name) in text and "\n" not in text
  assert [p.name for p in tmp_path.rglob("*")] == ["a.tar.xz"]


def test_damaged_archives_are_named_in_one_line(sweep, tmp_path):
  whole = tmp_path / "whole.tar.xz"
  archive.pack(str(sweep), str(whole))
  content = whole.read_bytes()
  assert len(_unpack(str(whole))) == 10
  damaged = {f"cut{at}": content[:at] for at in (0, 10, len(content) // 2, len(content) - 20)}
  for at in range(30, len(content) - 30, len(content) // 8):
    damaged[f"altered{at}"] = content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :]
  damaged["text"] = b"not an archive"
  for name, broken in damaged.items():
    path = tmp_path / f"{name}.tar.xz"
    path.write_bytes(broken)
    with pytest.raises(options.UserError) as refused:
      _unpack(str(path))
    assert str(refused.value).startswith(f"workdir={path} is damaged: ") and "\n" not in str(refused.value)


def test_an_archive_with_a_name_twice_or_without_a_run_is_refused_by_its_own_name(tmp_path):
  empty = _archive(tmp_path / "empty.tar.xz", **{"notes.txt": b"x"})
  alien = _archive(tmp_path / "alien.tar.xz", **{"run/config.json": b"{}"})
  for path, line in ((empty, "contains no run"), (alien, "dynsel_jax wrote none of the config.json files")):
    with pytest.raises(options.UserError) as refused, archive.unpacked([path]) as folders:
      finished.find(folders)
    assert f"workdir={path}" in str(refused.value) and line in str(refused.value)
  below = _archive(tmp_path / "below.tar.xz", **{"run": b"x", "run/config.json": b"{}"})
  with pytest.raises(options.UserError, match="below.tar.xz cannot be unpacked"):
    _unpack(below)


def test_folders_without_a_run_and_files_that_are_not_archives_are_refused(sweep, tmp_path):
  (tmp_path / "nothing").mkdir()
  (tmp_path / "file").write_text("x")
  for workdir, out, line in (
    (sweep, "a.zip", "out=.*a.zip must end with .tar.xz"),
    (tmp_path / "nowhere", "a.tar.xz", "nowhere is not a folder"),
    (tmp_path / "nothing", "a.tar.xz", "nothing contains no run"),
    (sweep, "file/a.tar.xz", "out=.*a.tar.xz cannot be written"),
  ):
    with pytest.raises(options.UserError, match=line):
      archive.pack(str(workdir), str(tmp_path / out))
  for workdir, line in (("file", "file is neither a folder nor an archive"), ("a.tar.xz", "a.tar.xz does not exist")):
    with pytest.raises(options.UserError, match=line):
      _unpack(str(tmp_path / workdir))
  assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "nothing"]
