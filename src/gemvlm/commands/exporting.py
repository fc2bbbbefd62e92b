"""Commands that write parts of a checkpoint for other runtimes: export-onnx."""

from __future__ import annotations

from pathlib import Path

from gemvlm.commands import Model


def export_onnx(model: Model, *, out: Path, height: int | None = None, width: int | None = None) -> None:
    """Write a checkpoint's depth generator, or a policy's action expert, as ONNX graphs of one step each.

    Each graph is run by onnxruntime and compared with PyTorch before the command ends.

    Args:
        model: Checkpoint folder of a GEM or a policy, the name of a shipped model, or OWNER/NAME of a hub.
        out: Folder for the graphs and export.json, which says what the loop around them needs to know.
        height: Of the depth pictures, in pixels; the checkpoint's own by default, 448 if it has none.
        width: Likewise.
    """
    from gemvlm.inference.onnx_export import export_checkpoint

    for graph in export_checkpoint(model, out, height, width):
        print(f"{graph.path}  equal to {graph.error:.0e}")
    print(out / "export.json")
