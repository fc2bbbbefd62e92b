"""Images in; words, places and depth out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gemvlm.inference import GemPipeline
from gemvlm.inference.examples import examples
from gemvlm.inference.images import read_image
from gemvlm.inference.pipeline import Request, _noise_keys
from gemvlm.sample import Box, Frame, Point

LONG = "Which is closer, the red mug or the blue bowl?"


@pytest.fixture(autouse=True)
def talkative(pipeline: GemPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights may stop at once; without end tokens every reply is as long as it may be."""
    generate = pipeline.gem.backbone.generate

    def without_end(*arguments: object, **options: object) -> list[torch.Tensor]:
        return generate(*arguments, **{**options, "eos_ids": (-1,)})

    monkeypatch.setattr(pipeline.gem.backbone, "generate", without_end)


def test_a_file_a_pil_image_and_an_array_get_the_same_answer(
    pipeline: GemPipeline, image: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(image).save(path)
    answers = [pipeline.ask(kind, LONG, max_new_tokens=6) for kind in (image, Image.fromarray(image), path, str(path))]
    assert len({answer.text for answer in answers}) == 1
    assert answers[0].text


def test_an_answer_does_not_depend_on_its_neighbours_or_the_batch_size(
    pipeline: GemPipeline, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirrored = image[:, ::-1].copy()
    requests = [(image, LONG), (mirrored, "Describe the scene."), ([image, image[:32]], "Point at the mug.")]
    alone = [pipeline.ask(images, question, max_new_tokens=8) for images, question in requests]
    assert pipeline.ask_batch(requests, max_new_tokens=8) == alone
    monkeypatch.setattr(pipeline, "batch_size", 2)
    assert pipeline.ask_batch(requests, max_new_tokens=8) == alone


def test_sampling_follows_its_seed(pipeline: GemPipeline, image: np.ndarray) -> None:
    first, again, other = (
        pipeline.ask(image, LONG, max_new_tokens=12, temperature=2.0, seed=seed).text for seed in (1, 1, 2)
    )
    assert first == again != other


def test_pointing_gives_a_place_or_none(
    pipeline: GemPipeline, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def reply(batch: object, *_: object, **__: object) -> list[torch.Tensor]:
        asked.append(pipeline.tokenizer.decode(batch.input_ids.tolist()))  # type: ignore[attr-defined]
        return [torch.tensor(pipeline.tokenizer.encode("(250, 750)" if len(asked) == 1 else "no idea"))]

    monkeypatch.setattr(pipeline.gem.backbone, "generate", reply)
    point = pipeline.point(image, "the red mug.")
    assert point is not None and (point.x, point.y) == (0.25, 0.75)
    assert "Point to the red mug." in asked[0]
    assert pipeline.point(image, "red mug") is None


def test_depth_has_the_images_size_or_the_painted_one(pipeline: GemPipeline, image: np.ndarray) -> None:
    found = pipeline.depth(image, steps=2)
    assert found.depth.values.shape == found.confidence.shape == (48, 64)
    assert found.depth.kind == "metric_z" and found.depth.unit == "m" and found.depth.valid.all()
    assert (found.depth.values >= 0.25 - 1e-4).all() and (found.depth.values <= 4.0 + 1e-4).all()
    assert found.picture.shape == (32, 32, 3)
    assert pipeline.depth(image, steps=2, as_image=False).depth.values.shape == (32, 32)


def test_depth_follows_its_seed_and_its_image(pipeline: GemPipeline, image: np.ndarray) -> None:
    def depth(seed: int = 0, of: np.ndarray = image, **options: object) -> np.ndarray:
        return pipeline.depth(of, steps=2, seed=seed, **options).depth.values  # type: ignore[arg-type]

    np.testing.assert_array_equal(depth(), depth())
    assert (depth() != depth(seed=1)).any()
    assert (depth() != depth(of=255 - image)).any()
    assert (depth() != depth(guidance=4.0)).any()


def test_depth_of_several_images_keeps_their_order_and_sizes(pipeline: GemPipeline, image: np.ndarray) -> None:
    """A13: every image of a batch is painted from its own states, whatever the sizes beside it."""
    others = [image, image[:32, :32], image[:, ::-1].copy()]
    together = pipeline.depth_batch(others, steps=2)
    assert [found.depth.values.shape for found in together] == [(48, 64), (32, 32), (48, 64)]
    np.testing.assert_allclose(together[0].depth.values, pipeline.depth(image, steps=2).depth.values, rtol=1e-4)


def test_depth_does_not_depend_on_its_neighbours_or_the_batch_size(
    pipeline: GemPipeline, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [255 - image, image[:32, :32], image, image[::-1].copy(), image]
    alone = [pipeline.depth(one, steps=2, ensemble=2, seed=3).depth.values for one in images]
    for batch_size in (32, 4, 3):
        monkeypatch.setattr(pipeline, "batch_size", batch_size)
        together = pipeline.depth_batch(images, steps=2, ensemble=2, seed=3)
        for own, found in zip(alone, together, strict=True):
            np.testing.assert_allclose(found.depth.values, own, rtol=1e-4)


def test_every_image_member_and_seed_has_its_own_noise(image: np.ndarray) -> None:
    turned = image.reshape(64, 48, 3)  # the same bytes in another shape
    keys = [_noise_keys(Frame(of), seed, 2) for of in (image, 255 - image, turned) for seed in (0, 1)]
    assert len({key for pair in keys for key in pair}) == 12
    assert keys[0] == _noise_keys(Frame(image.copy()), 0, 2)


def test_without_condition_what_the_model_sees_does_not_matter(pipeline: GemPipeline, image: np.ndarray) -> None:
    """The same noise gives the same depth, whatever the states of the image."""
    free = pipeline.depth_batch([image], steps=2, unconditional=True)[0].depth.values
    embeddings = pipeline.gem.backbone.qwen.model.language_model.embed_tokens.weight
    with torch.no_grad():
        before = embeddings.clone()
        embeddings.neg_()
    try:
        np.testing.assert_array_equal(pipeline.depth_batch([image], steps=2, unconditional=True)[0].depth.values, free)
    finally:
        with torch.no_grad():
            embeddings.copy_(before)
    assert (pipeline.depth(image, steps=2).depth.values != free).any()


def test_an_ensemble_is_the_median_of_its_members(pipeline: GemPipeline, image: np.ndarray) -> None:
    one = pipeline.depth(image, steps=2, as_image=False)
    three = pipeline.depth(image, steps=2, ensemble=3, as_image=False)
    assert (one.depth.values != three.depth.values).any()
    assert three.depth.values.std() < one.depth.values.std()


def test_asking_leaves_a_model_in_training_as_it_was(pipeline: GemPipeline, image: np.ndarray) -> None:
    """B16: dropout of the condition is a matter of training alone, also when a preview interrupts it."""
    evaluated = pipeline.depth(image, steps=2).depth.values
    pipeline.gem.train()
    try:
        np.testing.assert_array_equal(pipeline.depth(image, steps=2).depth.values, evaluated)
        assert pipeline.gem.training
    finally:
        pipeline.gem.eval()


def test_impossible_options_are_refused(pipeline: GemPipeline, image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="ensemble"):
        pipeline.depth(image, ensemble=0)


def test_bad_images_are_named_with_a_remedy(tmp_path: Path, image: np.ndarray) -> None:
    text, cut, depth = tmp_path / "text.png", tmp_path / "cut.jpg", tmp_path / "depth.png"
    text.write_text("hello")
    Image.fromarray(np.tile(image, (4, 4, 1))).save(cut)
    cut.write_bytes(cut.read_bytes()[:400])
    Image.fromarray(np.full((8, 8), 1000, np.uint16)).save(depth)
    for path, words in [
        (tmp_path / "none.png", "no such image file"),
        (text, "not an image"),
        (cut, "damaged"),
        (depth, "not a colour picture"),
    ]:
        with pytest.raises(ValueError, match=f"{path.name}: .*{words}"):
            read_image(path)
    with pytest.raises(ValueError, match=r"float32 \(8, 8, 3\)"):
        read_image(np.zeros((8, 8, 3), np.float32))


def test_a_photo_is_turned_upright(tmp_path: Path, image: np.ndarray) -> None:
    path = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(image).save(path, exif=exif)
    np.testing.assert_array_equal(read_image(path), np.rot90(image, -1))


def test_text_alone_is_answered(pipeline: GemPipeline, image: np.ndarray) -> None:
    alone = pipeline.ask(None, LONG, max_new_tokens=6)
    assert alone.text and alone == pipeline.ask([], LONG, max_new_tokens=6)
    mixed = pipeline.ask_batch([(None, LONG), (image, LONG)], max_new_tokens=6)
    assert mixed == [alone, pipeline.ask(image, LONG, max_new_tokens=6)]


def test_earlier_turns_are_read(pipeline: GemPipeline, image: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def reply(batch: object, *_: object, **__: object) -> list[torch.Tensor]:
        asked.append(pipeline.tokenizer.decode(batch.input_ids.tolist()))  # type: ignore[attr-defined]
        return [torch.tensor(pipeline.tokenizer.encode("yes"))]

    monkeypatch.setattr(pipeline.gem.backbone, "generate", reply)
    pipeline.ask(image, "Is it red?", history=[("What is it?", "a mug")])
    assert asked[0].count("<|vision_start|>") == 1
    assert asked[0].index("What is it?") < asked[0].index("a mug") < asked[0].index("Is it red?")


def test_boxes_plans_and_points_of_a_batch_are_those_of_each(
    pipeline: GemPipeline, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    replies = iter(["(100, 200, 300, 400)", "no box", "(100, 200), (300, 400)", "none", "red mug, blue box", "nothing"])
    asked: list[str] = []

    def reply(batch: object, *_: object, **__: object) -> list[torch.Tensor]:
        asked.append(pipeline.tokenizer.decode(batch.input_ids.tolist()))  # type: ignore[attr-defined]
        rows = range(len(batch.lengths))  # type: ignore[attr-defined]
        return [torch.tensor(pipeline.tokenizer.encode(next(replies))) for _ in rows]

    monkeypatch.setattr(pipeline.gem.backbone, "generate", reply)
    first, second = pipeline.box_batch([(image, "mug"), (image, "bowl")])
    assert first == Box(0.1, 0.2, 0.3, 0.4) and second is None
    several, none = pipeline.points_batch([(image, "mug"), (image, "bowl")])
    assert several == (Point(0.1, 0.2), Point(0.3, 0.4)) and none == ()
    lift, done = pipeline.plan_batch([(image, "lift the tray"), ([image, image], "put the mug on the box")])
    assert lift.steps == ("remove the red mug", "remove the blue box") and done.steps == ()
    assert "What must be removed, in order, to lift the tray?" in asked[2]
    assert "Which steps remain after what the last image shows, in order?" in asked[2]


def test_a_reply_that_was_cut_says_so(pipeline: GemPipeline, image: np.ndarray) -> None:
    assert not pipeline.ask(image, LONG, max_new_tokens=3).finished


def test_a_conversation_that_is_too_long_is_refused(pipeline: GemPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = int(pipeline._prompts([Request(None, LONG)]).lengths.sum())
    monkeypatch.setattr(pipeline.gem.backbone.qwen.config.text_config, "max_position_embeddings", tokens + 8)
    pipeline.ask(None, LONG, max_new_tokens=8)
    with pytest.raises(ValueError, match=f"is {tokens} tokens and its answer may have 9, but the model holds"):
        pipeline.ask(None, LONG, max_new_tokens=9)


def test_the_shipped_pictures_are_whole() -> None:
    for example in examples():
        image, depth = example.image(), example.depth()
        assert image.shape == (192, 192, 3) and depth.values.shape == (192, 192) and len(example.things) >= 4
        camera = example.view.camera
        assert (camera.width, camera.height) == (192, 192)
        np.testing.assert_allclose(np.linalg.det(example.view.camera_to_world[:3, :3]), 1, atol=1e-4)
    folder = examples()[0].path.parent
    assert sum(path.stat().st_size for path in folder.iterdir()) < 60_000
