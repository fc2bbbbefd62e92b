"""Files of a data set: a local folder or a hub id, paths that stay inside it, pictures and depth read within bounds.

Pictures are taken **as they are stored**: an EXIF orientation is not applied, because the loaders of the published
vision-language sets (LLaVA's, Qwen's, GEM's) open files with Pillow and do not apply it either: coordinates and depth
refer to stored pixels. `upright=True` turns them; they then lose `Frame.encoded`. Greyscale, palette and CMYK become
RGB; real transparency is laid on white, as Qwen's loader does, and loses `Frame.encoded` too.
"""

from __future__ import annotations

import io
import math
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageOps

from gemvlm.curation.sources.records import UNREADABLE, RecordError
from gemvlm.data.frames import LARGEST_ASPECT_RATIO
from gemvlm.depth_map import DepthKind, DepthMap
from gemvlm.depth_map.depth import METRIC_KINDS
from gemvlm.depth_map.origin import DepthOrigin
from gemvlm.sample import Frame

LARGEST_FILE = 256 * 2**20
LARGEST_PIXELS = 64 * 2**20
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
KEPT_FORMATS = ("JPEG", "PNG", "WEBP")


def resolve_folder(path: Path | str, revision: str = "", patterns: list[str] | None = None) -> Path:
    """A local folder, or the snapshot of the hub data set "owner/name" at `revision` (a commit: a branch can move).

    `patterns` limits what is downloaded. ValueError if there is no such folder and no revision, or no hub client.
    """
    folder = Path(path)
    if folder.is_dir():
        return folder
    name = str(path)
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ValueError(f"{name}: no such folder; check the name, or give a hub id such as 'owner/name'")
    if not revision:
        raise ValueError(f"{name}: no such folder; to fetch it from the hub give a revision (the commit to read)")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ValueError(f"{name}: reading from the hub needs `pip install huggingface_hub`") from error
    return Path(snapshot_download(name, repo_type="dataset", revision=revision, allow_patterns=patterns))


def inside(root: Path, relative: object, field: str = "") -> Path:
    """The file `relative` under `root`. RecordError if it is no text, absent, or leads out of the folder by any way.

    Links may lead to anywhere under `root`; in a hub snapshot also to the blobs beside it.
    """
    if not isinstance(relative, str) or not relative or "\0" in relative or len(relative) > 4096:
        raise RecordError("bad_path", f"expected the path of a file, found {relative!r:.80}", field)
    parts = PurePosixPath(relative)
    if parts.is_absolute() or ".." in parts.parts:
        raise RecordError("outside_folder", f"{relative!r} leads out of the data folder; make it relative to it", field)
    path = root / parts
    if not path.is_file():
        raise RecordError("missing_file", f"{relative!r}: no such file in the data folder; unpack or fetch it", field)
    if not path.resolve().is_relative_to(_allowed(root)):
        raise RecordError("outside_folder", f"{relative!r} is a link that leads out of the data folder", field)
    return path


@lru_cache(maxsize=64)
def _allowed(root: Path) -> Path:
    """Where links may lead: the hub's cache keeps `snapshots/REVISION/FILE` as a link into `blobs`."""
    return (root.parents[1] if root.parent.name == "snapshots" else root).resolve()


def read_bytes(path: Path, field: str = "") -> bytes:
    """The whole of a file of at most LARGEST_FILE bytes."""
    size = path.stat().st_size
    if size > LARGEST_FILE:
        raise RecordError("file_too_large", f"{path.name} has {size} bytes, more than {LARGEST_FILE}", field)
    return path.read_bytes()


def read_frame(
    picture: Path | bytes,
    depth: DepthMap | None = None,
    *,
    time_s: float | None = None,
    upright: bool = False,
    field: str = "image",
) -> Frame:
    """A frame from an image file or its bytes, which it keeps in `encoded` where they decode to exactly its pixels.

    RecordError for what is no still 8-bit picture, is damaged (PNG checksums are verified), has more than
    LARGEST_PIXELS or is too long and thin for a model, and for depth of another size.
    """
    content = picture if isinstance(picture, bytes) else read_bytes(picture, field)
    name = "the picture" if isinstance(picture, bytes) else picture.name
    try:
        image, exact = _decode(content, upright)
    except RecordError as fault:
        raise RecordError(fault.reason, f"{name}: {fault}", field) from fault
    except UNREADABLE as error:
        raise RecordError(
            "image_unreadable", f"{name}: not a readable picture ({error}); fetch it again", field
        ) from error
    height, width = image.shape[:2]
    if depth is not None and depth.values.shape != (height, width):
        told = f"depth is {depth.values.shape} but {name} is {(height, width)} (height, width)"
        raise RecordError("depth_size", f"{told}; resample it to the image", "depth")
    return Frame(image, depth, encoded=content if exact else None, time_s=time_s)


def _decode(content: bytes, upright: bool) -> tuple[UInt8[np.ndarray, "H W 3"], bool]:
    """RGB pixels, and whether Pillow's plain `convert("RGB")` of the same bytes gives exactly them."""
    with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
        width, height = opened.size
        check_size(width, height)
        if opened.mode.startswith(("I", "F")):
            raise RecordError("image_mode", f"mode {opened.mode} is not a colour picture; give the 8-bit image")
        if getattr(opened, "n_frames", 1) > 1 and opened.format != "MPO":
            raise RecordError("image_animated", "it holds several pictures; give one file for each")
        if opened.format == "PNG":
            verify_png(content)
        opened.load()
        turned = upright and opened.getexif().get(0x0112, 1) != 1
        picture = ImageOps.exif_transpose(opened) if turned else opened
        seen_through = opened.has_transparency_data and bool(np.array(picture.convert("RGBA"))[..., 3].min() < 255)
        exact = not (turned or seen_through) and opened.format in KEPT_FORMATS
        if not seen_through:
            return np.array(picture.convert("RGB")), exact
        layered = picture.convert("RGBA")
        white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        return np.array(Image.alpha_composite(white, layered).convert("RGB")), exact


def check_size(width: int, height: int) -> None:
    """RecordError for pictures that no model takes: too many pixels, none, or one side 200 times the other."""
    if width * height > LARGEST_PIXELS:
        raise RecordError("image_too_large", f"{width} x {height} pixels are more than {LARGEST_PIXELS}")
    if min(width, height) < 1 or max(width, height) > LARGEST_ASPECT_RATIO * min(width, height):
        raise RecordError("image_shape", f"{width} x {height} is too long and thin to be a picture")


def verify_png(content: bytes) -> None:
    """Raises if a checksum of the PNG does not fit; Pillow skips those of the pixels when it loads them."""
    with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
        image.verify()


@dataclass(frozen=True)
class DepthFormat:
    """What the numbers in a source's depth files mean. Counts of a PNG, or the floats of a `.npy` or `.npz` array.

    `unit` is metres per count for the metric kinds; relative kinds keep their counts as they are (`unit` 1). `invalid`
    are counts that mean "no value". `nan_is_invalid`: NaN and infinity do too (Hypersim); else they are damage.
    `fit` resamples depth of another size to the image if both have the same aspect within one pixel.
    """

    kind: DepthKind = "affine_depth"
    unit: float = 1.0
    invalid: tuple[int, ...] = (0,)
    nan_is_invalid: bool = False
    fit: bool = False
    source: str = ""
    origin: DepthOrigin | None = None

    def __post_init__(self) -> None:
        if not (self.unit > 0 and math.isfinite(self.unit)):
            raise ValueError(f"depth format: {self.unit} metres per count; give a positive number")
        if self.kind not in METRIC_KINDS and self.unit != 1:
            raise ValueError(f"depth format: {self.kind} has no unit, so {self.unit} metres per count can't be meant")


MILLIMETRE_PNG = DepthFormat("metric_z", 0.001)


def read_depth(
    picture: Path | bytes, form: DepthFormat, size: tuple[int, int] | None = None, field: str = "depth"
) -> DepthMap:
    """Depth from a 16-bit (or 8-bit grey) PNG, `.npy` or `.npz` (its only array, "depth", or "values" where "valid").

    `size` (height, width) of the image is needed to `fit`. RecordError for other files, non-finite or negative values,
    and a map without one valid pixel.
    """
    content = picture if isinstance(picture, bytes) else read_bytes(picture, field)
    name = "the depth" if isinstance(picture, bytes) else picture.name
    try:
        values = _depth_values(content)
    except RecordError as fault:
        raise RecordError(fault.reason, f"{name}: {fault}", field) from fault
    except UNREADABLE as error:
        raise RecordError("depth_unreadable", f"{name}: not readable depth ({error}); fetch it again", field) from error
    finite = np.isfinite(values)
    if not finite.all() and not form.nan_is_invalid:
        lost = values.size - int(finite.sum())
        raise RecordError("depth_not_finite", f"{name}: {lost} of {values.size} pixels are NaN or infinite", field)
    valid = finite & ~np.isin(values, form.invalid)
    if (values[valid] < 0).any():
        raise RecordError("depth_negative", f"{name}: {int((values[valid] < 0).sum())} pixels are negative", field)
    if not valid.any():
        raise RecordError("depth_empty", f"{name}: no pixel of the depth is valid", field)
    metric = form.kind in METRIC_KINDS
    scaled = (values.astype(np.float64) * form.unit).astype(np.float32) if form.unit != 1 else values
    depth = DepthMap(
        np.where(valid, scaled, 0).astype(np.float32), valid, form.kind, "m" if metric else "", form.source or name,
        form.origin,
    )  # fmt: skip
    if form.fit and size is not None and depth.values.shape != size:
        (height, width), (rows, columns) = size, depth.values.shape
        if abs(rows * width / height - columns) <= 1 or abs(columns * height / width - rows) <= 1:
            return depth.resized(width, height)
    return depth


def _depth_values(content: bytes) -> Float32[np.ndarray, "H W"]:
    if content[:2] == b"PK":
        return _from_npz(content)
    if content[:6] == b"\x93NUMPY":
        return _from_npy(content)
    verify_png(content)
    with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
        check_size(*image.size)
        counts = np.array(image)
        if image.mode == "RGB" and (counts == counts[..., :1]).all():
            counts = counts[..., 0]
        elif image.mode != "L" and not image.mode.startswith("I"):
            raise RecordError("depth_mode", f"mode {image.mode} is not one channel of counts; export raw counts")
    return counts.astype(np.float32)


def _from_npy(content: bytes) -> Float32[np.ndarray, "H W"]:
    """An array whose header agrees with the bytes that follow it, so that no header makes numpy reserve memory."""
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    if dtype.hasobject or dtype.kind not in "fiub" or len(shape) not in (2, 3):
        raise RecordError("depth_array", f"an array of {dtype} with shape {shape} is no depth map")
    if math.prod(shape) * dtype.itemsize != len(content) - stream.tell() or math.prod(shape) == 0:
        raise RecordError("depth_array", f"shape {shape} of {dtype} does not fit the bytes that follow")
    values = np.load(io.BytesIO(content), allow_pickle=False)
    if values.ndim == 3 and 1 not in (values.shape[0], values.shape[2]):
        raise RecordError("depth_array", f"shape {shape} is not one map")
    values = values.reshape(values.shape[-2:] if values.shape[0] == 1 and values.ndim == 3 else values.shape[:2])
    check_size(values.shape[1], values.shape[0])
    return values.astype(np.float32)


def _from_npz(content: bytes) -> Float32[np.ndarray, "H W"]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = {Path(entry.filename).stem: entry for entry in archive.infolist() if entry.filename.endswith(".npy")}
        chosen = names.get("depth") or names.get("values") or (next(iter(names.values())) if len(names) == 1 else None)
        if chosen is None:
            raise RecordError("depth_array", f"arrays {sorted(names)}: which is the depth? name it 'depth'")
        if chosen.file_size > LARGEST_FILE:
            raise RecordError("file_too_large", f"{chosen.filename} unpacks to {chosen.file_size} bytes")
        values = _from_npy(archive.read(chosen))
        if "valid" not in names or names["valid"].file_size > LARGEST_FILE:
            return values
        return np.where(_from_npy(archive.read(names["valid"])) > 0, values, 0)
