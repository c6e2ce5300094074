"""Count how often a model's heat map is highest on the only lesion of an eye.

    python benchmarks/heat_maps.py --model runs/quickstart [--count 100] [--pictures DIR]

The benchmark renders healthy eyes with one lesion each, whose place the renderer knows. It computes
two heat maps: of the lesion's name against healthy words, and of the class "diabetic retinopathy"
of `--prompts` against the other classes. For each kind of lesion it reports:

- hit: the share of eyes whose highest heat lies in the lesion's box, widened by 1/16 of the
  picture;
- chance: the area of that box as a share of the illuminated field;
- healthy: the share of eyes whose highest heat lies in that box without the lesion;
- mass: the share of the positive heat that lies in the box.

`--pictures` writes overlays of the first eyes. The last line is one JSON object.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

import vclip_jax
from vclip_jax.data.images.fit import field_box, fit_square
from vclip_jax.datasets.synthetic import signs
from vclip_jax.datasets.synthetic.case import Case, Myopia, Quality, Retinopathy
from vclip_jax.datasets.synthetic.domains import sample_case
from vclip_jax.datasets.synthetic.render import draw, render
from vclip_jax.predict.heat_maps import Explainer, overlay
from vclip_jax.prompts import PromptSet

LESIONS = {
    "preretinal_haemorrhage": (
        Retinopathy(grade=4, preretinal_haemorrhage=True),
        ("视网膜前出血", "舟状视网膜前出血"),
    ),
    "hard_exudate": (Retinopathy(grade=2, hard_exudates=1), ("硬性渗出", "少量硬性渗出")),
    "neovascular_elsewhere": (
        Retinopathy(grade=4, neovascular_elsewhere=1),
        ("视网膜新生血管", "视网膜新生血管形成"),
    ),
}
"""Name of the mask -> (the only signs of the eye, the words of captions for the lesion)."""
HEALTHY = ("正常眼底", "未见明显异常", "眼底正常")
DISEASE = "diabetic retinopathy"
PICTURES = 6


@dataclass(frozen=True)
class Planted:
    """One eye with and without its lesion, as the model sees it, and the place of the lesion."""

    picture: np.ndarray
    """uint8 RGB `[side, side, 3]`, before the model's preprocessing."""
    square: np.ndarray
    """uint8 RGB `[size, size, 3]`."""
    healthy: np.ndarray
    """uint8 RGB `[size, size, 3]`."""
    box: np.ndarray
    """bool `[size, size]`."""
    field: np.ndarray
    """bool `[size, size]`."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument(
        "--count", type=int, default=100, help="number of eyes for each kind of lesion"
    )
    parser.add_argument("--domain", default="fives_like")
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--prompts", default="zh/fives", help="prompt set with the class")
    parser.add_argument("--pictures", help="folder for overlays")
    options = parser.parse_args()
    clip = vclip_jax.load(options.model)
    prompt_set = clip.prompt_set(options.prompts)
    results: dict[str, dict[str, float]] = {}
    for kind, (_, words) in LESIONS.items():
        planted = list(plant(clip, kind, options))
        asked: dict[str, tuple[PromptSet, int]] = {
            "sign": (clip.prompt_set({"sign": words, "healthy": HEALTHY}), 0),
            "disease": (prompt_set, prompt_set.class_names.index(DISEASE)),
        }
        for question, (question_set, number) in asked.items():
            explain = Explainer(clip, question_set)
            heat = explain(np.stack([p.square for p in planted]), [number] * len(planted))
            without = explain(np.stack([p.healthy for p in planted]), [number] * len(planted))
            figures = score(planted, heat, without)
            results[f"{kind}/{question}"] = figures
            print(f"{kind}/{question}:  " + "  ".join(f"{k} {v:.3f}" for k, v in figures.items()))
            if options.pictures:
                write_pictures(Path(options.pictures), f"{kind}-{question}", planted, heat, clip)
    mean = {
        key: round(float(np.mean([figures[key] for figures in results.values()])), 4)
        for key in ("hit", "chance", "healthy", "mass")
    }
    print(json.dumps({"checkpoint": options.model, "count": options.count, **mean}))


def plant(clip: vclip_jax.Pretrained, kind: str, options: argparse.Namespace) -> Iterator[Planted]:
    """Yield eyes with one lesion that lies within the picture."""
    size, fit = clip.config["data"]["image_size"], clip.config["data"]["fit"]
    side, margin = max(256, size), size // 16
    found = 0
    for healthy in healthy_cases(options.domain, options.seed):
        drawing = draw(replace(healthy, retinopathy=LESIONS[kind][0]), side)
        if kind not in drawing.masks or drawing.masks[kind].sum() < 4:
            continue
        masks = [drawing.masks[kind], drawing.masks["field"]]
        lesion, field = (as_seen(mask, drawing.image, size, fit) for mask in masks)
        rows, columns = np.nonzero(lesion > 64)
        if not len(rows):
            continue
        box = np.zeros((size, size), bool)
        box[
            max(0, rows.min() - margin) : rows.max() + 1 + margin,
            max(0, columns.min() - margin) : columns.max() + 1 + margin,
        ] = True
        yield Planted(
            drawing.image,
            clip.preprocess(drawing.image),
            clip.preprocess(render(healthy, side)),
            box,
            field > 128,
        )
        found += 1
        if found == options.count:
            return


def healthy_cases(domain: str, seed: int) -> Iterator[Case]:
    index = 0
    while True:
        case = sample_case(domain, seed, index)
        if not signs.diseased(case):
            yield replace(case, quality=Quality(), myopia=Myopia())
        index += 1


def as_seen(mask: np.ndarray, image: np.ndarray, size: int, fit: str) -> np.ndarray:
    """Return a mask, uint8 `[size, size]`, fitted as `fit_square` fits the image."""
    if fit == "fundus":
        left, top, right, bottom = field_box(image)
        mask, fit = mask[top:bottom, left:right], "pad"
    return fit_square(np.repeat(255 * mask.astype(np.uint8)[..., None], 3, 2), size, fit)[..., 0]


def score(planted: list[Planted], heat: np.ndarray, without: np.ndarray) -> dict[str, float]:
    boxes = np.stack([p.box for p in planted])
    fields = np.stack([p.field for p in planted])
    positive = np.maximum(heat, 0)
    inside = (positive * boxes).sum((1, 2)) / np.maximum(positive.sum((1, 2)), 1e-12)
    return {
        "hit": hit_rate(boxes, heat),
        "chance": float(((boxes & fields).sum((1, 2)) / fields.sum((1, 2))).mean()),
        "healthy": hit_rate(boxes, without),
        "mass": float(inside.mean()),
    }


def hit_rate(boxes: np.ndarray, heat: np.ndarray) -> float:
    n = len(heat)
    highest = heat.reshape(n, -1).argmax(axis=1)
    return float(boxes.reshape(n, -1)[np.arange(n), highest].mean())


def write_pictures(
    folder: Path, name: str, planted: list[Planted], heat: np.ndarray, clip: vclip_jax.Pretrained
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    fit = clip.config["data"]["fit"]
    photographs = [fit_square(p.picture, 256, fit) for p in planted[:PICTURES]]
    overlays = [overlay(i, h) for i, h in zip(photographs, heat, strict=False)]
    rows = [np.concatenate(row, axis=1) for row in (photographs, overlays)]
    Image.fromarray(np.concatenate(rows)).save(folder / f"{name}.png")


if __name__ == "__main__":
    main()
