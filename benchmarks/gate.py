"""Measure what the gate refuses, and fit its coefficients.

    python benchmarks/gate.py [--photographs DIR] [--count 200]
    python benchmarks/gate.py --fit --photographs DIR

Prints how many pictures are refused, with the reasons, of:

- drawn photographs with a readable and with an unreadable retina, by the renderer's label;
- the photographs in a folder, such as IDRiD's, as they are and made worse;
- some thirty kinds of pictures that are not fundus photographs.

Also prints the areas under the ROC curve for readable against unreadable, of each feature and of
the regression, and milliseconds for each picture. `--fit` first fits the regression to other drawn
photographs, and writes vclip_jax/data/images/gate.json; run it after a change of the renderer.

The last line is one JSON object. The exit status is 1 if a picture of `MUST_REFUSE` is not refused,
or more than `MOST_REFUSED` of the photographs are.
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vclip_jax.data.images import gate
from vclip_jax.data.images.decode import read_rgb
from vclip_jax.datasets.own.named import expand
from vclip_jax.datasets.synthetic.domains import TRAINING_DOMAIN, sample_case
from vclip_jax.datasets.synthetic.render import draw, render
from vclip_jax.datasets.synthetic.signs import shows_macula
from vclip_jax.evaluation.metrics.classification import binary_auc, wilson_interval

Picture = np.ndarray
"""uint8 RGB `[height, width, 3]`."""
MAKES = ("messidor_like", "fives_like", "refuge_like")
"""The domains whose cameras take the drawn photographs, in turn."""
SIZES = (128, 256)
"""The sides of drawn photographs, in turn."""
COEFFICIENTS = Path(gate.__file__).with_name("gate.json")
FIT_SEED, TEST_SEED = 900, 901
MUST_REFUSE = ("black", "white", "noise", "text", "face", "OCT")
"""Kinds of pictures that must all be refused."""
MOST_READABLE_REFUSED = 0.01
"""The share of readable drawn photographs that the fit lets the gate refuse as unreadable."""
MOST_REFUSED = 0.02
"""The largest share of good photographs that may be refused."""


def main() -> int:
    """Run the benchmark, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--photographs", metavar="DIR", help="a folder of good photographs, such as IDRiD's"
    )
    parser.add_argument("--count", type=int, default=200, help="drawn photographs of each kind")
    parser.add_argument("--fit", action="store_true", help="fit and write the coefficients first")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    if options.fit:
        fit(options.count)
    figures: dict[str, Any] = {}
    readable, unreadable = (list(drawn(options.count, TEST_SEED, good)) for good in (True, False))
    figures |= areas(readable, unreadable)
    groups: dict[str, Iterable[Picture]] = {
        "drawn, readable": readable,
        "drawn, unreadable": unreadable,
        "drawn, disc alone": discs(options.count // 4),
    }
    milliseconds: list[float] = []
    if options.photographs:
        real = [read_rgb(path.read_bytes()) for path in expand([options.photographs]).paths]
        some = real[:: max(1, len(real) // 50)]
        groups |= {"photographs": real}
        groups |= {f"photographs, {how}": map(change, some) for how, change in WORSE.items()}
    for name, pictures in groups.items():
        figures[name] = report(name, pictures, milliseconds)
    rng = np.random.default_rng(0)
    missed = []
    for kind, paint in OTHERS.items():
        pictures = [paint(rng) for _ in range(6)]
        pictures += [compressed(picture) for picture in pictures]
        found = report(kind, pictures, milliseconds)
        missed += [kind] if found["refused"] < found["n"] else []
    figures["kinds"], figures["kinds_missed"] = len(OTHERS), missed
    figures["milliseconds"] = round(float(np.median(milliseconds)), 2)
    print(json.dumps(figures))
    failed = [f"{kind} is not always refused" for kind in MUST_REFUSE if kind in missed]
    if options.photographs and figures["photographs"]["refused"] > MOST_REFUSED * len(real):
        failed.append(f"more than {MOST_REFUSED:.0%} of the photographs are refused")
    for reason in failed:
        print(f"error: {reason}", file=sys.stderr)
    return 1 if failed else 0


def report(name: str, pictures: Iterable[Picture], milliseconds: list[float]) -> dict[str, Any]:
    """Print and return how many pictures are refused, and the reasons."""
    why: Counter[str] = Counter()
    n = refused = 0
    for picture in pictures:
        start = time.perf_counter()
        reasons = gate.judge(picture)
        milliseconds.append(1000 * (time.perf_counter() - start))
        n, refused = n + 1, refused + bool(reasons)
        why.update(reasons)
    low, high = wilson_interval(refused, n)
    listed = ", ".join(f"{count} {reason}" for reason, count in why.most_common())
    print(f"{name:32}{refused:4} of {n:4} refused [{low:.3f}, {high:.3f}]  {listed}", flush=True)
    return {"n": n, "refused": refused, "ci95": [round(low, 4), round(high, 4)], "why": dict(why)}


# --- Drawn photographs.


def drawn(count: int, seed: int, readable: bool) -> Iterator[Picture]:
    """Draw photographs with a readable or an unreadable retina, by the renderer's label.

    The eyes are those of the training domain; the cameras are those of the stand-ins, because many
    of the training cameras are worse than any that clinics use.
    """
    index = found = 0
    while found < count:
        case = sample_case(TRAINING_DOMAIN, seed, index)
        index += 1
        if case.quality.retina_readable == readable and shows_macula(case):
            make = replace(case, domain=MAKES[found % len(MAKES)])
            yield render(make, SIZES[found // len(MAKES) % len(SIZES)])
            found += 1


def discs(count: int) -> Iterator[Picture]:
    """Draw optic discs, with half to all of their diameter around them."""
    index = found = 0
    while found < count:
        case = sample_case(TRAINING_DOMAIN, TEST_SEED, index)
        index += 1
        drawing = draw(case, 512)
        rows, columns = np.nonzero(drawing.masks["disc"])
        if not case.quality.retina_readable or len(rows) < 100:
            continue
        reach = round((1.0 + found % 5 / 8) * max(np.ptp(rows), np.ptp(columns)))
        y, x = int(rows.mean()), int(columns.mean())
        crop = drawing.image[max(0, y - reach) : y + reach, max(0, x - reach) : x + reach]
        if min(crop.shape[:2]) < 1.9 * reach:  # cut off by the picture's border
            continue
        yield np.ascontiguousarray(crop)
        found += 1


def table(pictures: Iterable[Picture]) -> np.ndarray:
    return np.array([gate.features(gate.measure(picture)) for picture in pictures])


def fit(count: int) -> None:
    """Fit the coefficients of `gate.readable`, and write them."""
    from sklearn.linear_model import LogisticRegression

    good, bad = (table(drawn(count, FIT_SEED, readable)) for readable in (True, False))
    x, y = np.concatenate([good, bad]), np.repeat([1, 0], [len(good), len(bad)])
    # The ridge applies to standardised features; the weights are for the features themselves.
    mean, spread = x.mean(axis=0), x.std(axis=0)
    found = LogisticRegression(C=1.0).fit((x - mean) / spread, y)
    weights = found.coef_[0] / spread
    content: dict[str, Any] = {
        "made_by": f"python benchmarks/gate.py --fit --count {count}",
        "photographs": len(y),
        "weights": [round(float(weight), 4) for weight in weights],
        "intercept": round(float(found.intercept_[0] - weights @ mean), 4),
    }
    answers = np.sort(found.predict_proba((good - mean) / spread)[:, 1])
    content["least"] = round(float(answers[int(MOST_READABLE_REFUSED * len(answers))]), 4)
    COEFFICIENTS.write_text(json.dumps(content, indent=1) + "\n")
    gate.fitted.cache_clear()
    print(f"{COEFFICIENTS}: {content}")


def areas(readable: list[Picture], unreadable: list[Picture]) -> dict[str, object]:
    """Return the AUC for readable against unreadable, of each feature and of the regression."""
    measures = [gate.measure(picture) for picture in readable + unreadable]
    positive = np.arange(len(measures)) < len(readable)
    x = np.array([gate.features(m) for m in measures])
    names = ("finest", "lines", "length", "shade")
    single = {name: binary_auc(x[:, i], positive) for i, name in enumerate(names)}
    single = {name: round(max(area, 1 - area), 4) for name, area in single.items()}
    together = binary_auc(np.array([gate.readable(m) for m in measures]), positive)
    print(f"readable from unreadable, AUC: {single}, together {together:.4f}")
    return {"auc": {**single, "together": round(together, 4)}}


# --- Photographs made worse.


def blurred(picture: Picture) -> Picture:
    return cv2.GaussianBlur(picture, (0, 0), 0.02 * max(picture.shape))


def half(picture: Picture) -> Picture:
    return np.ascontiguousarray(picture[:, : picture.shape[1] // 2])


def grey(picture: Picture) -> Picture:
    return np.repeat(picture[..., 1:2], 3, axis=2)


def in_a_window(picture: Picture) -> Picture:
    height, width = picture.shape[:2]
    screen = np.full((round(1.3 * height), round(1.3 * width), 3), 235, np.uint8)
    top, left = round(0.2 * height), round(0.1 * width)
    screen[top : top + height, left : left + width] = picture
    return screen


WORSE: dict[str, Callable[[Picture], Picture]] = {
    "blurred (2 % of the side)": blurred,
    "a tenth of the light": lambda picture: picture // 10,
    "the left half": half,
    "green alone, as grey": grey,
    "blue for red": lambda picture: np.ascontiguousarray(picture[..., ::-1]),
    "in a window on a screen": in_a_window,
}


# --- Pictures of something else: functions of a generator.


def flat(*colour: int) -> Picture:
    return np.full((256, 256, 3), colour, np.uint8)


def clouds(rng: np.random.Generator, colour: tuple[float, ...]) -> Picture:
    parts = [
        cv2.resize(rng.random((cells, cells)), (256, 256), interpolation=cv2.INTER_CUBIC) / cells
        for cells in (3, 6, 12, 24, 48)
    ]
    total = np.sum(parts, axis=0)
    light = 0.3 + 0.7 * (total - np.min(total)) / np.ptp(total)
    return (255 * light[..., None] * colour).astype(np.uint8)


def in_a_circle(picture: Picture, diameter: float = 0.95, ground: int = 0) -> Picture:
    mask = np.zeros(picture.shape[:2], np.uint8)
    cv2.circle(mask, (128, 128), round(128 * diameter), 1, -1)
    return np.where(mask[..., None] > 0, picture, np.uint8(ground))


def shaded(rng: np.random.Generator, noise: float = 0.0) -> Picture:
    y, x = np.mgrid[-1:1:256j, -1:1:256j]
    light = 1 - 0.5 * (x * x + y * y) + rng.uniform(-0.2, 0.2) * x
    picture = light[..., None] * (220, 110, 50) + rng.normal(0, noise, (256, 256, 3))
    return np.clip(picture, 0, 255).astype(np.uint8)


def spotted(rng: np.random.Generator) -> Picture:
    picture = shaded(rng)
    cv2.circle(picture, (170, 128), int(rng.integers(12, 24)), (250, 220, 150), -1)
    return in_a_circle(cv2.GaussianBlur(picture, (0, 0), 2))


def page(rng: np.random.Generator, ink: tuple[int, ...], paper: tuple[int, ...]) -> Picture:
    picture = np.full((360, 256, 3), paper, np.uint8)
    for line in range(20, 350, 14):
        words = "".join(rng.choice(list("abcdefghij klmnop qrstuvw xyz "), 40))
        cv2.putText(picture, words, (10, line), cv2.FONT_HERSHEY_SIMPLEX, 0.35, ink, 1, cv2.LINE_AA)
    return picture


def face(rng: np.random.Generator, ground: tuple[int, ...] | None = None) -> Picture:
    picture = flat(*(ground or rng.integers(0, 255, 3)))
    cv2.ellipse(picture, (128, 130), (75, 100), 0, 0, 360, (225, 170, 140), -1, cv2.LINE_AA)
    for x in (98, 158):
        cv2.ellipse(picture, (x, 110), (16, 9), 0, 0, 360, (255, 255, 255), -1, cv2.LINE_AA)
        cv2.circle(picture, (x, 110), 7, (70, 40, 20), -1, cv2.LINE_AA)
        cv2.ellipse(picture, (x, 92), (20, 6), 0, 180, 360, (60, 30, 10), 3, cv2.LINE_AA)
    cv2.line(picture, (133, 115), (123, 150), (180, 120, 100), 3, cv2.LINE_AA)
    cv2.ellipse(picture, (128, 180), (30, 14), 0, 0, 180, (170, 50, 50), 4, cv2.LINE_AA)
    return picture


def smiley(rng: np.random.Generator) -> Picture:
    picture = flat(0, 0, 0)
    yellow = (240, int(rng.integers(120, 180)), 40)
    cv2.circle(picture, (128, 128), 115, yellow, -1, cv2.LINE_AA)
    for x in (90, 166):
        cv2.circle(picture, (x, 100), 12, (40, 20, 0), -1, cv2.LINE_AA)
    cv2.ellipse(picture, (128, 150), (55, 40), 0, 0, 180, (60, 20, 0), 6, cv2.LINE_AA)
    return picture


def layers(rng: np.random.Generator) -> np.ndarray:
    """Draw a section of the retina as in optical coherence tomography, float `[200, 400]`."""
    columns = np.arange(400)
    top = 90 + 15 * np.sin(columns / 90 + rng.uniform(0, 6))
    top += 25 * np.exp(-(((columns - 200) / 40) ** 2))
    depth = np.arange(200)[:, None] - top
    scan = np.zeros((200, 400))
    edges = (
        (0, 6, 0.8),
        (12, 22, 0.5),
        (26, 32, 0.35),
        (36, 46, 0.55),
        (50, 55, 0.95),
        (58, 72, 0.5),
    )
    for first, last, light in edges:
        scan[(depth >= first) & (depth < last)] = light
    speckle = rng.gamma(4, 0.25, scan.shape)
    return np.clip(
        cv2.GaussianBlur(scan, (0, 0), 1.2) * speckle + 0.05 * rng.random(scan.shape), 0, 1
    )


def oct_grey(rng: np.random.Generator) -> Picture:
    return np.repeat((255 * layers(rng)[..., None]).astype(np.uint8), 3, axis=2)


def oct_coloured(rng: np.random.Generator) -> Picture:
    coloured = cv2.applyColorMap((255 * layers(rng)).astype(np.uint8), cv2.COLORMAP_HOT)
    return np.ascontiguousarray(coloured[..., ::-1])


def sunset(rng: np.random.Generator) -> Picture:
    y, x = np.mgrid[0:200, 0:300]
    sky = np.stack([255 - 60 * y / 200, 140 - 100 * y / 200, 60 - 20 * y / 200], axis=-1)
    sun = np.exp(-((np.hypot(x - rng.uniform(80, 220), y - 110) / 40) ** 2))
    sky += sun[..., None] * (60, 120, 80)
    sky[140:] = 0.45 * sky[140:] + rng.normal(0, 12, (60, 300, 1))
    return np.clip(sky, 0, 255).astype(np.uint8)


def coin(rng: np.random.Generator, metal: tuple[float, ...]) -> Picture:
    relief = np.zeros((256, 256), np.uint8)
    cv2.ellipse(relief, (120, 130), (40, 60), 0, 0, 360, 255, -1)
    cv2.circle(relief, (135, 95), 25, 255, -1)
    for place in range(10):
        at = (int(118 + 85 * np.cos(0.6 * place)), int(135 + 85 * np.sin(0.6 * place)))
        cv2.putText(relief, "EURO1"[place % 5], at, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 255, 2)
    height = cv2.GaussianBlur(relief / 255.0, (0, 0), 1.5)
    light = (
        0.5 + 0.6 * (height - np.roll(height, (2, 2), (0, 1))) + rng.normal(0, 0.02, height.shape)
    )
    return in_a_circle(np.clip(255 * light[..., None] * metal, 0, 255).astype(np.uint8), 0.82)


def screen(rng: np.random.Generator) -> Picture:
    picture = np.full((240, 380, 3), 240, np.uint8)
    picture[:18], picture[18:, :70] = (50, 60, 90), (220, 222, 228)
    for row in range(8):
        cv2.rectangle(picture, (8, 30 + 24 * row), (60, 42 + 24 * row), (150, 155, 170), -1)
    for tile in range(5):
        colour = tuple(map(int, rng.integers(40, 220, 3)))
        cv2.rectangle(picture, (90 + 55 * tile, 40), (135 + 55 * tile, 100), colour, -1)
    for row in range(8):
        at = (90, 125 + 14 * row)
        cv2.putText(picture, "Lorem ipsum dolor", at, cv2.FONT_HERSHEY_SIMPLEX, 0.35, (30,) * 3, 1)
    return picture


def planet(rng: np.random.Generator, colour: tuple[float, ...]) -> Picture:
    picture = clouds(rng, colour)
    for _ in range(60):
        at = tuple(map(int, rng.integers(30, 226, 2)))
        ring = tuple(int(rng.uniform(0.4, 1) * 200 * part) for part in colour)
        cv2.circle(picture, at, int(rng.integers(2, 10)), ring, 1)
    return in_a_circle(picture, 0.8)


def iris(rng: np.random.Generator) -> Picture:
    y, x = np.mgrid[-1:1:256j, -1:1:256j]
    distance, angle = np.hypot(x, y), np.arctan2(y, x)
    light = 0.4 + 0.5 * (0.5 + 0.3 * np.sin(60 * angle + rng.uniform(0, 6))) * rng.uniform(0.8, 1)
    picture = 255 * light[..., None] * (0.55, 0.35, 0.2)
    picture[distance < 0.3], picture[distance > 0.9] = 8, (235, 225, 220)
    return np.clip(picture, 0, 255).astype(np.uint8)


def leaf(rng: np.random.Generator, body: tuple[int, ...], veins: tuple[int, ...]) -> Picture:
    picture = flat(*body)
    cv2.line(picture, (128, 10), (128, 246), veins, 4)
    for y in range(20, 240, int(rng.integers(11, 18))):
        for x in (20, 236):
            cv2.line(picture, (128, y), (x, y - 40), veins, 2, cv2.LINE_AA)
    return picture


def board(rng: np.random.Generator) -> Picture:
    cells = np.kron(np.indices((8, 8)).sum(axis=0) % 2, np.ones((32, 32)))
    return (cells[..., None] * (230, int(rng.integers(90, 140)), 60)).astype(np.uint8)


def fruit(rng: np.random.Generator) -> Picture:
    picture = shaded(rng, noise=6)
    for _ in range(300):
        cv2.circle(picture, tuple(map(int, rng.integers(10, 246, 2))), 1, (170, 80, 30), -1)
    return in_a_circle(cv2.GaussianBlur(picture, (0, 0), 0.8), 0.9, int(rng.integers(0, 255)))


def hand(rng: np.random.Generator) -> Picture:
    picture = flat(90, 80, 75)
    cv2.ellipse(picture, (128, 190), (70, 60), 0, 0, 360, (215, 160, 130), -1)
    for finger, degrees in enumerate((-40, -15, 5, 25, 55)):
        turn = np.deg2rad(degrees - 90)
        tip = (int(72 + 14 * finger + 110 * np.cos(turn)), int(160 + 110 * np.sin(turn)))
        cv2.line(picture, (100 + 14 * finger, 160), tip, (215, 160, 130), 22, cv2.LINE_AA)
    soft = cv2.GaussianBlur(picture, (0, 0), 1.5) + rng.normal(0, 4, picture.shape)
    return np.clip(soft, 0, 255).astype(np.uint8)


def angiogram(rng: np.random.Generator) -> Picture:
    """Draw bright vessels in a grey picture, as in fluorescein angiography."""
    index = int(rng.integers(1000))
    picture = render(sample_case(TRAINING_DOMAIN, TEST_SEED, index), 256)
    green, field = picture[..., 1].astype(np.float32), picture.max(axis=2) > 16
    light = np.clip(90 + 3 * (cv2.GaussianBlur(green, (0, 0), 12) - green), 0, 255) * field
    return np.repeat(light[..., None].astype(np.uint8), 3, axis=2)


def compressed(picture: Picture) -> Picture:
    """Return a picture as a slightly soft JPEG."""
    soft = cv2.GaussianBlur(picture, (0, 0), 0.7)
    _, code = cv2.imencode(".jpg", soft, [cv2.IMWRITE_JPEG_QUALITY, 80])
    return np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR), np.uint8)


OTHERS: dict[str, Callable[[np.random.Generator], Picture]] = {
    "black": lambda rng: flat(*[int(rng.integers(6))] * 3),
    "white": lambda rng: flat(*[int(rng.integers(245, 256))] * 3),
    "grey": lambda rng: flat(*[int(rng.integers(40, 220))] * 3),
    "orange": lambda rng: flat(200, int(rng.integers(60, 120)), int(rng.integers(10, 60))),
    "noise": lambda rng: rng.integers(0, 256, (256, 256, 3), np.uint8),
    "grey noise": lambda rng: np.repeat(rng.integers(0, 256, (256, 256, 1), np.uint8), 3, 2),
    "clouds": lambda rng: clouds(rng, tuple(rng.uniform(0.2, 1, 3))),
    "red clouds": lambda rng: clouds(rng, (0.9, 0.5, 0.25)),
    "red clouds in a circle": lambda rng: in_a_circle(clouds(rng, (0.9, 0.5, 0.25))),
    "red disc": lambda rng: in_a_circle(flat(200, int(rng.integers(60, 120)), 40)),
    "red disc, shaded": lambda rng: in_a_circle(shaded(rng)),
    "red disc, noisy": lambda rng: in_a_circle(shaded(rng, noise=10)),
    "red disc with a spot": spotted,
    "text": lambda rng: page(rng, (20, 20, 20), (255, 255, 255)),
    "text, white on black": lambda rng: page(rng, (235, 235, 235), (0, 0, 0)),
    "text on sepia": lambda rng: page(rng, (19, 15, 10), (242, 191, 128)),
    "face": face,
    "face on black": lambda rng: face(rng, (0, 0, 0)),
    "smiley": smiley,
    "OCT": oct_grey,
    "OCT in false colours": oct_coloured,
    "sunset": sunset,
    "copper coin": lambda rng: coin(rng, (1.2, 0.8, 0.5)),
    "silver coin": lambda rng: coin(rng, (1.0, 1.0, 1.0)),
    "screenshot": screen,
    "dark screenshot": lambda rng: 255 - screen(rng),
    "moon": lambda rng: planet(rng, (0.9, 0.9, 0.9)),
    "Mars": lambda rng: planet(rng, (0.9, 0.55, 0.35)),
    "iris": iris,
    "leaf": lambda rng: leaf(rng, (40, 120, 40), (120, 180, 90)),
    "red leaf": lambda rng: leaf(rng, (120, 40, 40), (180, 120, 90)),
    "checkerboard": board,
    "fruit": fruit,
    "hand": hand,
    "angiogram": angiogram,
}

if __name__ == "__main__":
    sys.exit(main())
