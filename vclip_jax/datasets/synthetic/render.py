"""Paint the colour fundus photograph of a `Case`.

The eye is laid out in degrees (`geometry`), painted layer by layer from the choroid to the vitreous
on a canvas of log reflectances (`background`, `disc`, `vessels` and the lesions), and photographed
(`camera`, `optics`). All randomness comes from the case, in numbered streams that are drawn before
anything depends on the resolution, so a case is the same eye at any size.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from vclip_jax.datasets.synthetic import (
    background,
    choroid,
    disc,
    macula,
    optics,
    retinopathy,
    signs,
    vascular,
    vessels,
)
from vclip_jax.datasets.synthetic.camera import Camera
from vclip_jax.datasets.synthetic.cameras import sample_camera
from vclip_jax.datasets.synthetic.case import Case
from vclip_jax.datasets.synthetic.geometry import Eye, Stream, View, sample_eye, stream
from vclip_jax.datasets.synthetic.marks import Canvas

_LEAST_CANVAS = 112
_ARTERY = (-0.07, -0.48, -0.36)
_VEIN = (-0.18, -0.74, -0.50)
_REFLEX = (0.12, 0.24, 0.18)


@dataclass(frozen=True)
class Drawing:
    """A rendered case with its ground truth."""

    image: np.ndarray
    """uint8 RGB [height, width, 3]."""
    masks: dict[str, np.ndarray]
    """bool [height, width] each: "field", "disc", "cup", "arteries", "veins" and one for every kind
    of lesion in the case, cut off at the field's border.
    """


def render(case: Case, height: int, width: int | None = None) -> np.ndarray:
    """Photograph `case`.

    Args:
        case: the eye.
        height: height of the picture in pixels, at least 16.
        width: width of the picture, `height` by default. A camera's wider frame is cut at its sides
            or, with some cameras of the training domain, padded with black above and below.

    Returns:
        uint8 RGB [height, width, 3], a function of the arguments alone.
    """
    return _draw(case, height, width)[0]


def draw(case: Case, height: int, width: int | None = None) -> Drawing:
    """Photograph `case` as `render` does, and return the masks of the painted kinds too."""
    image, canvas, camera, view = _draw(case, height, width)
    exposed = optics.field_of_view(camera, view) > 0.5
    masks = {"field": exposed}
    for kind, cover in canvas.masks.items():
        small = cv2.resize(cover, (view.width, view.height), interpolation=cv2.INTER_AREA)
        masks[kind] = (small > 0.25 if kind not in ("disc", "cup") else small > 0.5) & exposed
    return Drawing(image, masks)


def _draw(case: Case, height: int, width: int | None) -> tuple[np.ndarray, Canvas, Camera, View]:
    width = height if width is None else width
    if min(height, width) < 16:
        raise ValueError(f"cannot render {height}x{width} pixels: each side must be at least 16")
    rng = stream(case, Stream.CAMERA)
    camera = sample_camera(case.domain, rng)
    if not signs.shows_macula(case) and rng.random() < 0.6:
        # Datasets of discs often hold crops, without the aperture's edge.
        camera = replace(camera, aperture=1.5)
    eye = sample_eye(case)
    fine = -(-_LEAST_CANVAS // max(height, width))
    canvas = Canvas(_view(case, eye, camera, height * fine, width * fine))
    paint(canvas, case, eye)
    light = optics.illuminate(canvas.log, case, camera, canvas.view)
    if fine > 1:
        light = np.stack(
            [cv2.resize(p, (width, height), interpolation=cv2.INTER_AREA) for p in light]
        )
    view = _view(case, eye, camera, height, width)
    return optics.photograph(light, case, camera, view), canvas, camera, view


def _view(case: Case, eye: Eye, camera: Camera, height: int, width: int) -> View:
    # The frame's height in pixels: that of the picture unless the frame is padded.
    frame = min(height, width / camera.aspect) if camera.padded else height
    half = np.array([camera.aspect * frame / 2, frame / 2])
    middle = np.array([width / 2, height / 2])
    return View(
        height=height,
        width=width,
        centre=middle + np.array(camera.offset) * frame,
        radius=camera.aperture * frame / 2,
        box=(*(middle - half), *(middle + half)),
        gaze=eye.gaze,
        roll=eye.roll,
        mirror=case.eye == "left",
        degrees=case.field_of_view,
    )


def paint(canvas: Canvas, case: Case, eye: Eye) -> None:
    """Paint the retina of `case` from the choroid to the vitreous."""
    background.paint(canvas, case, eye)
    choroid.paint_deep(canvas, case, eye)
    macula.paint_deep(canvas, case, eye)
    disc.paint(canvas, case, eye)
    retinopathy.paint_deep(canvas, case, eye)
    vascular.paint_deep(canvas, case, eye)

    tree = vascular.nick_veins(vessels.grow(case, eye, canvas.view.scale), case, eye)
    if case.epiretinal_membrane:
        pull = case.epiretinal_membrane
        tree = [replace(part, points=macula.drag(part.points, pull)) for part in tree]
    arteries, veins, reflex = vessels.draw(tree, canvas.view)
    # Against the bright disc the reflections of the vessel walls brighten the columns of blood.
    lift = 1 - np.float32(0.35) * canvas.masks["disc"]
    arteries, veins = arteries * lift, veins * lift
    canvas.absorb("arteries", arteries, _ARTERY)
    canvas.absorb("veins", veins, _VEIN)
    canvas.absorb(None, reflex, _REFLEX)
    background.paint_surface(canvas, np.maximum(arteries, veins), case)

    disc.paint_over(canvas, case, eye)
    vascular.paint_over(canvas, case, eye)
    retinopathy.paint_over(canvas, case, eye)
    macula.paint_over(canvas, case, eye)
