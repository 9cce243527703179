"""Small examples whose images are PNGs that differ in their colour."""

from io import BytesIO

from PIL import Image

from git_model.data.example import Annotation, StoredExample


def png(number: int) -> bytes:
    """A picture that no other number has."""
    buffer = BytesIO()
    Image.new("RGB", (4, 3), (number, 2 * number % 256, 7)).save(buffer, "PNG")
    return buffer.getvalue()


def stored_example(key: str, number: int, *annotations: Annotation) -> StoredExample:
    return StoredExample(key, key, png(number), annotations)
