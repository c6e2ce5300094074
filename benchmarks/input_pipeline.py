"""Compare the images per second of Chinese-CLIP's loader, a plain PyTorch loader, and ours.

    python benchmarks/input_pipeline.py [--source FOLDER] [--vocab PATH] [--workers 0]

Install the [parity] extra and lmdb. All sides read the same JPEG files (quality 90, 4:2:0, square
and rendered unless --source gives photographs) for training at 224 px without augmentation, in
random order, with tokenized Chinese captions:

    cn_clip            Chinese-CLIP's own LMDB, built by its script, its dataset class and loader
    torch_imagefolder  torchvision's ImageFolder and transforms (Pillow), a Rust tokenizer
    ours_originals     `train_batches(decode="fast")` on a TFDS dataset of the same files
    ours_stored        the same on a TFDS dataset of 256 px (longest side, JPEG quality 92, 4:4:4),
                       as built for models of 224 px; made once, not timed
    ours_exact         like ours_originals, but with the recipe's own pixels

Each side delivers the input of its model: float32, normalised, channels first for PyTorch; uint8,
channels last for ours, whose model normalises on the device. With --workers 0 each side works in
one process, which is cheapest for PyTorch; ours uses one thread besides the thread that takes the
batches. Otherwise each side uses that many processes (ours: threads).

Rounds of the sides alternate. The results are medians, in images per CPU second of all processes of
a side (that is, per core) and per second of wall time. The last line is one JSON object: images per
core of the 1024 px files; of the 512 px files under "512"; of the 256 px files, read by every side,
under "stored"; and wall times and ratios. CPU time is read from /proc, so this runs on Linux only.
"""

import argparse
import base64
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from vclip_jax.devices import cores

SIZE = 224
CONTEXT_LENGTH = 52
BATCH = 64
SIDES = (1024, 512)
STORED = 256
MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
# More than a thousand pairs: Grain's shuffling takes 0.01 ms an image for large datasets, but 0.1
# to 0.8 ms for smaller ones, which nobody trains on.
PAIRS = 2048
IMPLEMENTATIONS = ("cn_clip", "torch_imagefolder", "ours", "ours_exact")


# --- The files, in the form of each side.


def prepare(folder: Path, images: int, source: str) -> None:
    """Write every form of the data to `folder`, once."""
    done = folder / "done"
    if done.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    captions = {}
    for side in SIDES:
        print(f"making {images} files of {side} px in {folder}", flush=True)
        names = []
        for index, (original, caption) in enumerate(photographs(side, images, source)):
            name = f"{index:05}"
            names.append(name)
            captions[name] = caption
            for form, data in ((str(side), original), (f"{side}-stored", stored(original))):
                path = folder / form / "files" / "all" / f"{name}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
        for form in (str(side), f"{side}-stored"):
            write_lmdb(folder / form, names, captions)
            write_tfds(folder / form, names, captions)
    (folder / "captions.json").write_text(json.dumps(captions, ensure_ascii=False))
    done.touch()


def photographs(side: int, count: int, source: str) -> Iterator[tuple[bytes, str]]:
    """Yield JPEGs with a longest side of `side`, and captions."""
    import simplejpeg

    from vclip_jax.data.images.decode import read_rgb
    from vclip_jax.datasets.synthetic.caption import caption
    from vclip_jax.datasets.synthetic.domains import TRAINING_DOMAIN, sample_case
    from vclip_jax.datasets.synthetic.render import render

    paths = sorted(Path(source).rglob("*.jpg"))[:count] if source else []
    if source and not paths:
        raise SystemExit(f"no .jpg files in {source}")
    for index in range(len(paths) or count):
        case = sample_case(TRAINING_DOMAIN, 0, index)
        if source:
            pixels = read_rgb(paths[index].read_bytes(), key=str(paths[index]))
            pixels = bounded(pixels, side)
        else:
            pixels = render(case, side)
        yield simplejpeg.encode_jpeg(pixels, 90, "RGB", "420"), caption(case)


def stored(original: bytes) -> bytes:
    """Return a file as a dataset of `STORED` px stores it."""
    import simplejpeg

    from vclip_jax.data.images.decode import read_rgb

    return simplejpeg.encode_jpeg(bounded(read_rgb(original), STORED), 92, "RGB", "444")


def bounded(pixels: Any, side: int) -> Any:
    """Scale down to a longest side of `side`, if the image is larger."""
    import cv2

    scale = side / max(pixels.shape[:2])
    if scale >= 1:
        return pixels
    height, width = (round(n * scale) for n in pixels.shape[:2])
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)


def write_lmdb(folder: Path, names: list[str], captions: dict[str, str]) -> None:
    """Write Chinese-CLIP's TSV and JSONL, and its LMDB with its own script."""
    with open(folder / "train_imgs.tsv", "w", encoding="utf-8") as file:
        for number, name in enumerate(names):
            data = (folder / "files" / "all" / f"{name}.jpg").read_bytes()
            file.write(f"{number}\t{base64.b64encode(data).decode()}\n")
    with open(folder / "train_texts.jsonl", "w", encoding="utf-8") as file:
        for pair in range(PAIRS):
            number = pair % len(names)
            text = {"text_id": pair, "text": captions[names[number]], "image_ids": [number]}
            file.write(json.dumps(text, ensure_ascii=False) + "\n")
    script = [sys.executable, "-m", "cn_clip.preprocess.build_lmdb_dataset", "--splits", "train"]
    subprocess.run([*script, "--data_dir", str(folder)], check=True, capture_output=True)


def write_tfds(folder: Path, names: list[str], captions: dict[str, str]) -> None:
    """Write a dataset for `open_source`."""
    import numpy as np
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()

    class Pairs(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
        VERSION = tfds.core.Version("1.0.0")

        def _info(self) -> tfds.core.DatasetInfo:
            text = tfds.features.Text()
            features = {"image": tfds.features.Image(encoding_format="jpeg"), "caption": text}
            features |= {"key": text, "label": tfds.features.Scalar(np.int64)}
            features = tfds.features.FeaturesDict(features)
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, manager: Any) -> dict[str, Any]:
            return {"train": self._generate_examples()}

        def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
            for pair in range(PAIRS):
                name = names[pair % len(names)]
                image = str(folder / "files" / "all" / f"{name}.jpg")
                row = {"image": image, "caption": captions[name], "key": str(pair), "label": -1}
                yield pair, row

    Pairs(data_dir=str(folder), file_format="array_record").download_and_prepare()


# --- The sides: each returns an endless iterator of batches from a folder of `prepare`.


def cn_clip_batches(folder: Path, vocab: str, workers: int) -> Iterator[Any]:
    """Yield batches of Chinese-CLIP's `get_dataset`, called as in its training."""
    import torch
    from cn_clip.clip import utils
    from cn_clip.clip.bert_tokenizer import FullTokenizer
    from cn_clip.training import data

    torch.set_num_threads(1)
    utils._tokenizer = data._tokenizer = FullTokenizer(vocab_file=vocab)
    if not torch.distributed.is_initialized():
        store = torch.distributed.HashStore()
        torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    arguments = SimpleNamespace(
        train_data=str(folder / "lmdb" / "train"),
        use_augment=False,
        vision_model="RN50",
        batch_size=BATCH,
        num_workers=workers,
        seed=0,
    )
    opened = data.get_dataset(arguments, is_train=True, max_txt_length=CONTEXT_LENGTH)
    epoch = 0
    while True:
        opened.sampler.set_epoch(epoch)
        yield from opened.dataloader
        epoch += 1


def torch_batches(folder: Path, vocab: str, workers: int) -> Iterator[Any]:
    """Yield batches of a plain torchvision loader."""
    import torch
    from tokenizers import BertWordPieceTokenizer
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    torch.set_num_threads(1)
    tokenizer = BertWordPieceTokenizer(vocab)
    tokenizer.enable_truncation(CONTEXT_LENGTH)
    tokenizer.enable_padding(length=CONTEXT_LENGTH)
    captions = json.loads((folder.parent / "captions.json").read_text())

    class Pairs(ImageFolder):
        def __len__(self) -> int:
            return PAIRS

        def __getitem__(self, index: int) -> tuple[Any, Any]:
            index %= len(self.samples)
            image, _ = super().__getitem__(index)
            caption = captions[Path(self.samples[index][0]).stem]
            return image, torch.tensor(tokenizer.encode(caption).ids)

    transform = transforms.Compose(
        [
            transforms.Resize((SIZE, SIZE), transforms.InterpolationMode.BICUBIC),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, DEVIATION),
        ]
    )
    loader = torch.utils.data.DataLoader(
        Pairs(str(folder / "files"), transform),
        BATCH,
        shuffle=True,
        num_workers=workers,
        drop_last=True,
        multiprocessing_context="fork" if workers else None,
    )
    while True:
        yield from loader


def our_batches(folder: Path, vocab: str, workers: int, decode: str) -> Iterator[Any]:
    """Return batches of our pipeline, from a built dataset."""
    from vclip_jax.data.pipeline import train_batches
    from vclip_jax.data.text.wordpiece import WordPiece
    from vclip_jax.datasets import open_source

    return train_batches(
        open_source("pairs", folder, "train"),
        WordPiece.from_vocab(vocab),
        seed=0,
        global_batch_size=BATCH,
        size=SIZE,
        decode=decode,
        context_length=CONTEXT_LENGTH,
        num_threads=max(1, workers),
    )


def serve(implementation: str, folder: Path, vocab: str, workers: int) -> None:
    """Measure one round for each input line FORM SECONDS, and print its rates."""
    opened: dict[str, Iterator[Any]] = {}
    open_batches: Callable[[Path], Iterator[Any]] = {
        "cn_clip": lambda f: cn_clip_batches(f, vocab, workers),
        "torch_imagefolder": lambda f: torch_batches(f, vocab, workers),
        "ours": lambda f: our_batches(f, vocab, workers, "fast"),
        "ours_exact": lambda f: our_batches(f, vocab, workers, "exact"),
    }[implementation]
    for line in sys.stdin:
        form, seconds = line.split()
        if form not in opened:
            opened[form] = open_batches(folder / form)
            for batch in (next(opened[form]) for _ in range(2)):
                check(batch)
        # Do not count batches that were buffered since the last round.
        waiting = 2 * max(1, workers) + 2 if implementation[:4] == "ours" else 2 * workers
        for _ in range(waiting):
            next(opened[form])
        wall, cpu, batches = time.perf_counter(), cpu_seconds(os.getpid()), 0
        while time.perf_counter() - wall < float(seconds):
            next(opened[form])
            batches += 1
        wall, cpu = time.perf_counter() - wall, cpu_seconds(os.getpid()) - cpu
        print(json.dumps([batches * BATCH / cpu, batches * BATCH / wall]), flush=True)


def check(batch: Any) -> None:
    """Check that a side delivers a whole batch of images and tokens."""
    image, tokens = (batch["image"], batch["tokens"]) if isinstance(batch, dict) else batch[:2]
    shapes = (BATCH, 3, SIZE, SIZE), (BATCH, SIZE, SIZE, 3)
    assert tuple(image.shape) in shapes
    assert tuple(tokens.shape) == (BATCH, CONTEXT_LENGTH)
    assert (tokens[:, 0] == tokens[0, 0]).all()  # [CLS]
    assert (tokens[:, -1] == 0).any()  # [PAD]


def cpu_seconds(process: int) -> float:
    """Return the CPU seconds of a process and of its children, including dead ones."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    ticks = sum(int(field) for field in fields[11:15])
    children = Path(f"/proc/{process}/task").glob("*/children")
    pids = [int(pid) for path in children for pid in path.read_text().split()]
    return ticks / os.sysconf("SC_CLK_TCK") + sum(cpu_seconds(pid) for pid in pids)


# --- The measurement.


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--source", default="", help="folder of .jpg files (default: rendered photographs)"
    )
    parser.add_argument("--images", type=int, default=128, help="number of different files")
    parser.add_argument("--vocab", default="", help="a vocab.txt (default: Chinese-CLIP's)")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--seconds", type=float, default=4.0, help="duration of one round of one side"
    )
    parser.add_argument("--cache", default="", help="folder for the files")
    parser.add_argument("--serve", choices=IMPLEMENTATIONS, help=argparse.SUPPRESS)
    options = parser.parse_args()

    cache = Path(options.cache or Path(tempfile.gettempdir()) / "vclip_jax_input_pipeline")
    kind = f"{zlib.crc32(options.source.encode()):08x}" if options.source else "rendered"
    folder = cache / f"{kind}-{options.images}"
    if options.serve:
        serve(options.serve, folder, options.vocab, options.workers)
        return
    vocab = options.vocab or default_vocab()
    prepare(folder, options.images, options.source)

    sides = {
        name: subprocess.Popen(
            [
                sys.executable,
                __file__,
                "--serve",
                name,
                "--vocab",
                vocab,
                "--cache",
                str(cache),
                "--images",
                str(options.images),
                "--source",
                options.source,
                "--workers",
                str(options.workers),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in IMPLEMENTATIONS
    }
    forms = [*(str(side) for side in SIDES), f"{SIDES[0]}-stored"]
    cases = [(form, name) for form in forms for name in IMPLEMENTATIONS]
    cases += [(f"{side}-stored", "ours") for side in SIDES[1:]]
    measured: dict[tuple[str, str], list[list[float]]] = {case: [] for case in cases}
    for round_ in range(options.rounds + 1):
        for form, name in cases:
            seconds = options.seconds if round_ else 0.1  # open and warm up
            result = ask(sides[name], form, seconds)
            if round_:
                measured[form, name].append(result)
    for process in sides.values():
        process.communicate()
    medians = {
        case: [statistics.median(column) for column in zip(*results, strict=True)]
        for case, results in measured.items()
    }
    print(f"{'files':12} {'side':18} {'images/CPU-s':>12} {'images/s':>9}")
    for (form, name), (per_core, per_second) in medians.items():
        print(f"{form:12} {name:18} {per_core:12.1f} {per_second:9.1f}")
    print(json.dumps(report(medians, options)))


def ask(process: subprocess.Popen[str], form: str, seconds: float) -> list[float]:
    """Run one round of one side."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{form} {seconds}\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise SystemExit("a side has failed: see its message above")
    return json.loads(line)


def report(medians: dict[tuple[str, str], list[float]], options: Any) -> dict[str, Any]:
    """Return the JSON object of the last line."""

    def of(side: int, column: int) -> dict[str, float]:
        original, small = str(side), f"{side}-stored"
        values = {
            "cn_clip": medians[original, "cn_clip"],
            "torch_imagefolder": medians[original, "torch_imagefolder"],
            "ours_originals": medians[original, "ours"],
            "ours_stored": medians[small, "ours"],
            "ours_exact": medians[original, "ours_exact"],
        }
        return {name: round(value[column], 1) for name, value in values.items()}

    large, small = of(SIDES[0], 0), f"{SIDES[0]}-stored"
    stored_files = {name: round(medians[small, name][0], 1) for name in IMPLEMENTATIONS}
    ratios = {
        f"{ours}/{other}": round(large[ours] / large[other], 2)
        for ours in ("ours_originals", "ours_stored", "ours_exact")
        for other in ("cn_clip", "torch_imagefolder")
    }
    ratios["stored: ours/cn_clip"] = round(stored_files["ours"] / stored_files["cn_clip"], 2)
    return {
        **large,
        "512": of(512, 0),
        "stored": stored_files,
        "ratios": ratios,
        "wall": {**of(1024, 1), "512": of(512, 1)},
        "source": "photographs" if options.source else "rendered",
        "workers": options.workers,
        "cores": cores.usable(),
    }


def default_vocab() -> str:
    """Return the path of Chinese-CLIP's own vocabulary file."""
    from importlib.util import find_spec

    found = find_spec("cn_clip")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("cn_clip is not installed: pip install 'vclip_jax[parity]' lmdb")
    return str(Path(found.submodule_search_locations[0]) / "clip" / "vocab.txt")


if __name__ == "__main__":
    main()
