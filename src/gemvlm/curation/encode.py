"""The explicit encode pass: every frame's target through the autoencoder once, kept beside the set.

    codec = Codec.from_checkpoint("nano", "depth")
    encode(folder, codec)                                                  # writes folder/latents-depth
    reader = ShardReader(folder, depth=False)                              # training: no depth is decoded
    Collator(tokenizer, coordinates, images, [cached(folder, codec)])      # and no picture encoded

A latent is worth nothing without knowing exactly what made it: the codec's stamp is stored, and `cached` refuses
latents of any other stamp.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from gemvlm.data.latents import SUFFIX, LatentCache, to_member
from gemvlm.data.quarantine import REASONS, QuarantineError
from gemvlm.data.targets import DepthTarget, RgbTarget
from gemvlm.model.config import GemConfig
from gemvlm.model.latents import DcAeLatents, Latents
from gemvlm.shards import DerivedWriter, SampleError, ShardReader, files
from gemvlm.shards.files import Location
from gemvlm.shards.record import Row

Kind = Literal["depth", "rgb"]
Precision = Literal["float16", "float32"]

CODE_VERSION = 1
"""Goes up when the same frame and stamp would give another latent: resizing, filling, colours, layout of a member."""

SIZE_RULE = "long side 448, both sides floored to multiples of 32"


@dataclass(frozen=True)
class Codec:
    """How a frame becomes a latent: the maker of its picture, and the frozen autoencoder with its configuration."""

    maker: DepthTarget | RgbTarget
    latents: Latents
    config: Mapping[str, Any]
    precision: Precision = "float16"

    @classmethod
    def of(
        cls,
        model: GemConfig,
        latents: Latents,
        kind: Kind,
        target: tuple[int | None, int | None] = (None, None),
        precision: Precision = "float16",
    ) -> Codec:
        """`target` is the height and width of the pictures in pixels; None follows the published rule."""
        maker = DepthTarget(model.encoding, *target) if kind == "depth" else RgbTarget(*target)
        return cls(maker, latents, model.latents, precision)

    @classmethod
    def from_checkpoint(
        cls, path_or_name: str | os.PathLike[str], kind: Kind, precision: Precision = "float16"
    ) -> Codec:
        """That of a checkpoint folder, or of a shipped checkpoint by its name."""
        from gemvlm.inference.load import load

        pipeline = load(path_or_name)
        size = pipeline.card.target
        return cls.of(
            pipeline.card.model,
            pipeline.gem.supervision.latents,
            kind,
            (size.get("height"), size.get("width")),
            precision,
        )

    @property
    def stamp(self) -> dict[str, Any]:
        """Everything that a latent depends on besides its frame."""
        maker, settings = self.maker, _settings(self.latents, self.config)
        return {
            "autoencoder": settings,
            "weights": weights_hash(self.latents),
            "scaling_factor": settings.get("scaling_factor", settings.get("gain", 1.0)),
            "kind": maker.kind,
            "encoding": asdict(maker.encoding) if isinstance(maker, DepthTarget) else None,
            "size": [maker.height, maker.width],
            "size_rule": None if maker.height and maker.width else SIZE_RULE,
            "precision": self.precision,
            "code": CODE_VERSION,
        }


def _settings(latents: Latents, config: Mapping[str, Any]) -> dict[str, Any]:
    """Of an autoencoder, with the defaults that some publishers write and others leave out."""
    if isinstance(latents, DcAeLatents):
        config = {"kind": "dc_ae", **{k: v for k, v in latents.vae.config.items() if not k.startswith("_")}}
    return dict(config)


def weights_hash(latents: Latents) -> str:
    """SHA-256 over names, types, shapes and bytes of all tensors; of nothing for a codec without weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(latents.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def latents_folder(folder: Location, kind: str) -> Location:
    """Where the latents of a set lie unless another place is named."""
    return files.join(files.located(folder), f"latents-{kind}")


def cached(folder: Location, codec: Codec, out: Location | None = None) -> LatentCache:
    """The latents of a set, for a `Collator`. StampError if another codec made them; ValueError if unfinished."""
    return LatentCache(out or latents_folder(folder, codec.maker.kind), codec.maker.kind, codec.stamp)


def encode(
    folder: Location,
    codec: Codec,
    out: Location | None = None,
    *,
    batch_size: int = 16,
    device: str | None = None,
    max_bad_share: float = 0.01,
    show_progress: bool = True,
) -> Location:
    """Writes the latents of every frame of the set `folder` into `out` (default: `folder/latents-<kind>`).

    Killed at any moment, the same call goes on, and the bytes are the same. Frames that can't be read or encoded become
    lines {id, file, field, reason} of `out/quarantine.jsonl` and have no target. QuarantineError, and nothing finished,
    if they are more than `max_bad_share` (0..1) of all. StampError if `out` holds latents of another codec.
    """
    from rich.progress import track

    reader = ShardReader(folder)
    out = files.located(out or latents_folder(folder, codec.maker.kind))
    writer = DerivedWriter(out, codec.stamp, SUFFIX)
    if writer.finished:
        return out
    device = device or "cpu"
    codec.latents.to(device)
    frames = _frames(reader, track(range(len(reader)), "encoding", disable=not show_progress))
    seen, bad = 0, list[SampleError]()
    # chunks are cut by position, whatever is done already: how pictures are batched may change a latent's last bit
    while chunk := list(islice(frames, batch_size)):
        seen += len(chunk)
        if not all(writer.done(place.media) for place in chunk):
            for place, member in zip(chunk, _members(reader, chunk, codec, device), strict=True):
                if isinstance(member, SampleError):
                    bad.append(member)
                    writer.refuse(place.media)
                elif not writer.done(place.media):
                    writer.add(place.media, member)
    rows = [{"id": error.id, "file": error.file, "field": error.field, "reason": str(error)} for error in bad]
    files.put(files.join(out, REASONS), "".join(json.dumps(row) + "\n" for row in rows).encode())
    if len(bad) > max_bad_share * seen:
        raise QuarantineError(
            f"{len(bad)} of {seen} frames can't be encoded, more than the allowed {max_bad_share:.1%}; "
            f"{files.join(out, REASONS)} says why: repair or remove them, or raise max_bad_share"
        )
    writer.finish()
    return out


class _Place(NamedTuple):
    """A frame that is the first to show its media."""

    record: Row
    number: int

    @property
    def media(self) -> str:
        return self.record["frames"][self.number]["media"]


def _frames(reader: ShardReader, indices: Iterable[int]) -> Iterator[_Place]:
    """Every picture with its depth once, in order. Records that can't be read are `Usable`'s to report."""
    seen: set[bytes] = set()
    for index in indices:
        try:
            record = reader.record(index)
        except SampleError:
            continue
        for number, frame in enumerate(record["frames"]):
            media = bytes.fromhex(frame["media"])
            if media not in seen:
                seen.add(media)
                yield _Place(record, number)


def _members(reader: ShardReader, chunk: Sequence[_Place], codec: Codec, device: str) -> list[bytes | SampleError]:
    """The file of each frame, empty where it has nothing of this kind, or what is wrong with it."""
    members: list[bytes | SampleError] = [b""] * len(chunk)
    made: dict[int, tuple[Tensor, Tensor]] = {}
    for at, place in enumerate(chunk):
        try:
            picture = codec.maker.make(reader.frame(place.record, place.number))
        except SampleError as error:
            members[at] = error
        except ValueError as error:
            members[at] = _refused(error, reader, place)
        else:
            if picture is not None:
                made[at] = picture
    sizes = {tuple(picture.shape) for picture, _ in made.values()}
    for size in sorted(sizes):
        group = [at for at, (picture, _) in made.items() if tuple(picture.shape) == size]
        latents = codec.latents.encode(torch.stack([made[at][0] for at in group]).to(device))
        for at, latent in zip(group, latents, strict=True):
            try:
                members[at] = to_member(latent, made[at][1], getattr(torch, codec.precision))
            except ValueError as error:
                members[at] = _refused(error, reader, chunk[at])
    return members


def _refused(error: ValueError, reader: ShardReader, place: _Place) -> SampleError:
    return SampleError(str(error), place.record["id"], str(reader.folder), f"frames[{place.number}]")
