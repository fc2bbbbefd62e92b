"""The depth loss in a plain Hugging Face Trainer.

    python examples/depth_loss_in_trainer.py OUT

What stands between `# + depth` and `# - depth` is all that is added; without it this is an ordinary training. The loss
is the model's own plus a tenth of the depth loss, and OUT is a plain checkpoint of the model, without the supervision.
"""

from __future__ import annotations

import sys
from pathlib import Path

from stand_ins import GENERATOR, LATENTS, TinyProcessor, rgbd_samples, tiny_model
from transformers import Trainer, TrainingArguments

# + depth
from gemvlm.data.targets.loose import depth_targets
from gemvlm.depth_map import Encoding
from gemvlm.model.attach import attach
from gemvlm.model.supervision import GenerativeSupervision

# - depth

STEPS = 40


def train(out: Path, steps: int = STEPS) -> Trainer:
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

    arguments = TrainingArguments(
        str(out / "checkpoints"), max_steps=steps, per_device_train_batch_size=4, learning_rate=3e-3, save_steps=steps,
        logging_steps=10, remove_unused_columns=False, use_cpu=True, report_to="none", disable_tqdm=True,
    )  # fmt: skip
    trainer = Trainer(model, arguments, train_dataset=samples, data_collator=collate)
    # + depth
    trainer.add_callback(depth.trainer_callback())
    # - depth
    trainer.train()
    trainer.save_model(str(out))
    return trainer


if __name__ == "__main__":
    train(Path(sys.argv[1]))
