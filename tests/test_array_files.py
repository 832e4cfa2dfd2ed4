"""Array files from outside: nothing in them is run, nothing allocated that they cannot hold, and one line is said."""

import io
import itertools
import json
import os
import pathlib
import pickle
import re
import shutil
import tracemalloc
import zipfile

import numpy as np
import pytest

from dynsel_jax import cache, data, features, options
from dynsel_jax.factors import sae_file
from dynsel_jax.offline import score_file
from dynsel_jax.runs import finished
from dynsel_jax.runs.workdir import Workdir
from tests.support import ROOT, run_folders, small_runs

READERS = {
  "features.path": lambda path: features.create("file", path=path).extract(data.load("digits")),
  "features.path ": lambda path: features.create("efficientnet", path=path),
  "factors.sae": sae_file.read_sae,
  "scores.path": lambda path: score_file.read(pathlib.Path(path)),
}


def _npy(header, content=b""):
  """An `.npy` file with whatever its header claims."""
  text = header.encode() + b"\n"
  return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content


def _claiming(shape, kind="<f4", content=b"\0" * 64):
  return _npy(f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}, }}", content)


def _npz(compression=zipfile.ZIP_STORED, **members):
  stream = io.BytesIO()
  with zipfile.ZipFile(stream, "w", compression) as whole:
    for name, content in members.items():
      whole.writestr(f"{name}.npy", content)
  return stream.getvalue()


def _saved(save, *arrays, **named):
  stream = io.BytesIO()
  save(stream, *arrays, **named)
  return stream.getvalue()


def _bomb():
  """An `.npz` whose member says that it deflates to a terabyte, in its own header and in the zip's directory."""
  held = bytearray(_npz(zipfile.ZIP_DEFLATED, train=_claiming((2**38,))))
  for signature, place in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
    start = held.index(signature) + place
    held[start : start + 4] = (2**32 - 2).to_bytes(4, "little")
  return bytes(held)


def _overlapping():
  """An `.npz` with one member listed a thousand times, which are more bytes than the file has."""
  stream = io.BytesIO()
  with zipfile.ZipFile(stream, "w") as whole:
    whole.writestr("a.npy", _saved(np.save, np.zeros(1000)))
    (member,) = whole.infolist()
    whole.filelist.extend([member] * 1000)
  return stream.getvalue()


def _compressed_otherwise():
  return _npz(zipfile.ZIP_BZIP2, train=_saved(np.save, np.zeros(10**6)))


class _Executed:
  """Makes a file when it is unpickled."""

  def __init__(self, mark):
    self.mark = str(mark)

  def __reduce__(self):
    return os.mkdir, (self.mark,)


REFUSED = {
  "a terabyte": _claiming((2**38,)),
  "a terabyte in a member": _npz(train=_claiming((2**38, 1))),
  "a terabyte, deflated": _bomb(),
  "more than 64 bits": _claiming((2**40, 2**40)),
  "a negative side": _claiming((-1, 16)),
  "no bytes of many": _claiming((0, 2**62, 2**62)),
  "more dimensions than NumPy has": _claiming((1,) * 80),
  "a type of a terabyte": _claiming((1,), "|V1099511627776"),
  "a type that is an array": _npy("{'descr': ('<f4', (1099511627776,)), 'fortran_order': False, 'shape': (1,), }"),
  "records": _saved(np.save, np.zeros(4, [("a", "f4"), ("b", "i4")])),
  "complex numbers": _saved(np.save, np.zeros((4, 4), np.complex64)),
  "text": _saved(np.save, np.array(["1.5", "2"])),
  "bytes": _saved(np.save, np.array([b"1.5", b"2"])),
  "times": _saved(np.save, np.zeros(4, "datetime64[s]")),
  "too few bytes": _saved(np.save, np.zeros(400))[:-4],
  "too many bytes": _saved(np.save, np.zeros(400)) + b"\0",
  "another version": b"\x93NUMPY\x03\x00" + _saved(np.save, np.zeros(4))[8:],
  "a header of many parentheses": _npy("(" * 9000),
  "a header that is no dict": _npy("[1, 2]"),
  "an empty file": b"",
  "two bytes": b"PK",
  "no array file": b"a,b\n1,2\n",
  "a zip of something else": _saved(lambda stream: zipfile.ZipFile(stream, "w").writestr("a.txt", "x")),
  "a member twice": _overlapping(),
  "bzip2": _compressed_otherwise(),
}


@pytest.mark.parametrize("content", REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("reader", READERS)
def test_a_hostile_file_costs_one_line_that_names_it_and_no_memory(reader, content, tmp_path):
  path = tmp_path / "given.npz"
  path.write_bytes(content)
  tracemalloc.start()
  try:
    with pytest.raises(options.UserError) as refused:
      READERS[reader](str(path))
    assert tracemalloc.get_traced_memory()[1] < 30e6
  finally:
    tracemalloc.stop()
  assert str(refused.value).startswith(f"{reader.strip()}={path}")
  assert "\n" not in str(refused.value) and len(str(refused.value)) < 600


@pytest.mark.parametrize("content", REFUSED.values(), ids=REFUSED)
def test_such_a_file_in_the_cache_or_in_a_runs_folder_counts_as_damaged(content, tmp_path):
  built = cache.cached("kind", {}, lambda: {"a": np.arange(3)}, str(tmp_path))
  (path,) = tmp_path.iterdir()
  path.write_bytes(content)
  again = cache.cached("kind", {}, lambda: {"a": np.arange(3)}, str(tmp_path))
  np.testing.assert_array_equal(again["a"], built["a"])
  run_folders.write(tmp_path / "run")
  for name in ("usage", "columns", "firings"):
    (tmp_path / "run" / f"{name}.npz").write_bytes(content)
  held = json.loads((tmp_path / "run" / "config.json").read_text())
  (tmp_path / "run" / "config.json").write_text(json.dumps(held | {"arrays": ["columns", "firings"]}))
  run = finished.read(tmp_path / "run")
  assert run.visits is None and "usage.npz" in run.missing
  assert Workdir(str(tmp_path / "run")).read_columns() is None
  assert Workdir(str(tmp_path / "run")).read_firings() is None


def _pickles(mark):
  """Files that make the folder `mark` if anything in them is unpickled."""
  payload = pickle.dumps(_Executed(mark))
  objects = np.empty(2, object)
  objects[:] = [_Executed(mark)] * 2
  array = _saved(np.save, objects)
  every = ("train", "checksum", "visits", "W_enc", "topk", "a", "latents", "el2n")
  yield payload
  yield array
  yield _npz(**dict.fromkeys(every, array))
  yield _npz(**dict.fromkeys(every, payload))
  yield _npy("{'descr': '|O', 'fortran_order': False, 'shape': (), }", payload)
  yield _npy(f"__import__('os').mkdir({str(mark)!r})")
  yield _npy(f"{{'descr': __import__('os').mkdir({str(mark)!r}), 'fortran_order': False, 'shape': (1,)}}")


def test_nothing_in_an_array_file_is_ever_run(tmp_path):
  mark, path, run = tmp_path / "executed", tmp_path / "given.npz", tmp_path / "run"
  with pytest.raises(FileExistsError):  # the payload works where it is unpickled
    mark.mkdir()
    pickle.loads(pickle.dumps(_Executed(mark)))
  mark.rmdir()
  made = small_runs.config("infobatch", epochs=1)
  small_runs.train(made, run)
  for content in _pickles(mark):
    path.write_bytes(content)
    for read in READERS.values():
      with pytest.raises(options.UserError):
        read(str(path))
    with pytest.raises(options.UserError):
      features.create("clip", path=str(path))
    folder = tmp_path / "cache"
    shutil.rmtree(folder, ignore_errors=True)
    cache.cached("kind", {}, lambda: {"a": np.arange(3)}, str(folder))
    next(folder.iterdir()).write_bytes(content)
    cache.cached("kind", {}, lambda: {"a": np.arange(3)}, str(folder))
    for name in ("columns", "firings", "usage", "noise"):
      (run / f"{name}.npz").write_bytes(content)
    finished.read(run)
    small_runs.train(made, run)
    assert not mark.exists()


def test_no_other_code_reads_array_files_or_unpickles():
  rest = re.compile(r"np\.load\(|np\.fromfile|memmap|pickle\.load|joblib|allow_pickle=True|torch\.load")
  for folder in ("dynsel_jax", "experiments", "configs"):
    for path in (ROOT / folder).rglob("*.py"):
      assert not rest.search(path.read_text()), path


def test_whatever_is_cut_off_or_altered_is_refused_or_read_as_it_was(tmp_path):
  array, path = np.arange(60, dtype=np.float32).reshape(6, 10), tmp_path / "given.npz"
  refused = 0
  for save in (np.save, np.savez, np.savez_compressed):
    content = _saved(save, array)
    cut = (content[:length] for length in range(0, len(content), 3))
    altered = (content[:i] + bytes([content[i] ^ 4]) + content[i + 1 :] for i in range(0, len(content), 2))
    for damaged in itertools.chain(cut, altered):
      path.write_bytes(damaged)
      try:
        (found,) = cache.read_arrays("field", path).values()
      except options.UserError as error:
        assert str(error).startswith(f"field={path}") and "\n" not in str(error)
        refused += 1
        continue
      # An `.npy` file has no checksum: a flipped number is another number, or the same bits of another type.
      assert save is np.save or np.array_equal(found, array)
      assert found.nbytes == array.nbytes
  assert refused > 500


def test_numbers_come_in_the_machines_order_and_every_layout(tmp_path):
  array = np.arange(12).reshape(3, 4)
  kinds = ("<f4", ">f4", "<f8", ">i8", "u1", "<f2", "?")
  for kind, order in itertools.product(kinds, "CF"):
    np.save(tmp_path / "a.npy", np.asarray(array, kind, order=order))
    found = cache.read_arrays("field", tmp_path / "a.npy")[""]
    assert found.dtype.isnative and found.dtype == np.dtype(kind).newbyteorder("=")
    np.testing.assert_array_equal(found, array.astype(kind))
  np.savez(tmp_path / "b.npz", empty=np.zeros((0, 3)), scalar=np.float32(2), word=np.array("absolute"))
  found = cache.read_arrays("field", tmp_path / "b.npz", texts=("word",))
  assert (found["empty"].shape, found["scalar"].shape, str(found["word"])) == ((0, 3), (), "absolute")


@pytest.mark.parametrize(
  "arrays",
  [
    {"train": np.zeros((1442, 4)), "scale": np.zeros(3)},
    {"train": np.zeros((1442, 0))},
    {"train": np.zeros(1442)},
    {"train": np.zeros((0, 4))},
    {"train": np.zeros((1442, 2, 2)), "scale": np.zeros(2)},
  ],
)
def test_features_of_a_wrong_shape_are_named_in_one_line(arrays, tmp_path):
  np.savez(tmp_path / "features.npz", **arrays)
  with pytest.raises(options.UserError, match="features.path=.*features.npz.* shape "):
    READERS["features.path"](str(tmp_path / "features.npz"))


@pytest.mark.parametrize(
  "change",
  [
    {"k": np.float32(2)},
    {"k": np.array([2])},
    {"k": np.int32(10**9)},
    {"topk": np.array(["absolute"])},
    {"W_enc": np.zeros((0, 3)), "b_enc": np.zeros(0)},
    {"mean": np.zeros((3, 1))},
    {"scale": np.zeros(1)},
  ],
)
def test_an_autoencoder_of_wrong_parts_is_named_in_one_line(change, tmp_path):
  path = tmp_path / "sae.npz"
  parts = {"W_enc": np.zeros((4, 3)), "b_enc": np.zeros(4), "b_dec": np.zeros(3), "mean": np.zeros(3)}
  parts |= {"scale": np.float32(1), "k": np.int32(2), "topk": np.array("absolute")}
  np.savez(path, **parts)
  assert sae_file.read_sae(str(path)).k == 2
  np.savez(path, **{**parts, **change})
  with pytest.raises(options.UserError, match=f"factors.sae={path} "):
    sae_file.read_sae(str(path))
