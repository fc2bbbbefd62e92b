"""Sample ⇄ disk: a folder of tables for people and of indexed tar files for training.

    manifest.json               counts; written last, so a folder without it is unfinished
    files.json                  size and SHA-256 of every other file
    annotations-00000.parquet   one row per sample, typed columns: what any tool can query
    records-00000.tar           the same rows as JSON, one member per sample: what training reads at random
    images-00000.tar            every picture once, the publisher's bytes where there are any
    depth-00000.tar             every depth map once, named by its picture
    records.index, ...          where each member lies

Members are named by SHA-256 and suffix and have no time, so that equal samples make equal bytes and any tar or
WebDataset tool reads them. Whatever is computed from a picture and its depth (latents) joins them by `Frame.media` and
lives in a folder of its own with the stamp of its maker (`derived.py`). Folders are local paths or fsspec URLs.
"""

from gemvlm.shards.derived import Derived, DerivedWriter, StampError
from gemvlm.shards.manifest import MANIFEST, Manifest
from gemvlm.shards.reader import SampleError, ShardReader
from gemvlm.shards.record import StoredFrame
from gemvlm.shards.writer import ShardWriter, write_shards

__all__ = [
    "MANIFEST",
    "Derived",
    "DerivedWriter",
    "Manifest",
    "SampleError",
    "ShardReader",
    "ShardWriter",
    "StampError",
    "StoredFrame",
    "write_shards",
]
