"""Every teacher on a tiny random checkpoint in the published layout, read back from its folder."""

from __future__ import annotations

import json
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from gemvlm.curation.depth_teacher import DepthTeacher, load_teacher
from gemvlm.curation.depth_teacher.teacher import folder_hash
from gemvlm.curation.depth_teacher.transformers_models import dpt_size

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
DPT = {
    **IMAGENET, "image_processor_type": "DPTImageProcessor", "do_resize": True, "do_rescale": True,
    "do_normalize": True, "do_pad": False, "ensure_multiple_of": 14, "keep_aspect_ratio": True, "resample": 3,
    "rescale_factor": 1 / 255, "size": {"height": 56, "width": 56}, "size_divisor": None,
}  # fmt: skip


def picture(height, width, seed=0):
    small = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def save(model, folder, settings):
    """Random weights that let the picture show in the output: no layer is scaled away or cut off at zero."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.5 / parameter[0].numel() ** 0.5)
        elif "lambda" in name or name.startswith("head"):
            nn.init.constant_(parameter, 1.0)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def depth_anything(folder, kind="relative", max_depth=1):
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    backbone = Dinov2Config(
        image_size=56, patch_size=14, hidden_size=16, num_hidden_layers=4, num_attention_heads=2, mlp_ratio=2,
        out_indices=[1, 2, 3, 4], reshape_hidden_states=False,
    )  # fmt: skip
    config = DepthAnythingConfig(
        backbone_config=backbone, patch_size=14, reassemble_hidden_size=16, neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=8, head_hidden_size=8, depth_estimation_type=kind, max_depth=max_depth,
    )  # fmt: skip
    return save(DepthAnythingForDepthEstimation(config), folder, DPT)


def depth_pro(folder, use_fov_model=True):
    from transformers import DepthProConfig, DepthProForDepthEstimation, Dinov2Config

    encoder = Dinov2Config(
        image_size=32, patch_size=8, hidden_size=16, num_hidden_layers=4, num_attention_heads=2, mlp_ratio=2,
    ).to_dict()  # fmt: skip
    config = DepthProConfig(
        patch_size=32, fusion_hidden_size=16, intermediate_hook_ids=[2, 0], intermediate_feature_dims=[8, 8],
        scaled_images_ratios=[0.25, 0.5, 1], scaled_images_overlap_ratios=[0.0, 0.5, 0.25],
        scaled_images_feature_dims=[16, 16, 8], merge_padding_value=1, use_fov_model=use_fov_model,
        image_model_config=encoder, patch_model_config=encoder, fov_model_config=encoder,
    )  # fmt: skip
    settings = {**IMAGENET, "size": {"height": 128, "width": 128}, "resample": 2, "do_resize": True}
    return save(DepthProForDepthEstimation(config), folder, settings)


@pytest.fixture(scope="module")
def relative(tmp_path_factory):
    folder = depth_anything(tmp_path_factory.mktemp("teachers") / "Depth-Anything-V2-Small-hf")
    return load_teacher(f"depth-anything-v2:{folder}")


@pytest.fixture(scope="module")
def pro(tmp_path_factory):
    return load_teacher(f"depth-pro:{depth_pro(tmp_path_factory.mktemp('teachers') / 'DepthPro-hf')}")


IMAGES = [picture(60, 80), picture(40, 96, 1), picture(60, 80, 2)]


def check(teacher, maps, kind, licence):
    assert isinstance(teacher, DepthTeacher)
    assert [one.values.shape for one in maps] == [image.shape[:2] for image in IMAGES]
    for one in maps:
        assert one.kind == kind
        assert one.origin.provenance == "teacher"
        assert (one.origin.model, one.origin.weights, one.origin.licence) == (teacher.name, teacher.weights, licence)
        assert one.origin.weights.startswith("sha256:")
        assert one.origin.quality["valid_fraction"] == one.valid.mean()
    assert any(np.ptp(one.values[one.valid]) > 0 for one in maps)


def independent(teacher, focal=None):
    """An image's map has the same bytes alone, in any company and at any place of the batch."""
    together = teacher.predict(IMAGES, focal)
    backwards = teacher.predict(IMAGES[::-1], None if focal is None else focal[::-1])[::-1]
    for i, (one, other) in enumerate(zip(together, backwards, strict=True)):
        (alone,) = teacher.predict([IMAGES[i]], None if focal is None else [focal[i]])
        assert (one.values == alone.values).all()
        assert (other.values == alone.values).all()
    return together


def test_depth_anything_v2_is_disparity(relative):
    maps = independent(relative)
    check(relative, maps, "affine_disparity", "Apache-2.0")
    assert all(one.valid.all() for one in maps)


def test_depth_anything_v2_agrees_with_transformers_own_processor(relative):
    from transformers import AutoModelForDepthEstimation, DPTImageProcessorPil

    processor = DPTImageProcessorPil.from_pretrained(relative.folder)
    model = AutoModelForDepthEstimation.from_pretrained(relative.folder).eval()
    for image, found in zip(IMAGES, relative.predict(IMAGES), strict=True):
        inputs = processor(images=image, return_tensors="pt")
        prepared = relative._prepare(image).values
        assert prepared.shape == tuple(inputs["pixel_values"].shape[1:])
        assert np.abs(prepared - inputs["pixel_values"][0].numpy()).max() < 1e-5
        with torch.inference_mode():
            outputs = model(**inputs)
        theirs = processor.post_process_depth_estimation(outputs, [image.shape[:2]])[0]["predicted_depth"].numpy()
        assert np.abs(found.values - theirs).mean() < 0.05 * max(np.ptp(theirs), 1e-3)


def test_batches_differ_by_rounding_at_most(relative):
    batched = load_teacher(f"depth-anything-v2:{relative.folder}", batch_size=4)
    for one, other in zip(batched.predict(IMAGES), relative.predict(IMAGES), strict=True):
        assert np.allclose(one.values, other.values, atol=1e-5)


def test_depth_anything_v2_metric_is_metres_up_to_its_range(tmp_path):
    folder = depth_anything(tmp_path / "Depth-Anything-V2-Metric-Indoor-Small-hf", "metric", 20)
    teacher = load_teacher(f"depth-anything-v2:{folder}")
    maps = teacher.predict(IMAGES)
    check(teacher, maps, "metric_z", "Apache-2.0")
    assert all(0 < one.values.min() < one.values.max() < 20 for one in maps)


def test_depth_pro_is_metric_and_inverse_to_its_focal_length(pro):
    focal = [70.0, 90.0, 70.0]
    maps = independent(pro, focal)
    check(pro, maps, "metric_z", "LicenseRef-Apple-AMLR")
    for one, other in zip(maps, pro.predict(IMAGES, [2 * f for f in focal]), strict=True):
        inside = (one.values > 1e-3) & (other.values < 5e3)
        assert inside.any()
        assert np.allclose(other.values[inside], 2 * one.values[inside], rtol=1e-4)


def test_depth_pro_agrees_with_the_published_formula(pro):
    """Inverse depth times width / focal length, the focal length from the network's own field of view."""
    from transformers import AutoModelForDepthEstimation

    model = AutoModelForDepthEstimation.from_pretrained(pro.folder).eval()
    for image, found in zip(IMAGES, pro.predict(IMAGES), strict=True):
        with torch.inference_mode():
            out = model(torch.from_numpy(pro._prepare(image).values)[None])
        width = image.shape[1]
        focal = 0.5 * width / torch.tan(0.5 * torch.deg2rad(out.field_of_view.reshape(())))
        inverse = out.predicted_depth[:, None] * width / focal
        theirs = 1 / nn.functional.interpolate(inverse, image.shape[:2], mode="bilinear", antialias=True)[0, 0].clamp(
            1e-4, 1e4
        )
        assert np.median(np.abs(found.values / theirs.numpy() - 1)) < 0.01


def test_depth_pro_without_a_field_of_view_needs_the_focal_length(tmp_path):
    teacher = load_teacher(f"depth-pro:{depth_pro(tmp_path / 'DepthPro', use_fov_model=False)}")
    with pytest.raises(ValueError, match="give focal_px"):
        teacher.predict(IMAGES)
    assert teacher.predict(IMAGES, [70.0] * 3)[0].is_metric


def test_gem_checkpoints_are_teachers():
    from gemvlm.inference.load import shipped_checkpoints

    if "nano" not in shipped_checkpoints():
        pytest.skip("no checkpoint is shipped in this working tree")
    teacher = load_teacher("gem:nano", licence="Apache-2.0", steps=2)
    images = [picture(96, 96, i) for i in range(2)]
    maps = teacher.predict(images)
    assert maps[0].kind == teacher.kind
    assert maps[0].origin.model.startswith("gemvlm ")
    assert np.allclose(maps[1].values, teacher.predict(images[1:])[0].values, rtol=1e-3)


class Network(nn.Module):
    """A network with the two parts and the outputs of Depth Anything 3's: depth is red, sky is blue, views mix."""

    def __init__(self, sky):
        super().__init__()
        self.sky = sky
        self.weight = nn.Parameter(torch.ones(1))

    def backbone(self, x, cam_token=None, export_feat_layers=None):
        assert x.ndim == 5
        assert x.shape[1] == 1, "one view: others would be attended to"
        return [x * self.weight], []

    def head(self, features, height, width, patch_start_idx):
        assert height % 14 == 0 and width % 14 == 0 and max(height, width) == 504
        red, blue = features[0][:, :, 0] * 0.229 + 0.485, features[0][:, :, 2] * 0.225 + 0.406
        return {"depth": 1 + red, **({"sky": (blue > 0.9).float()} if self.sky else {})}

    def forward(self, x):
        raise AssertionError("the published forward fills the sky by chance")


@pytest.fixture
def published(monkeypatch, tmp_path):
    """Stands in for the package: its class reads a folder and has the network as `model`."""

    class DepthAnything3:
        @classmethod
        def from_pretrained(cls, folder):
            made = cls()
            made.model = Network(sky="MONO" in folder or "METRIC" in folder)
            return made

    package, api = types.ModuleType("depth_anything_3"), types.ModuleType("depth_anything_3.api")
    api.DepthAnything3 = DepthAnything3
    monkeypatch.setitem(sys.modules, "depth_anything_3", package)
    monkeypatch.setitem(sys.modules, "depth_anything_3.api", api)

    def folder(name):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(name.encode())
        return tmp_path / name

    return folder


def test_depth_anything_3_is_depth_and_has_none_in_the_sky(published):
    teacher = load_teacher(f"depth-anything-3:{published('DA3MONO-LARGE')}")
    maps = independent(teacher)
    check(teacher, maps, "affine_depth", "Apache-2.0")
    half = np.zeros((60, 80, 3), np.uint8)
    half[:30, :, 2] = 255
    half[30:, :40, 0] = 255
    (depth,) = teacher.predict([half])
    assert not depth.valid[:29].any()
    assert depth.valid[31:].all()
    assert depth.origin.quality["sky"] == pytest.approx(0.5, abs=0.02)
    assert depth.values[45, 20] == pytest.approx(2, abs=0.02)
    assert depth.values[45, 60] == pytest.approx(1, abs=0.02)


def test_depth_anything_3_metric_needs_the_focal_length_at_the_networks_size(published):
    teacher = load_teacher(f"depth-anything-3:{published('DA3METRIC-LARGE')}")
    grey = np.full((60, 80, 3), 51, np.uint8)
    (unscaled,), (metric,) = teacher.predict([grey]), teacher.predict([grey], [100.0])
    assert (unscaled.kind, unscaled.unit) == ("affine_depth", "")
    assert (metric.kind, metric.unit) == ("metric_z", "m")
    assert metric.values == pytest.approx(100.0 * 504 / 80 / 300 * 1.2, rel=1e-3)


def test_licences_and_nested_checkpoints_of_depth_anything_3(published):
    for name, licence in {"DA3-LARGE-1.1": "CC-BY-NC-4.0", "DA3-SMALL": "Apache-2.0", "mine": "unknown"}.items():
        assert load_teacher(f"depth-anything-3:{published(name)}").licence == licence
    with pytest.raises(ValueError, match="nested"):
        load_teacher(f"depth-anything-3:{published('DA3NESTED-GIANT-LARGE')}")


def test_without_its_package_depth_anything_3_says_what_to_install(tmp_path):
    if "depth_anything_3" in sys.modules:
        pytest.skip("the package is installed")
    with pytest.raises(ImportError, match="pip install"):
        load_teacher(f"depth-anything-3:{tmp_path}")


def test_processed_sizes_follow_the_processors_rule():
    from transformers.models.dpt.image_processing_pil_dpt import get_resize_output_image_size

    rng = np.random.default_rng(0)
    for _ in range(200):
        height, width = (int(side) for side in rng.integers(20, 900, 2))
        for keep in (True, False):
            settings = {"size": {"height": 518, "width": 518}, "ensure_multiple_of": 14, "keep_aspect_ratio": keep}
            theirs = get_resize_output_image_size(np.zeros((3, height, width)), (518, 518), keep, 14)
            assert dpt_size(height, width, settings) == (max(14, theirs.height), max(14, theirs.width))


def test_what_is_no_checkpoint_is_named(tmp_path, relative):
    with pytest.raises(ValueError, match="KIND:FOLDER"):
        load_teacher("midas:/x")
    with pytest.raises(ValueError, match=r"config\.json"):
        load_teacher(f"depth-pro:{tmp_path}")
    with pytest.raises(ValueError, match="depth_anything"):
        load_teacher(f"depth-pro:{relative.folder}")
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match="not settings"):
        load_teacher(f"depth-anything-v2:{tmp_path}")
    with pytest.raises(ValueError, match="no weights"):
        folder_hash(tmp_path)
