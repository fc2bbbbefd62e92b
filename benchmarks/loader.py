"""Loading samples: ours, from shards, against a straightforward loader that is frozen in this file.

    python benchmarks/loader.py                      # 24 scenes of the tabletop, 640x480: a few minutes, mostly to make
    python benchmarks/loader.py --samples 48 --rounds 9

The straightforward loader does per item what the authors' release does: one JSON list in memory, a JPEG and a 16-bit
PNG opened with Pillow, transformers' image processor, the tokenizer on every message, positions for each conversation,
and matplotlib's colours for the depth. (Depth is resized as a scalar and not in colour, so that both make one target.)
Ours reads the same pictures and counts from shards, where depth is a PNG as the shards' writer makes it, decoding
depth or with targets encoded beforehand.

Before anything is timed, all tensors of all batches are asserted equal: ids, labels, positions, pixels, pictures and
masks, and cached latents to those of the pictures. Variants take turns at every batch, on one thread. Two clocks are
read: processor time, when this process had the core, which others on the machine disturb less, and wall time. A ratio
is the median over rounds of the ratio within a round, printed with the smallest and the largest.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedTokenizerFast
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from gemvlm.batch import IGNORE, Batch
from gemvlm.curation.encode import Codec, cached, encode
from gemvlm.data.collate import Collator
from gemvlm.data.conversation import CoordinateFormat
from gemvlm.data.frames import ImageConfig
from gemvlm.data.tokenizer import load_tokenizer
from gemvlm.depth_map import DepthMap, Encoding
from gemvlm.inference.load import checkpoint_folder
from gemvlm.model.latents import build_latents
from gemvlm.recipes import get
from gemvlm.recipes.data import development_samples
from gemvlm.sample import Frame, Sample
from gemvlm.shards import ShardReader, write_shards

IMAGES = ImageConfig(min_pixels=25_088, max_pixels=2_359_296)
"""The authors' pixel budget."""
COORDINATES = CoordinateFormat()
MODEL = replace(
    get("gem_nano").model,
    encoding=Encoding("spectral"),
    latents={"kind": "patch", "patch": 32, "luma": 20, "chroma": 6},
)
"""Latents of the shape of the published autoencoder's: 32 channels, 32 pixels to a latent."""
LONG_SIDE, CELL = 448, 32
TURNS = 6
LATENT_TOLERANCE = 2e-3
"""Of the largest latent: what float16 keeps."""


# ---- the straightforward loader ----


class Straightforward:
    """Items of a JSON list to tensors, one after another, then concatenated."""

    def __init__(self, folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
        self.folder, self.tokenizer = folder, tokenizer
        self.records = json.loads((folder / "annotations.json").read_text())
        self.processor = Qwen2VLImageProcessorPil(
            patch_size=16,
            merge_size=2,
            temporal_patch_size=2,
            image_mean=[0.5] * 3,
            image_std=[0.5] * 3,
            size={"shortest_edge": IMAGES.min_pixels, "longest_edge": IMAGES.max_pixels},
        )

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        items = [self.item(self.records[index]) for index in indices]
        axes = {"position_ids": 1}
        stacked = ("picture", "valid")
        return {
            name: torch.stack([item[name] for item in items])
            if name in stacked
            else torch.cat([item[name] for item in items], dim=axes.get(name, 0))
            for name in items[0]
        }

    def item(self, record: Mapping) -> dict[str, Tensor]:
        image = Image.open(self.folder / record["image"]).convert("RGB")
        made = self.processor(images=[image], return_tensors="pt")
        grid = made["image_grid_thw"]
        input_ids, labels = self.tokens(record["conversations"], int(grid.prod()) // 4)
        picture, valid = self.target(Image.open(self.folder / record["depth"]))
        return {
            "input_ids": input_ids,
            "labels": labels,
            "position_ids": self.positions(input_ids, grid[0]),
            "pixel_values": made["pixel_values"],
            "image_grid_thw": grid,
            "picture": picture,
            "valid": valid,
        }

    def tokens(self, conversation: Sequence[Mapping], image_tokens: int) -> tuple[Tensor, Tensor]:
        input_ids: list[int] = []
        labels: list[int] = []

        def put(text: str, supervised: bool = False) -> None:
            ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
            input_ids.extend(ids)
            labels.extend(ids if supervised else [IGNORE] * len(ids))

        for message in conversation:
            assistant = message["from"] == "gpt"
            put("<|im_start|>assistant\n" if assistant else "<|im_start|>user\n")
            text = message["value"]
            if text.startswith("<image>"):
                put("<|vision_start|>" + "<|image_pad|>" * image_tokens + "<|vision_end|>")
                text = text.removeprefix("<image>")
            put(text, assistant)
            put("<|im_end|>\n", assistant)
        return torch.tensor(input_ids), torch.tensor(labels)

    def positions(self, input_ids: Tensor, grid: Tensor) -> Tensor:
        """Position ids (3, T) of one conversation about one image."""
        rows, columns = int(grid[1]) // 2, int(grid[2]) // 2
        start = input_ids.tolist().index(self.tokenizer.convert_tokens_to_ids("<|image_pad|>"))
        index = torch.stack(torch.meshgrid(torch.arange(1), torch.arange(rows), torch.arange(columns), indexing="ij"))
        before = torch.arange(start).expand(3, -1)
        after = torch.arange(len(input_ids) - start - rows * columns).expand(3, -1)
        return torch.cat([before, index.flatten(1) + start, after + start + max(rows, columns)], dim=1)

    def target(self, stored: Image.Image) -> tuple[Tensor, Tensor]:
        """Inverse depth in matplotlib's Spectral, and where it is known."""
        depth = np.array(stored).astype(np.float32) / 1000
        valid = depth > 0
        disparity = np.zeros_like(depth)
        disparity[valid] = 1 / depth[valid]
        low, high = np.percentile(disparity[valid], [2, 98]).astype(np.float32)
        position = 1 - np.clip((disparity - low) / (high - low), 0, 1)
        longest = max(depth.shape)
        height, width = (side * LONG_SIDE // longest // CELL * CELL for side in depth.shape)
        known = self.resized(valid, width, height)
        position = self.resized(np.where(valid, position, 0), width, height) / np.maximum(known, 1e-9)
        colours = matplotlib.colormaps["Spectral"](position, bytes=False)[..., :3]
        picture = torch.from_numpy((colours * 255).astype(np.uint8)).permute(2, 0, 1).float() / 255
        return (picture - 0.5) / 0.5, torch.from_numpy(known >= 0.5)

    @staticmethod
    def resized(values: np.ndarray, width: int, height: int) -> np.ndarray:
        picture = Image.fromarray(values.astype(np.float32))
        return np.array(picture.resize((width, height), Image.Resampling.BILINEAR))


# ---- the same data, twice ----


@dataclass(frozen=True)
class Loaders:
    """Each takes indices and gives a batch."""

    straightforward: Callable[[Sequence[int]], dict[str, Tensor]]
    decoding: Callable[[Sequence[int]], Batch]
    cached: Callable[[Sequence[int]], Batch]
    codec: Codec


def published(sample: Sample) -> tuple[bytes, bytes]:
    """A publisher's files of the first frame: JPEG and 16-bit PNG in millimetres."""
    frame = sample.frames[0]
    assert frame.depth is not None
    photo, depth = io.BytesIO(), io.BytesIO()
    Image.fromarray(frame.image).save(photo, "JPEG", quality=92)
    millimetres = np.where(frame.depth.valid, np.round(frame.depth.values * 1000), 0)
    Image.fromarray(millimetres.astype(np.uint16)).save(depth, "PNG")
    return photo.getvalue(), depth.getvalue()


def make_data(samples: Sequence[Sample], folder: Path) -> list[Sample]:
    """Files and a JSON list in `folder`; returns the samples as an importer would read them from there."""
    records, imported = [], []
    for number, sample in enumerate(samples):
        photo, stored = published(sample)
        names = {"image": f"{number:05d}.jpg", "depth": f"{number:05d}.png"}
        (folder / names["image"]).write_bytes(photo)
        (folder / names["depth"]).write_bytes(stored)
        talk = []
        for turn in sample.turns:
            question = COORDINATES.fill(turn.question, turn.places).strip()
            talk.append({"from": "human", "value": question if talk else "<image>" + question})
            talk.append({"from": "gpt", "value": COORDINATES.fill(turn.answer, turn.places).strip()})
        records.append({**names, "conversations": talk})
        depth = DepthMap.from_values(np.array(Image.open(folder / names["depth"])).astype(np.float32) / 1000)
        image = np.array(Image.open(folder / names["image"]).convert("RGB"))
        imported.append(replace(sample, frames=(Frame(image, depth, encoded=photo),)))
    (folder / "annotations.json").write_text(json.dumps(records))
    return imported


def make_loaders(samples: Sequence[Sample], folder: Path) -> Loaders:
    """All three over the same samples, each of which has one frame with depth and at least one turn."""
    (folder / "files").mkdir()
    imported = make_data(samples, folder / "files")
    write_shards(imported, folder / "shards")
    tokenizer = load_tokenizer(checkpoint_folder("nano"))
    codec = Codec.of(MODEL, build_latents(MODEL.latents), "depth")
    encode(folder / "shards", codec, show_progress=False)

    def ours(reader: ShardReader, maker) -> Callable[[Sequence[int]], Batch]:
        collator = Collator(tokenizer, COORDINATES, IMAGES, [maker])
        return lambda indices: collator([reader[index] for index in indices])

    return Loaders(
        Straightforward(folder / "files", tokenizer).batch,
        ours(ShardReader(folder / "shards"), codec.maker),
        ours(ShardReader(folder / "shards", depth=False), cached(folder / "shards", codec)),
        codec,
    )


def check(loaders: Loaders, batches: Sequence[Sequence[int]]) -> None:
    """Asserts that all three give the same tensors."""
    for indices in batches:
        plain, decoded, read = (load(indices) for load in (loaders.straightforward, loaders.decoding, loaders.cached))
        for ours in (decoded, read):
            for name in ("input_ids", "labels", "position_ids", "pixel_values", "image_grid_thw"):
                assert torch.equal(getattr(ours, name), plain[name]), f"{name} differs"
            assert torch.equal(torch.stack([target.valid for target in ours.targets]), plain["valid"]), "masks differ"
        pictures = torch.stack([target.picture for target in decoded.targets])
        # where depth is unknown ours is filled from its neighbours, and no loss looks
        differing = ((pictures - plain["picture"]).abs().amax(1) > 0) & plain["valid"]
        assert differing.float().mean() < 1e-3, "pictures differ"  # rounding may move a pixel to the next colour of 256
        expected = loaders.codec.latents.encode(pictures)
        found = torch.stack([target.latent for target in read.targets if target.latent is not None])
        assert (found - expected).abs().max() <= LATENT_TOLERANCE * expected.abs().max(), "latents differ"


# ---- time ----


Seconds = dict[str, list[float]]
"""Per sample, of each loader in each round."""
CLOCKS = {"processor": time.process_time, "wall": time.perf_counter}


def measure(loaders: Loaders, batches: Sequence[Sequence[int]], rounds: int) -> dict[str, Seconds]:
    """Times by each clock, batch by batch in turn. To be called warm, after `check`."""
    variants = {
        "straightforward": loaders.straightforward,
        "ours, decoding depth": loaders.decoding,
        "ours, cached targets": loaders.cached,
    }
    seconds = {clock: {name: [0.0] * rounds for name in variants} for clock in CLOCKS}
    samples = sum(len(indices) for indices in batches)
    for turn in range(rounds):
        for indices in batches:
            for name, load in variants.items():
                started = {clock: read() for clock, read in CLOCKS.items()}
                load(indices)
                for clock, read in CLOCKS.items():
                    seconds[clock][name][turn] += (read() - started[clock]) / samples
    return seconds


def report(measured: Mapping[str, Seconds]) -> dict[str, float]:
    """Prints times and ratios by each clock; returns the ratios of processor time."""
    ratios: dict[str, dict[str, float]] = {}
    for clock, seconds in measured.items():
        ratios[clock] = {}
        for name, times in seconds.items():
            each = [slow / fast for slow, fast in zip(seconds["straightforward"], times, strict=True)]
            ratios[clock][name] = statistics.median(each)
            print(
                f"  {clock:<10}{name:<22}{1e3 * statistics.median(times):8.2f} ms a sample   {ratios[clock][name]:5.2f}"
                f" x as fast as straightforward ({min(each):.2f} to {max(each):.2f})"
            )
    return ratios["processor"]


def run(samples: Sequence[Sample], batch_sizes: Sequence[int], rounds: int) -> dict[int, dict[str, float]]:
    """Everything that the module promises: the ratios by batch size and loader."""
    torch.set_num_threads(1)
    places = np.random.default_rng(0).permutation(len(samples)).tolist()
    height, width = samples[0].frames[0].image.shape[:2]
    ratios = {}
    with tempfile.TemporaryDirectory() as folder:
        loaders = make_loaders(samples, Path(folder))
        for size in batch_sizes:
            batches = [places[start : start + size] for start in range(0, len(places), size)]
            check(loaders, batches)
            print(f"{len(samples)} samples of {width}x{height}, batches of {size}, {rounds} rounds: all tensors equal")
            ratios[size] = report(measure(loaders, batches, rounds))
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=24)
    parser.add_argument(
        "--batch-sizes", type=int, nargs="+", default=[1, 8], help="the authors train with 1 per device"
    )
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    data = replace(get("gem_nano").data, size=(480, 640))
    scenes = development_samples(data, 2 * options.samples)
    samples = [replace(sample, turns=sample.turns[:TURNS]) for sample in scenes if sample.turns][: options.samples]
    run(samples, options.batch_sizes, options.rounds)


if __name__ == "__main__":
    main()
