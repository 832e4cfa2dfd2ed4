"""Which files of a folder are images: whatever else lies there is passed over, counted and said in one line."""

import json
import logging
import os
import shutil
import socket

import jax
import numpy as np
import PIL.Image
import pytest

from dynsel_jax import data
from dynsel_jax.data import folders, image_decoding, image_files, stream_sets, summary
from dynsel_jax.options import UserError
from tests.support import image_sets


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
  monkeypatch.setenv("DYNSEL_CACHE", str(tmp_path / "cache"))


def _save(path, value=0, kind=None, **settings):
  os.makedirs(os.path.dirname(path), exist_ok=True)
  PIL.Image.new("RGB", (3, 3), (value, 0, 0)).save(path, kind, **settings)


@pytest.fixture
def root(tmp_path):
  """Two classes, two training images and one test image each, of one colour each."""
  for split, count in (("train", 2), ("test", 1)):
    for label, name in enumerate(("cat", "dog")):
      for position in range(count):
        _save(tmp_path / "pets" / split / name / f"{position}.png", 100 * label + position)
  return tmp_path / "pets"


def _reds(root, label=0, **settings):
  """The red values of the training images of a class, and of the same read as a stream."""
  source = data.load("folder", data_dir=str(root), **settings)
  reds = source.train["inputs"][source.train["labels"] == label][:, 0, 0, 0].tolist()
  streamed = stream_sets.load("folder", data_dir=str(root), image_size=0, resize=0)
  np.testing.assert_array_equal(streamed.train["labels"], source.train["labels"])
  np.testing.assert_array_equal(streamed.train["inputs"][:], source.train["inputs"])
  return reds


def _said(capsys, caplog):
  """The lines that were said since the last call, and which of them were warnings."""
  warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
  caplog.clear()
  return [*warnings, *capsys.readouterr().err.splitlines()], warnings


def test_one_line_says_what_was_read(root, capsys, caplog):
  data.load("folder", data_dir=str(root))
  said, warnings = _said(capsys, caplog)
  line = "pets: train: 4 images of 2 classes (cat 2, dog 2); test: 2 images of 2 classes (cat 1, dog 1)"
  assert said == [line] and not warnings
  data.load("folder", data_dir=str(root))  # from the cache
  assert _said(capsys, caplog)[0] == [line]
  stream_sets.load("folder", data_dir=str(root))
  assert _said(capsys, caplog)[0] == [line]


def test_many_classes_and_reasons_are_abbreviated(tmp_path, capsys, caplog):
  for split in ("train", "test"):
    for label in range(12):
      _save(tmp_path / split / f"c{label:02}" / "0.png")
  _save(tmp_path / "train" / "c00" / "1.png")
  for number in range(12):
    (tmp_path / "train" / "c00" / f"x.{number:02}").write_text("")
  (tmp_path / "train" / "c00" / "y.11").write_text("")
  data.load("folder", data_dir=str(tmp_path))
  (line,), warnings = _said(capsys, caplog)
  names = ", ".join(f"c{label:02}" for label in range(10))
  assert f"train: 13 images of 12 classes ({names}, ...; 1 to 2 of each)" in line
  assert f"test: 12 images of 12 classes ({names}, ...; 1 of each)" in line
  reasons = ", ".join(f".{number:02} 1" for number in range(9))
  assert line.endswith(f"passed over: .11 2, {reasons}, others 2") and warnings


def test_what_lies_in_peoples_folders_is_passed_over_and_counted(root, capsys, caplog, monkeypatch):
  cat = root / "train" / "cat"
  for name in ("Thumbs.db", ".DS_Store", "desktop.ini", "._0.png", "Icon\r"):
    (cat / name).write_text("x")
  for name in ("__MACOSX", ".ipynb_checkpoints", "@eaDir"):
    _save(cat / name / "5.png")
    _save(root / "train" / name / "5.png")
  _save(root / "train" / "9.png")
  _reds(root)
  said, warnings = _said(capsys, caplog)
  assert said[0].endswith("passed over: of the system 7, hidden 4, outside the class folders 1") and warnings
  os.remove(root / "train" / "9.png")
  _reds(root)
  assert not _said(capsys, caplog)[1]  # nobody meant one of these as an image
  for name in ("notes.TXT", "labels.csv", "raw.HEIC", "README"):
    (cat / name).write_text("x")
  os.mkfifo(cat / "a.png")
  with socket.socket(socket.AF_UNIX) as one:
    monkeypatch.chdir(cat)  # a socket's path may have 107 bytes
    one.bind("b.png")
  (cat / "c.png").symlink_to("nowhere.png")
  (cat / "d.png").symlink_to("d.png")
  (root / "train" / "lion").symlink_to("nowhere")
  assert _reds(root) == [0, 1]
  said, warnings = _said(capsys, caplog)
  assert "broken links 3, " in said[0] and "special files 2, " in said[0] and warnings
  assert all(f"{suffix} 1" in said[0] for suffix in (".txt", ".csv", ".heic", "without a suffix"))


def test_links_are_followed_and_circles_are_not(root, tmp_path, capsys, caplog):
  cat = root / "train" / "cat"
  for number in range(3):
    _save(tmp_path / "elsewhere" / "deep" / f"{number}.png", 50 + number)
  (cat / "shard").symlink_to(tmp_path / "elsewhere")
  (cat / "again").symlink_to(tmp_path / "elsewhere" / "deep")
  (cat / "x.png").symlink_to(tmp_path / "elsewhere" / "deep" / "0.png")
  (cat / "loop").symlink_to(cat)
  (cat / "up").symlink_to(root / "train")
  (cat / "top").symlink_to("/")
  (cat / "other").symlink_to(root / "train" / "dog")
  (tmp_path / "elsewhere" / "deep" / "loop").symlink_to(tmp_path / "elsewhere")
  assert _reds(root) == [0, 1, 50, 51, 52, 50]
  assert "passed over: links to folders read already 6" in _said(capsys, caplog)[0][0]
  (root / "train" / "lion").symlink_to(tmp_path / "elsewhere" / "deep")
  assert _reds(root, label=2) == [50, 51, 52]
  assert "no test images of: lion" in _said(capsys, caplog)[0][0]


def test_suffixes_in_any_case_wrong_suffixes_and_folders_with_one(root):
  cat = root / "train" / "cat"
  for number, (name, kind) in enumerate({"a.PNG": "PNG", "b.jpg": "PNG", "c.Gif": "BMP", "d.TIFF": "WEBP"}.items()):
    _save(cat / name, 10 + number, kind, **({"lossless": True} if kind == "WEBP" else {}))
  _save(cat / "e.png" / "f.BMP", 20)
  assert _reds(root) == [0, 1, 10, 11, 12, 13, 20]


def test_names_of_any_bytes_are_read_and_shown_in_one_line(root, capsys, caplog):
  odd = os.fsencode(root / "train") + b"/caf\xe9\n"
  _save(os.fsdecode(odd + b"/new\nline \xff.png"), 7)
  (root / "train" / "cat" / "a.x\ny").write_text("")
  source = data.load("folder", data_dir=str(root))
  assert source.class_names == ("caf\\xe9\n", "cat", "dog")
  json.dumps(source.class_names).encode()
  (line,), _ = _said(capsys, caplog)
  assert "(caf\\xe9\\n 1, cat 2, dog 2)" in line and "passed over: .x\\ny 1" in line
  with open(odd + b"/new\nline \xff.png", "wb") as file:
    file.write(b"\x89PNG")
  with pytest.raises(UserError, match=r"/caf\\xe9\\n/new\\nline \\xff.png cannot be read as an image") as caught:
    data.load("folder", data_dir=str(root))
  assert "\n" not in str(caught.value)
  _save(root / "train" / "caf\\xe9\n" / "0.png")
  with pytest.raises(UserError, match=r"train holds folders of one name: caf\\xe9\\n, caf\\xe9\\n$"):
    data.load("folder", data_dir=str(root))


def test_classes_that_look_alike_are_said(root, capsys, caplog):
  for name in ("Cat", "cafe\u0301", "caf\u00e9"):
    _save(root / "train" / name / "0.png")
  assert data.load("folder", data_dir=str(root)).num_classes == 5
  (line,), warnings = _said(capsys, caplog)
  assert "classes that look alike: Cat, cafe\u0301, caf\u00e9, cat" in line and warnings


def test_testing_on_the_training_images_is_said(root, capsys, caplog):
  shutil.rmtree(root / "test" / "cat")
  (root / "test" / "cat").symlink_to(root / "train" / "cat")
  data.load("folder", data_dir=str(root))
  (line,), warnings = _said(capsys, caplog)
  assert line.endswith("; also for training: the images of test/cat") and warnings


def test_changes_to_images_are_counted_also_from_the_cache(root, capsys, caplog):
  exif = PIL.Image.Exif()
  exif[0x0112] = 3
  _save(root / "train" / "cat" / "0.png", exif=exif)
  PIL.Image.new("RGB", (3, 3)).save(
    root / "train" / "cat" / "1.gif", save_all=True, append_images=[PIL.Image.new("RGB", (3, 3), "red")]
  )
  PIL.Image.new("RGBA", (3, 3)).save(root / "test" / "cat" / "0.png")
  for _ in range(2):
    data.load("folder", data_dir=str(root), image_mode="RGB")
    (line,), warnings = _said(capsys, caplog)
    assert "; 1 turned upright by their EXIF orientation; 1 with several frames, of which the first is taken; 1" in line
    assert line.endswith("1 with transparency, laid on white") and warnings
  images = stream_sets.load("folder", data_dir=str(root), image_size=0, resize=0).train["inputs"]
  images[:]
  images[:]
  said, _ = _said(capsys, caplog)
  for path, what in (("0.png", "turned upright"), ("1.gif", "with several frames")):
    (one,) = [line for line in said if what in line]
    assert f"train/cat/{path} is the first of the images {what}" in one


def test_an_image_of_the_same_size_and_time_is_read_anew(root):
  path = root / "train" / "cat" / "0.png"
  sources = []
  for value in (10, 200):
    _save(path, value, compress_level=0)
    for file in root.rglob("*.png"):
      os.utime(file, (0, 0))
    whole, streamed = data.load("folder", data_dir=str(root)), stream_sets.load("folder", data_dir=str(root))
    assert whole.train["inputs"][0, 0, 0, 0] == value
    sources.append((path.stat().st_size, whole, streamed))
  (size, *before), (same_size, *after) = sources
  assert size == same_size
  for one, other in zip(before, after, strict=True):
    assert one.fingerprint != other.fingerprint and one.inputs_fingerprint != other.inputs_fingerprint
    assert one.mean != other.mean


def test_a_copy_of_a_folder_is_the_same_data(root, tmp_path):
  sources = [stream_sets.load("folder", data_dir=str(root))]
  for file in root.rglob("*.png"):
    os.utime(file, (0, 0))
  root.rename(tmp_path / "copy")
  sources.append(stream_sets.load("folder", data_dir=str(tmp_path / "copy")))
  assert sources[0].fingerprint == sources[1].fingerprint


def test_a_home_folder_is_found(root, monkeypatch):
  monkeypatch.setenv("HOME", str(root.parent))
  assert data.load("folder", data_dir="~/pets").name == "pets"
  assert stream_sets.load("folder", data_dir="~/pets").name == "pets"
  assert data.load("folder", data_dir=root).name == "pets"  # a path object
  with pytest.raises(UserError, match="there is no home folder of ~nobody-of-this-name"):
    data.load("folder", data_dir="~nobody-of-this-name/pets")
  monkeypatch.chdir(root / "train")
  assert data.load("folder", data_dir="..").name == "pets"


def test_a_folder_that_cannot_be_listed_and_a_file_that_cannot_be_read_are_named(root, monkeypatch):
  def refusing(original):  # since the superuser is refused nothing
    def refused(path, *rest):
      if os.fspath(path).endswith(("dog", "1.png")):
        raise PermissionError(13, "Permission denied", path)
      return original(path, *rest)

    return refused

  with monkeypatch.context() as patch:
    patch.setattr(os, "scandir", refusing(os.scandir))
    with pytest.raises(UserError, match="dog cannot be listed: Permission denied"):
      data.load("folder", data_dir=str(root))
  monkeypatch.setattr(image_files, "open", refusing(open), raising=False)
  with pytest.raises(UserError, match="1.png cannot be read as an image: Permission denied$"):
    data.load("folder", data_dir=str(root))
  images = stream_sets.load("folder", data_dir=str(root)).train["inputs"]
  images[:]
  assert images.corrupt.tolist() == [False, True] * 2


def test_a_file_too_large_for_an_image_is_not_read(root, monkeypatch):
  path = root / "train" / "cat" / "0.png"
  os.truncate(path, image_decoding.MOST_BYTES + 1)  # a file with a hole, which takes no space
  with pytest.raises(UserError, match="0.png cannot be read as an image: it has 2,147,483,649 bytes, more than"):
    data.load("folder", data_dir=str(root))
  assert stream_sets.load("folder", data_dir=str(root)).train["inputs"].corrupt[0]


def test_too_many_pixels_are_one_line_for_every_reader(root, tmp_path, monkeypatch):
  monkeypatch.setattr(image_decoding, "MOST_PIXELS", 9)
  larger = root / "train" / "cat" / "0.png"
  PIL.Image.new("RGB", (5, 5)).save(larger)
  with pytest.raises(UserError, match="cat/0.png cannot be read as an image: it has 5x5 pixels, more than 9"):
    data.load("folder", data_dir=str(root))
  with pytest.raises(UserError, match=r"cat/0.png cannot be decoded \(it has 5x5 pixels, more than 9\); it is damaged"):
    stream_sets.load("folder", data_dir=str(root), corrupt_limit=0)
  small, large = np.zeros((2, 3, 3, 3), np.uint8), np.zeros((2, 5, 5, 3), np.uint8)
  image_sets.prepare(tmp_path, "tiny_bomb", {"train": (large, [0, 1]), "test": (small, [0, 1])})
  with pytest.raises(UserError, match=r"sample 0 of its split 'train' cannot be decoded \(it has 5x5 pixels") as caught:
    data.load("tiny_bomb", data_dir=str(tmp_path))
  assert "\n" not in str(caught.value)
  with pytest.raises(UserError, match=r"tiny_bomb/1.0.0 train\[0\] cannot be decoded \(it has 5x5 pixels"):
    stream_sets.load("tiny_bomb", data_dir=str(tmp_path), image_size=0, resize=0, corrupt_limit=0)


def test_a_prepared_set_of_the_same_size_and_time_is_read_anew(tmp_path):
  images = np.random.default_rng(0).integers(0, 256, (4, 3, 3, 3), np.uint8)
  found, sizes = [], []
  for labels in ([0, 1, 0, 1], [1, 0, 1, 0]):
    shutil.rmtree(tmp_path / "tiny_same", ignore_errors=True)
    image_sets.prepare(tmp_path, "tiny_same", {"train": (images, labels), "test": (images, labels)})
    shards = sorted((tmp_path / "tiny_same").rglob("*.array_record*"))
    for shard in shards:
      os.utime(shard, (0, 0))
    sizes.append([shard.stat().st_size for shard in shards])
    whole = data.load("tiny_same", data_dir=str(tmp_path))
    streamed = stream_sets.load("tiny_same", data_dir=str(tmp_path), image_size=0, resize=0)
    for source in (whole, streamed):
      np.testing.assert_array_equal(source.train["labels"], labels)
    found.append([whole.fingerprint, streamed.fingerprint])
  assert sizes[0] == sizes[1] and not set(found[0]) & set(found[1])


def test_of_several_processes_the_first_speaks(monkeypatch, capsys):
  for process, said in ((0, "line\n"), (1, "")):
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(jax, "process_index", lambda process=process: process)
    summary.say("line")
    assert capsys.readouterr().err == said


def test_a_listing_opens_no_file(root, monkeypatch):
  monkeypatch.setattr("builtins.open", lambda *_, **__: pytest.fail("opened"))
  assert len(folders.listing(str(root)).splits["train"]) == 4
