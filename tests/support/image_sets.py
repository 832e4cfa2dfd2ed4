"""Image sets on disk, as TensorFlow Datasets prepares them, shared by the tests of data."""

import io

import PIL.Image
import tensorflow_datasets as tfds

__all__ = ["encoded", "prepare"]


def encoded(image):
  stream = io.BytesIO()
  PIL.Image.fromarray(image.squeeze()).save(stream, "PNG")
  stream.seek(0)
  return stream


def prepare(data_dir, set_name, splits, *, channels=3, num_classes=2, features=None):
  """Writes a data set as TensorFlow Datasets would; `splits` maps a name to (images, labels)."""
  features = features or {
    "image": tfds.features.Image(shape=(None, None, channels)),
    "label": tfds.features.ClassLabel(num_classes=num_classes),
  }

  def examples(images, labels):
    for position, (image, label) in enumerate(zip(images, labels, strict=True)):
      yield position, {"image": encoded(image) if image.ndim == 3 else image, "label": label}

  with tfds.core.registered.skip_registration():

    class Builder(tfds.core.GeneratorBasedBuilder):
      # Beside a class of a package TensorFlow Datasets looks for files, with a library that it does not install.
      __module__ = "image_sets"
      name = set_name
      VERSION = tfds.core.Version("1.0.0")

      def _info(self):
        return tfds.core.DatasetInfo(
          builder=self,
          features=tfds.features.FeaturesDict(features),
          supervised_keys=("image", "label"),
          disable_shuffling=True,
        )

      def _split_generators(self, dl_manager):
        return {split: examples(*arrays) for split, arrays in splits.items()}

      def _generate_examples(self):
        raise NotImplementedError

  Builder(data_dir=data_dir, file_format="array_record").download_and_prepare()
