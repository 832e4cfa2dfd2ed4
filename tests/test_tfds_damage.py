"""Sets of TensorFlow Datasets whose files are missing, cut off, emptied or altered: one line that names the file."""

import json
import shutil

import numpy as np
import pytest

from dynsel_jax import data
from dynsel_jax.data import stream_sets, tfds_images
from dynsel_jax.options import UserError
from tests.support import image_sets


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  folder = tmp_path_factory.mktemp("whole")
  images = np.random.default_rng(0).integers(0, 256, (60, 6, 6, 3), dtype=np.uint8)
  image_sets.prepare(
    folder, "tiny_damaged", {"train": (images, np.arange(60) % 2), "test": (images[:20], np.arange(20) % 2)}
  )
  return folder


def _load(how, folder, cache):
  if how == "memory":
    return data.load("tiny_damaged", data_dir=str(folder), cache_dir=str(cache))
  return stream_sets.load("tiny_damaged", data_dir=str(folder), cache_dir=str(cache), image_size=6, resize=0)


def _altered(content):
  place = next(place for place, byte in enumerate(content) if byte and place > 2000)
  return content[:place] + bytes([content[place] ^ 8]) + content[place + 1 :]


def _claims_more(content):
  described = json.loads(content)
  described["splits"][0]["shardLengths"] = ["1000"]
  return json.dumps(described).encode()


TRAIN, TEST = (f"tiny_damaged-{split}.array_record-00000-of-00001" for split in ("train", "test"))
DAMAGES = {
  "a missing shard": (TEST, None),
  "a shard cut off": (TRAIN, lambda content: content[: len(content) // 2]),
  "a shard cut off at its end": (TRAIN, lambda content: content[:-100]),
  "an empty shard": (TRAIN, lambda content: b""),
  "a flipped byte": (TRAIN, _altered),
  "zeros": (TEST, lambda content: content[:1000] + bytes(len(content) - 1000)),
  "no records at all": (TEST, lambda content: bytes(len(content))),
  "another number of records": ("dataset_info.json", _claims_more),
  "no description": ("dataset_info.json", None),
  "a torn description": ("dataset_info.json", lambda content: content[:300]),
  "an empty description": ("dataset_info.json", lambda content: b""),
  "an unknown field": ("dataset_info.json", lambda content: content.replace(b"shardLengths", b"shartLengths")),
  "another pattern of names": ("dataset_info.json", lambda content: content.replace(b"{SPLIT}", b"{SPLAT}")),
  "no features": ("features.json", None),
  "torn features": ("features.json", lambda content: content[:300]),
  "another feature": ("features.json", lambda content: content.replace(b"image_feature.Image", b"image_feature.Imagf")),
}


@pytest.mark.parametrize("how", ["memory", "stream"])
@pytest.mark.parametrize(("name", "damage"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_set_costs_one_line_that_names_the_file_and_what_to_do(whole, how, name, damage, tmp_path):
  folder = tmp_path / "data"
  shutil.copytree(whole, folder)
  (path,) = folder.rglob(name)
  if damage is None:
    path.unlink()
  else:
    content = path.read_bytes()
    path.write_bytes(damage(content))
    assert path.read_bytes() != content
  with pytest.raises(UserError) as refused:
    _load(how, folder, tmp_path / "cache")
  said = str(refused.value)
  assert said.startswith("dataset.name='tiny_damaged': ") and "\n" not in said
  expected = TRAIN if damage is _claims_more else name
  assert f"{path.parent}/{expected}" in said or f"{path.parent}/dataset_info.json" in said
  assert "prepare it anew" in said and "tfds build tiny_damaged" in said


@pytest.mark.parametrize("how", ["memory", "stream"])
def test_an_intact_set_is_read(whole, how, tmp_path):
  source = _load(how, whole, tmp_path)
  assert (source.num_samples, len(source.test["labels"])) == (60, 20)


@pytest.mark.parametrize("how", ["memory", "stream"])
@pytest.mark.parametrize(
  ("wrong", "said"),
  [
    (lambda image, label: (image, 7), "label 7"),
    (lambda image, label: (b"no image", label), "can(not)? be decoded"),
    (lambda image, label: (b"", label), "can(not)? be decoded"),
  ],
)
def test_records_that_were_wrong_from_the_start_are_named(whole, how, wrong, said, tmp_path, monkeypatch):
  parsed = tfds_images._parsed
  monkeypatch.setattr(tfds_images, "_parsed", lambda record, found: wrong(*parsed(record, found)))
  with pytest.raises(UserError, match=said) as refused:
    _load(how, whole, tmp_path / "cache")
  assert "tiny_damaged" in str(refused.value) and "\n" not in str(refused.value)
