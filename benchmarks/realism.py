"""How far drawn photographs are from real ones: `python benchmarks/realism.py --source DIR`.

Healthy eyes are compared with healthy eyes: the photographs of one class of a dataset (IDRiD's
grade 0 by default) with drawings without disease, all as a model gets them. Of every picture about
seventy plain statistics are taken: colour, light over the field, smoothness, spectra, and the same
after `enhance`. Nothing in them needs to know where disc and fovea lie, and all keep off the rim,
whose shape alone would tell one camera from another. Reported are

- quantiles of each statistic, real beside drawn, and `outside`: the share of real pictures that lie
  outside of the middle 98 % of the drawn ones (about .02 where the drawings cover them);
- AUC: how well a forest of trees tells real from drawn, out of bag. 0.5 would be alike; one make
  of camera among drawings of many is never quite that;
- covered: the share of real pictures that have a drawing as near as a drawing has its own third
  neighbour (the recall of Kynkäänniemi et al., "Improved precision and recall metric for assessing
  generative models", NeurIPS 2019, with these statistics in place of a network's).

`--sheet FILE` writes pictures of both, and what `enhance` makes of them. The last line is one JSON
object. It chooses between renderers; no real pixel is ever trained on.
"""

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import QuantileTransformer

from vclip_jax.data.images.decode import decode_whole
from vclip_jax.data.images.enhance import enhance
from vclip_jax.data.images.field import field_mask
from vclip_jax.datasets.catalog import DATASETS
from vclip_jax.datasets.formats import blobs
from vclip_jax.datasets.synthetic import signs
from vclip_jax.datasets.synthetic.domains import TRAINING_DOMAIN, sample_case
from vclip_jax.datasets.synthetic.record import record

SIZE = 128
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
RINGS = ((0.0, 0.2), (0.2, 0.5), (0.5, 0.75), (0.75, 0.92))
"""Distances from the field's centre in units of its radius."""
BANDS = (0.7, 1.4, 2.8, 5.6, 11.2)
"""Standard deviations in pixels, between which lie the octaves of a spectrum."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", required=True, help="folder of the real photographs")
    parser.add_argument("--dataset", default="idrid", help="whose layout it is")
    parser.add_argument("--label", type=int, default=0, help="the class that is healthy")
    parser.add_argument("--domain", default=TRAINING_DOMAIN)
    parser.add_argument("--seed", type=int, default=900)
    parser.add_argument("--images", type=int, default=500, help="drawings")
    parser.add_argument("--sheet", type=Path, help="write pictures here, as a PNG")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    real = photographs(options.dataset, options.source, options.label)
    drawn = drawings(options.domain, options.seed, options.images)
    print(json.dumps(compare(real, drawn)))
    if options.sheet:
        write_sheet(options.sheet, real, drawn)


def photographs(dataset: str, source: str, label: int) -> list[np.ndarray]:
    """The photographs of one class as a model gets them, uint8 `[SIZE, SIZE, 3]` each."""
    listing = DATASETS[dataset].scan(source)
    chosen = [item for item in listing.items if item.label == label]
    return [as_seen(blobs.read(item.image)) for item in chosen]


def drawings(domain: str, seed: int, count: int) -> list[np.ndarray]:
    """The first `count` drawings of eyes without disease."""
    found, index = list[np.ndarray](), 0
    while len(found) < count:
        if not signs.diseased(sample_case(domain, seed, index)):
            found.append(as_seen(record(domain, SIZE, seed, index)["image"]))
        index += 1
    return found


def as_seen(data: bytes) -> np.ndarray:
    """An encoded photograph, cropped to its field."""
    return decode_whole(data, SIZE, "fundus", "exact", key="photograph")


def compare(real: list[np.ndarray], drawn: list[np.ndarray]) -> dict[str, float]:
    """Print the table of statistics, and return the figures that sum it up."""
    tables = [[statistics(image) for image in images] for images in (real, drawn)]
    names = list(tables[0][0])
    left, right = (np.array([list(row.values()) for row in table]) for table in tables)
    low, high = np.quantile(right, (0.01, 0.99), axis=0)
    outside = ((left < low) | (left > high)).mean(0)
    ticks = "  ".join(f"{q:5.2f}" for q in QUANTILES)
    print(f"{'statistic':24}  real: {ticks}    drawn: {ticks}  outside")
    for k, name in enumerate(names):
        shown = (np.quantile(x[:, k], QUANTILES) for x in (left, right))
        r, d = ("  ".join(f"{v:5.2f}" for v in values) for values in shown)
        print(f"{name:24}        {r}           {d}  {outside[k]:5.2f}")
    both = np.concatenate([left, right])
    truth = np.repeat([1, 0], [len(left), len(right)])
    forest = RandomForestClassifier(
        500, min_samples_leaf=3, oob_score=True, class_weight="balanced", random_state=0
    ).fit(both, truth)
    telling = np.argsort(-forest.feature_importances_)[:8]
    print("most telling:", ", ".join(names[k] for k in telling))
    scale = QuantileTransformer(output_distribution="normal", n_quantiles=100).fit(right)
    a, b = scale.transform(left), scale.transform(right)
    near = NearestNeighbors().fit(b)
    radius = near.kneighbors(b, 4)[0][:, -1]
    distance, place = near.kneighbors(a, 20)
    return {
        "real": len(left),
        "drawn": len(right),
        "auc": round(float(roc_auc_score(truth, forest.oob_decision_function_[:, 1])), 4),
        "covered": round(float((distance <= radius[place]).any(1).mean()), 4),
        "outside_mean": round(float(outside.mean()), 4),
        "outside_most": round(float(outside.max()), 4),
    }


def statistics(image: np.ndarray) -> dict[str, float]:
    """Plain statistics of one picture, uint8 `[SIZE, SIZE, 3]`."""
    whole = field_mask(image)
    x, y, w, h = cv2.boundingRect(whole)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    radius = max(w, h) / 2
    far = np.hypot(columns - x - w / 2 + 0.5, rows - y - h / 2 + 0.5) / radius
    inner = cv2.erode(whole, np.ones((9, 9), np.uint8), borderValue=0).astype(bool) & (far < 0.92)
    return {
        **_colour(image[inner]),
        **_light(image, inner, far, (columns - x - w / 2) / radius, (rows - y - h / 2) / radius),
        **_spectrum("raw", np.log(image.astype(np.float32) + 12), inner),
        **_local(image, inner, far),
    }


def _colour(lit: np.ndarray) -> dict[str, float]:
    red, green, blue = (float(v) for v in np.median(lit, 0))
    return {
        "red": red,
        "green": green,
        "blue": blue,
        "green/red": green / max(red, 1),
        "blue/green": blue / max(green, 1),
        "blue below 6": float((lit[:, 2] < 6).mean()),
        "red above 250": float((lit[:, 0] > 250).mean()),
        "darkest tenth": float(np.quantile(lit[:, 0], 0.1)),
    }


def _smooth(values: np.ndarray, inner: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian means over the field alone, `[SIZE, SIZE, channels]`."""
    weight = inner.astype(np.float32)
    total = cv2.GaussianBlur(weight, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT)
    summed = cv2.GaussianBlur(
        values * weight[..., None], (0, 0), sigma, borderType=cv2.BORDER_CONSTANT
    )
    return np.asarray(summed / np.maximum(total, 1e-3)[..., None])


def _light(
    image: np.ndarray, inner: np.ndarray, far: np.ndarray, x: np.ndarray, y: np.ndarray
) -> dict[str, float]:
    """Light and colour over the field: rings, slopes, and what is left of them."""
    log = np.log(image.astype(np.float32) + 12)
    low = _smooth(log, inner, 0.06 * SIZE)
    found = {}
    means = [log[inner & (far >= a) & (far < b)].mean(0) for a, b in RINGS]
    for place, mean in zip(("centre", "mid", "rim"), (means[0], means[2], means[3]), strict=True):
        for name, value in zip("RGB", mean - means[1], strict=True):
            found[f"{place} {name}"] = float(value)
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], -1)[inner]
    fit, *_ = np.linalg.lstsq(terms, low[inner], rcond=None)
    rest = low[inner] - terms @ fit
    for c, name in enumerate("RGB"):
        found[f"slope {name}"] = float(np.hypot(*fit[1:3, c]))
        found[f"unevenness {name}"] = float(rest[:, c].std())
    found["red-green field"] = float((low[inner][:, 0] - low[inner][:, 1]).std())
    found["green-blue field"] = float((low[inner][:, 1] - low[inner][:, 2]).std())
    return found


def _spectrum(name: str, values: np.ndarray, inner: np.ndarray) -> dict[str, float]:
    """Standard deviation by octave, of brightness and of colour, in hundredths."""
    opponents = np.stack(
        [values[..., 1], values[..., 0] - values[..., 1], values[..., 1] - values[..., 2]], -1
    )
    blurred = [opponents, *(_smooth(opponents, inner, s) for s in BANDS)]
    found = {}
    for k in range(len(BANDS)):
        band = (blurred[k] - blurred[k + 1])[inner]
        for c, kind in enumerate(("G", "R-G", "G-B")):
            found[f"{name} {kind} octave {k}"] = 100 * float(band[:, c].std())
    return found


def _local(image: np.ndarray, inner: np.ndarray, far: np.ndarray) -> dict[str, float]:
    """What is left after `enhance`, in units of its mean deviation."""
    local = (enhance(image).astype(np.float32) - 128) / 32
    found = {}
    for place, (a, b) in zip(("centre", "around", "mid", "rim"), RINGS, strict=True):
        part = local[inner & (far >= a) & (far < b)]
        for c, name in enumerate("RGB"):
            found[f"local {place} {name}"] = float(part[:, c].mean())
    lit = local[inner]
    together = np.corrcoef(lit.T + 1e-6 * np.arange(len(lit)))
    found["local R with G"], found["local G with B"] = float(together[0, 1]), float(together[1, 2])
    blurred = [_smooth(local, inner, s) for s in (0.7, 1.4, 2.8, 5.6)]
    for k in range(3):
        band = (blurred[k] - blurred[k + 1])[inner]
        for c, name in enumerate("RGB"):
            spread = band[:, c].std()
            found[f"local {name} octave {k + 1}"] = float(spread)
            found[f"skew {name} octave {k + 1}"] = float(
                ((band[:, c] - band[:, c].mean()) ** 3).mean() / max(spread, 1e-3) ** 3
            )
    return found


def write_sheet(path: Path, real: list[np.ndarray], drawn: list[np.ndarray], n: int = 24) -> None:
    """Rows of real and drawn pictures, each above what `enhance` makes of it."""
    rng = np.random.default_rng(0)
    rows = []
    for images in (real, drawn):
        chosen = [images[k] for k in rng.permutation(len(images))[:n]]
        for start in range(0, len(chosen), 12):
            part = chosen[start : start + 12]
            rows += [np.hstack(part), np.hstack([enhance(image) for image in part])]
    cv2.imwrite(str(path), cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR))


if __name__ == "__main__":
    main()
