"""Measure the speed of the fundus renderer on one core.

    python benchmarks/render_speed.py [--size 128]

Each round renders the same cases of the training domain. The result is the fastest round. The last
line is one JSON object.
"""

import argparse
import json
import time

import cv2

from vclip_jax.datasets.synthetic.domains import TRAINING_DOMAIN, sample_case
from vclip_jax.datasets.synthetic.render import render


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=128, help="height and width in pixels")
    parser.add_argument("--images", type=int, default=200, help="number of cases in a round")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    cases = [sample_case(TRAINING_DOMAIN, 0, i) for i in range(arguments.images)]
    for case in cases[:10]:  # imports and caches
        render(case, arguments.size)
    seconds = []
    for _ in range(arguments.rounds):
        start = time.perf_counter()
        for case in cases:
            render(case, arguments.size)
        seconds.append(time.perf_counter() - start)
        print(f"{arguments.images / seconds[-1]:.1f} images/s at {arguments.size} px")
    best = min(seconds)
    print(
        json.dumps(
            {
                "size": arguments.size,
                "images": arguments.images,
                "images_per_second": round(arguments.images / best, 1),
                "milliseconds_per_image": round(1e3 * best / arguments.images, 3),
                "threads": 1,
            }
        )
    )


if __name__ == "__main__":
    main()
