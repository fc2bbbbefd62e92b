"""A checkpoint folder → its model card, `README.md`: for people, and with the header that model hubs read.

Everything comes from the checkpoint's own description (`gem.json` or `gem_vla.json`), its weights' headers, the recipe
that it names and the set beside its run. What none of them states is "not stated"; no number is made up.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gemvlm.evaluation.table import to_markdown
from gemvlm.evaluation.verify import LICENCE_FILES, NOT_STATED, PACKAGE_LICENCE, coordinate_words, depth_words
from gemvlm.inference.load import shipped_checkpoints
from gemvlm.model.card import CheckpointCard
from gemvlm.model.policy_card import POLICY_FILE, PolicyCard
from gemvlm.recipes import get, get_policy, names
from gemvlm.recipes.recipe import Recipe, TabletopData
from gemvlm.recipes.verify_model import data_licences
from gemvlm.shards import files

README = "README.md"
BY_MACHINE = "<!-- Written by `gemvlm card`, which writes it again as long as this line stands here. -->"
PARTS = {
    "model.visual.": "vision tower",
    "model.language_model.": "language model",
    "lm_head.": "language model",
    "diffusion_connector.": "connector",
    "sana.": "depth generator",
    "head.": "depth generator",
    "vae.": "autoencoder",
    "expert.": "action expert",
}
SPDX = {
    "apache license": "apache-2.0",
    "apache-2.0": "apache-2.0",
    "mit license": "mit",
    "bsd 3-clause": "bsd-3-clause",
}
SMALL = 100e6
"""Below so many parameters a model knows nothing but what it was trained on."""
MOST_LICENCE_BYTES = 1 << 16


def write_model_card(folder: Path) -> Path:
    """Writes `README.md` into a checkpoint's folder. ValueError if a person wrote the one that is there."""
    path = folder / README
    if path.is_file() and BY_MACHINE not in path.read_text(encoding="utf-8", errors="replace"):
        raise ValueError(f"{path}: written by hand (the line {BY_MACHINE!r} is not in it); move it away, or keep it")
    files.put(path, model_card(folder).encode())
    return path


def model_card(folder: Path) -> str:
    """The card of a GEM or of a policy, as Markdown. ValueError if the folder holds neither, or a damaged one."""
    card = PolicyCard.read(folder) if (folder / POLICY_FILE).is_file() else CheckpointCard.read(folder)
    recipe = _recipe(card)
    sizes = parameters(folder)
    licence, said = _licence(folder)
    policy = isinstance(card, PolicyCard)
    about = _policy_about(card) if isinstance(card, PolicyCard) else _gem_about(card)
    parts = [
        _header(licence, policy),
        BY_MACHINE,
        f"# {_title(folder, card)}\n\n{about}",
        "## Load it\n\n" + _loading(folder, policy),
        "## Intended use\n\n" + _use(policy),
        "## Conventions\n\n" + _table(["what", "how"], _conventions(card)),
        "## Parameters\n\n" + _parameters(sizes),
        "## Training\n\n" + _training(card, recipe),
        "## Training data\n\n" + _data(card, recipe),
        "## Scores\n\n" + _scores(card),
        "## Limits\n\n" + _limits(card, sizes, recipe),
        "## Licences\n\n" + _table(["what", "licence"], [["weights", said], *_data_licences(folder, card)]),
        "## Made with\n\n" + _versions(card),
    ]
    return "\n\n".join(parts) + "\n"


def parameters(folder: Path) -> dict[str, int]:
    """Part → how many numbers the weight files hold of it, from their headers alone. ValueError for damaged files."""
    from safetensors import SafetensorError, safe_open

    counts: dict[str, int] = {}
    for path in sorted(folder.glob("model*.safetensors")):
        try:
            with safe_open(path, "np") as tensors:
                for name in tensors.keys():  # noqa: SIM118  # no mapping
                    part = next((part for prefix, part in PARTS.items() if name.startswith(prefix)), "other")
                    counts[part] = counts.get(part, 0) + math.prod(tensors.get_slice(name).get_shape())
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path}: not a file of weights ({error}); copy the checkpoint again") from error
    if not counts:
        raise ValueError(f"{folder}: holds no model*.safetensors; copy the whole checkpoint folder again")
    return counts


def _recipe(card: CheckpointCard) -> Recipe | None:
    """As this version has it; None for a recipe of somebody else's."""
    if card.recipe in names():
        return get(card.recipe)
    try:
        return get_policy(card.recipe)
    except ValueError:
        return None


def _header(licence: str | None, policy: bool) -> str:
    tags = ["robotics", "vision-language-action"] if policy else ["embodied", "depth-estimation", "visual-grounding"]
    lines = [
        "---",
        *([f"license: {licence}"] if licence else []),
        "library_name: gemvlm",
        f"pipeline_tag: {'robotics' if policy else 'image-text-to-text'}",
        "tags:",
        *(f"- {tag}" for tag in ("gem", *tags)),
        "---",
    ]
    return "\n".join(lines)


def _title(folder: Path, card: CheckpointCard) -> str:
    name = folder.resolve().name
    return _plain(card.recipe if name in ("final", "") or re.fullmatch(r"step-\d+", name) else name)


def _gem_about(card: CheckpointCard) -> str:
    return (
        f"A GEM (arXiv 2605.28548; recipe `{_plain(card.recipe)}`): a Qwen3-VL that learnt to answer questions about "
        "images and, from the states of the same image tokens, to paint each image's depth. An independent "
        "implementation's weights, not the authors'."
    )


def _policy_about(card: PolicyCard) -> str:
    robot = f"`{_plain(card.embodiment)}` robot"
    return (
        f"A GEM-VLA (arXiv 2605.28548; recipe `{_plain(card.recipe)}`): a Qwen3-VL with an action expert that drives a "
        f"{robot} in chunks of {card.model.expert.horizon} actions, told in words what to do. An independent "
        "implementation's weights, not the authors'."
    )


def _loading(folder: Path, policy: bool) -> str:
    place = "nano" if folder.resolve() in _shipped() else "FOLDER"
    told = "" if place == "nano" else "\n\n`FOLDER` is this folder, wherever you have put it."
    if policy:
        code = [
            "from gemvlm.inference.policy import load_policy",
            "",
            f'policy = load_policy("{place}")',
            "policy.contract  # cameras, state and actions: compare with your robot's",
        ]
        commands = [f"gemvlm vla serve {place} --port 8000"]
    else:
        code = [
            "import gemvlm",
            "",
            f'gem = gemvlm.load("{place}")',
            'gem.ask("desk.png", "What colour is the mug?").text',
            'gem.depth("desk.png").depth',
        ]
        commands = [
            f'gemvlm ask {place} desk.png "What colour is the mug?"',
            f"gemvlm depth {place} desk.png --out depth",
        ]
    return "```python\n" + "\n".join(code) + "\n```\n\n```sh\n" + "\n".join(commands) + "\n```" + told


def _use(policy: bool) -> str:
    if policy:
        return (
            "Research on robot policies, in simulation and on a robot of exactly the contract below, with its own "
            "limits, its own watchdog and a person at the red button. Not for machines near people, and for no other "
            "robot."
        )
    return (
        "Research on embodied vision-language models: answers, points, boxes and depth of indoor scenes at arm's "
        "length. Not where a wrong answer or a wrong distance can hurt; not for telling who somebody is."
    )


def _conventions(card: CheckpointCard) -> list[list[str]]:
    image = card.image
    side = image["patch_size"] * image["merge_size"]
    rows = [
        ["places in text", coordinate_words(card)],
        ["places in Python", "fractions of width and height, x right, y down"],
        ["images", f"{image['min_pixels']} to {image['max_pixels']} pixels, {side} x {side} to a token"],
    ]
    if not isinstance(card, PolicyCard):
        encoding = card.model.encoding
        painted = f"{card.target['height']} x {card.target['width']}" if card.target else "each image's own size"
        return [*rows, ["depth", depth_words(card)], ["depth encoding", f"`{encoding.name}`, painted at {painted}"]]
    contract = card.contract
    return [
        *rows,
        [
            "cameras",
            ", ".join(contract.cameras)
            + (", mirrored as in published LIBERO data" if contract.image_turn == "half" else ""),
        ],
        ["state", ", ".join(contract.state_names)],
        ["actions", f"{', '.join(contract.action_names)}: {contract.control}, {contract.rate_hz:g} a second"],
        ["rotation; gripper", f"{contract.rotation}; {contract.gripper}"],
        ["normalisation", f"{card.normalisation.method} of {', '.join(card.normalisation.fields)}, in this checkpoint"],
        [
            "a chunk",
            f"{card.model.expert.horizon} actions in {card.flow_steps} flow steps, {card.executed} carried out",
        ],
    ]


def _parameters(sizes: Mapping[str, int]) -> str:
    rows = [[part, f"{count / 1e6:,.2f} M"] for part, count in sizes.items()]
    return _table(["part", "numbers"], [*rows, ["**all**", f"**{sum(sizes.values()) / 1e6:,.2f} M**"]])


def _training(card: CheckpointCard, recipe: Recipe | None) -> str:
    trained = ", ".join(card.trained_groups) or "nothing"
    words = f"Recipe `{_plain(card.recipe)}`, at stage `{_plain(card.stage)}`, step {card.step:,}. Trained: {trained}."
    if recipe is None:
        return words + " The recipe is none of those that this package names."
    rows = [
        [
            stage.name,
            f"{stage.steps:,}",
            str(stage.batch_size),
            ", ".join(f"{weight:g} {name}" for name, weight in stage.loss_weights.items()),
            ", ".join(stage.learning_rates),
        ]
        for stage in recipe.stages
    ]
    place = recipe.start.checkpoint if recipe.start else None
    began = f" It begins with `{_plain(place)}`, unless the run said otherwise." if place else ""
    told = "The recipe as the version of the package has it that wrote this card:"
    return f"{words}{began} {told}\n\n" + _table(["stage", "steps", "samples a step", "losses", "what learns"], rows)


def _data(card: CheckpointCard, recipe: Recipe | None) -> str:
    if isinstance(card, PolicyCard):
        data = card.data
        return (
            f"{data.get('learned', NOT_STATED)} episodes (hash `{data.get('episodes', NOT_STATED)}`), "
            f"{data.get('measured', 0)} more held out to measure errors on."
        )
    if recipe is not None and isinstance(recipe.data, TabletopData):
        scenes, (height, width) = recipe.data.scenes, recipe.data.size
        return (
            f"By its recipe, unless the run was given another set: {scenes:,} simulated tabletop scenes (seeds 0 to "
            f"{scenes - 1:,}), {recipe.data.views_per_scene} view(s) of each, {height} x {width} pixels, with "
            "exact depth."
        )
    return "A set that was given with the run; this checkpoint does not say which."


def _scores(card: CheckpointCard) -> str:
    questions, depth = card.scores.get("questions") or {}, card.scores.get("depth") or {}
    if not questions and not depth:
        command = "gemvlm vla evaluate" if isinstance(card, PolicyCard) else "gemvlm evaluate"
        return f"None are kept with this checkpoint. `{command}` measures it beside those who do not look."
    told = []
    if questions:
        rows = [[name, _interval(row), str(row["n"]), _blind(row.get("blind"))] for name, row in questions.items()]
        told.append(_table(["family, subset", "score [95 %]", "questions", "best blind"], rows))
    if depth:
        blind = card.scores.get("depth_blind") or {}
        rows = [
            [reading, metric, _triple(value), _blind((blind.get(reading) or {}).get(metric))]
            for reading, row in depth.items()
            for metric, value in row.items()
        ]
        told.append("Generated depth, object pixels:\n\n")
        told[-1] += _table(["reading", "measure", "score [95 %]", "best blind"], rows)
    return "\n\n".join(told) + "\n\n*Blind: the best that can be had without looking; – where none was kept.*"


def _limits(card: CheckpointCard, sizes: Mapping[str, int], recipe: Recipe | None) -> str:
    lines = []
    if sum(sizes.values()) < SMALL:
        lines.append("It is small: it knows the words, things and places it was trained on, and nothing else.")
    if recipe is not None and isinstance(recipe.data, TabletopData):
        lines.append("Its recipe shows it simulated tables alone; on photographs expect much less (`gemvlm adapt`).")
    if isinstance(card, PolicyCard):
        lines.append(
            "Its actions mean what the contract says, on that robot; another sign or unit moves an arm wrongly."
        )
        lines.append("It has no notion of obstacles, people or force: limits belong into the robot's own controller.")
    elif card.model.encoding.is_fixed:
        encoding = card.model.encoding
        lines.append(f"Painted depth ends at {encoding.near_m:g} m and {encoding.far_m:g} m; beyond, it is clipped.")
    else:
        lines.append("Painted depth has no unit: no distance can be read from it without known points.")
    if not card.versions.get("commit"):
        lines.append("The commit that it was trained with is not known.")
    elif card.versions["commit"].endswith("+"):
        lines.append("It was trained with code that had changes beyond its commit.")
    lines.append("It can be confidently wrong: an answer carries no probability.")
    return "\n".join(f"- {line}" for line in lines)


def _licence(folder: Path) -> tuple[str | None, str]:
    """A hub's id of the weights' licence, None if no file states one, and the words for people."""
    for name in LICENCE_FILES:
        if (path := folder / name).is_file():
            with path.open(encoding="utf-8", errors="replace") as file:
                text = file.read(MOST_LICENCE_BYTES)
            first = next((line.strip()[:120] for line in text.splitlines() if line.strip()), NOT_STATED)
            return next((own for words, own in SPDX.items() if words in first.lower()), "other"), f"{first} (`{name}`)"
    if folder.resolve() in _shipped():
        return PACKAGE_LICENCE.lower(), PACKAGE_LICENCE
    return None, f"{NOT_STATED}: put a LICENSE file beside the weights before you share them"


def _data_licences(folder: Path, card: CheckpointCard) -> list[list[str]]:
    found = data_licences(folder, card.recipe) or {"data": NOT_STATED}
    return [[_plain(what), _plain(words)] for what, words in found.items()]


def _shipped() -> set[Path]:
    return {path.resolve() for path in shipped_checkpoints().values()}


def _versions(card: CheckpointCard) -> str:
    found = ", ".join(f"{name} {version}" for name, version in sorted(card.versions.items()) if version)
    return (found or NOT_STATED) + f". The machine-readable description is `{type(card).FILE}`."


def _interval(row: Mapping[str, Any]) -> str:
    return _triple((row["mean"], row["low"], row["high"]))


def _triple(values: Sequence[float]) -> str:
    mean, low, high = values
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def _blind(found: Mapping[str, Any] | None) -> str:
    return f"{found['mean']:.3f} ({found['name']})" if found else "–"


def _table(headings: list[str], rows: list[list[str]]) -> str:
    return "\n".join(to_markdown((headings, rows)))


def _plain(text: str) -> str:
    """Words of a file as words of a page: no markup, one line."""
    return re.sub(r"[`<>|\[\]\r\n]+", " ", text).strip()
