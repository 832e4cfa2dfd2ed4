"""Archives of run folders: many runs as one file, read wherever a folder of runs is. Host-side.

An archive is a tar file compressed with xz, which stores only once what the runs have in common: 268 runs of
`experiments/results` took 2.3 MB, compared to 3.3 MB as zip files and 7.3 MB as loose files. The same files always give
the same bytes, since members are sorted and have neither owner nor time; only another version of liblzma may compress
them differently.
"""

import contextlib
import io
import lzma
import pathlib
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Iterator

from dynsel_jax import options

__all__ = ["SUFFIX", "is_archive", "pack", "unpacked"]

SUFFIX = ".tar.xz"
_RUN_FILES = ("config.json", "error.txt")  # a folder with one of these is a run's, or that of a failed cell of a sweep
_LEFT_OUT = ("*.partial", ".lock", "events.out.tfevents.*")
_CHUNK = 1 << 20


def is_archive(path: str | pathlib.Path) -> bool:
  """Whether `path` names an archive, going by its suffix; it need not exist."""
  return str(path).endswith(SUFFIX)


def pack(workdir: str, out: str) -> int:
  """Writes the archive `out` of the run folders in `workdir`, searched at any depth; returns the number of files.

  All files of a run's folder are packed except TensorBoard events, locks and partial files; its subfolders, such as
  `checkpoints`, are not.

  Raises:
    UserError: `workdir` is not a folder or contains no run; or `out` has another suffix or cannot be written.
  """
  root, target = pathlib.Path(workdir), pathlib.Path(out)
  if not is_archive(out):
    raise options.UserError(f"out={out} must end with {SUFFIX}")
  if not root.is_dir():
    raise options.UserError(f"workdir={workdir} is not a folder")
  files = [path for path in _packable(root) if path.resolve() != target.resolve()]
  if not files:
    raise options.UserError(f"workdir={workdir} contains no run: there is no config.json at any depth")
  partial = target.with_name(f"{target.name}.partial")
  try:
    target.parent.mkdir(parents=True, exist_ok=True)
    with lzma.open(partial, "wb", preset=9 | lzma.PRESET_EXTREME) as raw, tarfile.open(fileobj=raw, mode="w") as tar:
      for path in files:
        content = path.read_bytes()
        member = tarfile.TarInfo(path.relative_to(root).as_posix())  # mode 0644, time 0, owner 0
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    partial.replace(target)
  except OSError as error:
    with contextlib.suppress(OSError):
      partial.unlink()
    raise options.UserError(f"out={out} cannot be written: {error}") from None
  return len(files)


def _packable(root: pathlib.Path) -> list[pathlib.Path]:
  """Returns the files of the run folders in `root` that an archive holds, sorted by their names in it."""
  found = {path.parent for name in _RUN_FILES for path in root.rglob(name)}
  found = {path for path in found if "checkpoints" not in path.relative_to(root).parts}
  files = {file for path in found for file in path.iterdir() if file.is_file()}
  kept = [file for file in files if not any(file.match(pattern) for pattern in _LEFT_OUT)]
  return sorted(kept, key=lambda file: file.relative_to(root).as_posix())


@contextlib.contextmanager
def unpacked(workdirs: Iterable[str]) -> Iterator[list[str]]:
  """Yields `workdirs` with a temporary folder in place of each archive; the folders are removed at the end.

  A folder has the archive's name without its suffix. A `UserError` that is raised while they exist names the archive
  and not its folder.

  Raises:
    UserError: an archive does not exist, is damaged, or has a member that is a link or would be written elsewhere.
  """
  with tempfile.TemporaryDirectory(prefix="dynsel_jax-") as temporary:
    archives: dict[str, str] = {}  # by the folder that stands in for them
    folders = []
    for place, workdir in enumerate(workdirs):
      if not is_archive(workdir) or pathlib.Path(workdir).is_dir():
        if pathlib.Path(workdir).is_file():
          raise options.UserError(f"workdir={workdir} is neither a folder nor an archive with the suffix {SUFFIX}")
        folders.append(workdir)
        continue
      # Resolved, as `runs.find` resolves paths: on some systems the temporary folder is a link.
      parent = pathlib.Path(temporary).resolve() / str(place)
      folder = parent / pathlib.Path(workdir).name.removesuffix(SUFFIX)
      _unpack(workdir, folder)
      archives[str(folder)] = workdir
      folders.append(str(folder))
    try:
      yield folders
    except options.UserError as error:
      text = str(error)
      for made, workdir in archives.items():
        text = text.replace(options.printable(made), options.printable(workdir))
      raise options.UserError(text) from None


def _unpack(workdir: str, folder: pathlib.Path) -> None:
  """Writes the files of the archive `workdir` into `folder`, which is made.

  Raises:
    UserError: see `unpacked`.
  """
  if not pathlib.Path(workdir).is_file():
    raise options.UserError(f"workdir={workdir} does not exist")
  folder.mkdir(parents=True)
  try:
    with lzma.open(workdir) as raw:
      with tarfile.open(fileobj=raw, mode="r|") as tar:
        for member in tar:
          _unpack_member(tar, member, folder)
      while raw.read(_CHUNK):  # up to the checksum at the end: tarfile takes a damaged header for the end
        pass
  except _UnsafeMember as error:
    raise options.UserError(f"workdir={workdir} is refused: {error}") from None
  except (lzma.LZMAError, tarfile.TarError, EOFError, ValueError) as error:
    raise options.UserError(f"workdir={workdir} is damaged: {error}") from None
  except OSError as error:
    raise options.UserError(f"workdir={workdir} cannot be unpacked: {error.strerror or error}") from None


class _UnsafeMember(Exception):
  """A member of an archive is not a plain file inside the folder that it is unpacked to."""


def _unpack_member(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: pathlib.Path) -> None:
  """Writes one member of an archive; a folder is made when a file in it is written.

  Raises:
    _UnsafeMember: it is a link or a device, or its name leads out of `folder`.
  """
  # The rules of Windows cover those of POSIX: drives, both kinds of slash.
  name = pathlib.PureWindowsPath(member.name)
  if name.anchor or ".." in name.parts:
    raise _UnsafeMember(f"the name of member {member.name!r} leads out of the archive")
  if member.isdir():
    return
  if not member.isreg():
    raise _UnsafeMember(f"member {member.name!r} is not a plain file")
  path = folder / member.name
  path.parent.mkdir(parents=True, exist_ok=True)
  content = tar.extractfile(member)
  assert content is not None  # it is a plain file
  with content, path.open("xb") as file:
    shutil.copyfileobj(content, file)
