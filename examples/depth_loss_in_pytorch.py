"""The depth loss in a plain PyTorch training.

    python examples/depth_loss_in_pytorch.py OUT

What stands between `# + depth` and `# - depth` is all that is added. OUT is a plain checkpoint of the model; the
supervision is written beside it, to go on from there.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from stand_ins import GENERATOR, LATENTS, TinyProcessor, rgbd_samples, tiny_model
from torch.utils.data import DataLoader

# + depth
from gemvlm.data.targets.loose import depth_targets
from gemvlm.depth_map import Encoding
from gemvlm.model.attach import attach
from gemvlm.model.supervision import GenerativeSupervision

# - depth

EPOCHS = 10


def train(out: Path, epochs: int = EPOCHS) -> list[dict[str, float]]:
    model, processor, samples = tiny_model(), TinyProcessor(), rgbd_samples(16)
    # + depth
    width = model.config.get_text_config().hidden_size
    supervision = GenerativeSupervision.build(width, GENERATOR, LATENTS, shift=3.0, condition_dropout=0.1)
    depth = attach(model, supervision, weights={"depth": 0.1})
    encoding = Encoding("log", near_m=0.3, far_m=3.0)
    # - depth

    def collate(batch: list[dict]) -> dict:
        inputs = processor(images=[sample["images"] for sample in batch], text=[sample["text"] for sample in batch])
        # + depth
        depths = [depth for sample in batch for depth in sample["depths"]]
        names = [(sample["id"], n) for sample in batch for n in range(len(sample["depths"]))]
        inputs["targets"] = depth_targets(depths, names, encoding, height=64, width=64)
        # - depth
        return inputs

    order = torch.Generator().manual_seed(0)
    batches = DataLoader(samples, batch_size=4, shuffle=True, collate_fn=collate, generator=order)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    log = []
    model.train()
    for _ in range(epochs):
        for inputs in batches:
            loss = model(**inputs).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            log.append({"loss": loss.item()})
            # + depth
            log[-1] |= {kind: value.item() for kind, value in depth.losses.items()}
            # - depth
        epoch = log[-len(batches) :]
        print({name: round(sum(step.get(name, 0) for step in epoch) / len(epoch), 3) for name in epoch[0]})
    model.save_pretrained(out)
    # + depth
    depth.save(out)
    # - depth
    return log


if __name__ == "__main__":
    train(Path(sys.argv[1]))
