"""The page: Gradio's widgets around the functions of `answers`.

Nothing is stored. An upload is deleted as soon as its pixels are decoded; the pixels stay in the
memory of the visitor's session. Answers are HTML with embedded pictures, so that no picture is
written to a file.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import wraps
from importlib import resources
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI
from gradio.utils import get_upload_folder
from markupsafe import escape

from vclip_jax import prompts as prompts_lib
from vclip_jax.data.choices import GATES
from vclip_jax.datasets.listing import IMAGE_SUFFIXES
from vclip_jax.demo import answers, html, uploads
from vclip_jax.demo.gate import Gate
from vclip_jax.demo.index import Index, nearest
from vclip_jax.demo.reader import Pixels, pixels
from vclip_jax.files.errors import one_line
from vclip_jax.predict.pretrained import Pretrained
from vclip_jax.prompts.calibration import OFF, Calibration, matching

TYPED = "my own words"
CAPTIONS = 8
PHOTOGRAPHS = 12
EXAMPLE = "正常眼底 | 未见明显异常\n糖尿病视网膜病变\n青光眼 | 视盘杯盘比增大"
FORGET_SECONDS = 1800
"""The time after which a visitor's photograph is deleted, if the page is left open."""
WAITING = 8
"""The length of the queue; further visitors are asked to try again later."""
SESSIONS = 50
READERS = 2
"""The number of photographs that are decoded at the same time, so that a slow one does not delay
the next."""


@dataclass(frozen=True)
class Sources:
    """The model and the data of a demo.

    Attributes:
        clip: the model.
        name: the model's name on the page.
        prompts: the prompt set that is selected first, of the package or a JSON file.
        captions: the training captions, or the reason why there are none.
        photographs: the photographs to search, or the reason why there are none.
        root: the folder of the photographs.
        read: a function that decodes an upload, as `reader.pixels` does.
        calibrations: the calibrations of the answers, one for each prompt set.
        gate: one of `choices.GATES`.
    """

    clip: Pretrained
    name: str
    prompts: str
    captions: Index | str
    photographs: Index | str
    root: str | os.PathLike[str] = "."
    read: Callable[..., Pixels] = pixels
    calibrations: tuple[Calibration, ...] = ()
    gate: str = GATES[0]


def chosen_prompts(
    choice: str, typed: str, own: prompts_lib.PromptSet | None = None
) -> prompts_lib.PromptSet:
    """Return the model's own prompts, those of a set, or the typed ones."""
    if own is not None and choice == own.name:
        return own
    return answers.typed_prompts(typed) if choice == TYPED else prompts_lib.load(choice)


def read_upload(
    clip: Pretrained, path: str, read: Callable[..., Pixels] = pixels
) -> answers.Photograph:
    """Read an upload and delete it, also if reading fails.

    Raises:
        ValueError: one line: the path is not that of an upload.
        ImageError: see `answers.read_photograph`.
    """
    # Read one byte more than allowed, which is enough to refuse the file.
    data = uploads.take(Path(get_upload_folder()), path, answers.MOST_MEGABYTES * 2**20 + 1)
    return answers.read_photograph(clip, data, read)


def _in_one_line(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function to show its errors to the visitor, without logging them."""

    @wraps(function)
    def shown(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except ValueError as error:
            # The widget takes HTML, and the message quotes what people typed.
            text = escape(one_line(error))
            raise gr.Error(text, print_exception=False) from None

    return shown


@dataclass(frozen=True)
class _Answers:
    """The functions behind the widgets: from values of widgets to values of widgets.

    Raises:
        ValueError: one line for the visitor, see `_in_one_line`.
    """

    sources: Sources

    def read(self, path: str | None) -> tuple[Any, ...]:
        clip = self.sources.clip
        photograph = read_upload(clip, path or "", self.sources.read)
        if self.sources.gate == "off":
            photograph = replace(photograph, gate=())
        preview = html.photograph(photograph.picture, "What the model sees")
        # Clear all answers about the previous photograph.
        return None, photograph, preview, None, "", "", ""

    def score(
        self, photograph: answers.Photograph | None, choice: str, typed: str
    ) -> tuple[Any, ...]:
        if photograph is None:
            raise ValueError("drop a photograph first (it is deleted after half an hour)")
        if photograph.gate and self.sources.gate == "exclude":
            raise ValueError(f"this photograph is refused: {'; '.join(photograph.gate)}")
        clip = self.sources.clip
        prompts = chosen_prompts(choice, typed, clip.prompts)
        calibration = clip.calibration_of(
            prompts, matching(self.sources.calibrations, prompts) or OFF
        )
        answer = answers.score(clip, photograph, prompts, calibration)
        classes = list(zip(answer.prompts.class_names, range(len(answer.classes)), strict=True))
        return answer.prompts, html.scores(answer), gr.update(choices=classes, value=answer.best)

    def heat(
        self,
        photograph: answers.Photograph | None,
        prompts: prompts_lib.PromptSet | None,
        chosen: int | None,
    ) -> str:
        if photograph is None or prompts is None or chosen is None:
            raise ValueError("drop a photograph first (it is deleted after half an hour)")
        if not 0 <= chosen < len(prompts.class_names):
            raise ValueError("this class is not among those that were scored")
        picture = answers.heat(self.sources.clip, photograph, prompts, chosen)
        name = prompts.class_names[chosen]
        return html.photograph(
            picture, f"Yellow and green: places that favour {name} over the other classes"
        )

    def captions(self, photograph: answers.Photograph) -> str:
        index = self.sources.captions
        if isinstance(index, str):
            return html.message(f"No training captions: {index}")
        return html.captions(nearest(index, photograph.embedding, CAPTIONS), index.about)

    def search(self, text: str) -> str:
        index = self.sources.photographs
        if isinstance(index, str):
            raise ValueError(index)
        hits = answers.search(self.sources.clip, text, index, PHOTOGRAPHS)
        notes = self.sources.clip.readings([text])
        return html.gallery(hits, self.sources.root, index.about, notes)


def _forget(request: gr.Request) -> None:
    # Gradio would keep the state for an hour after the page is closed.
    request.request.app.state_holder.delete_state(request.session_hash)


def build(sources: Sources) -> gr.Blocks:
    """Build the page; `application` serves it."""
    shown = _Answers(sources)
    one_at_a_time: dict[str, Any] = {
        "concurrency_id": "model",
        "concurrency_limit": 1,
        "api_visibility": "private",
    }

    page = gr.Blocks(title="vclip_jax demo", analytics_enabled=False, fill_width=False)
    with page:
        gr.HTML(html.warning())
        with gr.Tab("A photograph"), gr.Row():
            with gr.Column(scale=2, min_width=280):
                upload = gr.File(
                    label=f"A fundus photograph, at most {answers.MOST_MEGABYTES} MB",
                    file_types=list(IMAGE_SUFFIXES),
                    height=170,
                    elem_id="upload",
                )
                sets = sorted({sources.prompts, *prompts_lib.known()})
                choice = gr.Dropdown(
                    [*sets, TYPED], value=sources.prompts, label="Prompts", elem_id="prompts"
                )
                typed = gr.Textbox(
                    EXAMPLE,
                    lines=4,
                    visible=False,
                    elem_id="typed",
                    label="Your own words",
                    info="Chinese or English, one class per line, | between wordings of a class",
                    max_length=answers.MOST_CLASSES * answers.MOST_CHARACTERS,
                )
                button = gr.Button("Score", variant="primary", elem_id="score")
                preview = gr.HTML(elem_id="preview")
            with gr.Column(scale=3, min_width=320), gr.Tabs():
                with gr.Tab("Scores"):
                    scores = gr.HTML(html.message("Drop a photograph."), elem_id="scores")
                with gr.Tab("Heat map"):
                    chosen = gr.Dropdown([], label="Class", elem_id="class")
                    map_ = gr.HTML(elem_id="heat")
                with gr.Tab("Nearest training captions"):
                    near = gr.HTML(
                        html.message(f"No training captions: {sources.captions}")
                        if isinstance(sources.captions, str)
                        else html.message("Drop a photograph."),
                        elem_id="captions",
                    )
        with gr.Tab("Search a folder"):
            index = sources.photographs
            searchable = not isinstance(index, str)
            about = index if isinstance(index, str) else index.about
            query = gr.Textbox(
                label="What to look for",
                placeholder="视盘杯盘比增大",
                elem_id="query",
                max_length=answers.MOST_CHARACTERS,
                interactive=searchable,
                submit_btn=searchable,
            )
            results = gr.HTML(html.message(about), elem_id="found")
        gr.HTML(
            html.message(
                f"Model: {sources.name}. Uploads are deleted once they are read, and sent nowhere."
            )
        )
        photograph, asked = gr.State(time_to_live=FORGET_SECONDS), gr.State()

        choice.change(
            lambda name: gr.update(visible=name == TYPED),
            choice,
            typed,
            concurrency_limit=None,
            api_visibility="private",
        )
        uploaded = upload.upload(
            _in_one_line(shown.read),
            upload,
            [upload, photograph, preview, asked, scores, map_, near],
            concurrency_limit=READERS,
            api_visibility="private",
        )
        for start in (uploaded.success, button.click):
            scored = start(
                _in_one_line(shown.score),
                [photograph, choice, typed],
                [asked, scores, chosen],
                **one_at_a_time,
            )
            scored.success(_in_one_line(shown.captions), photograph, near, **one_at_a_time).success(
                _in_one_line(shown.heat), [photograph, asked, chosen], map_, **one_at_a_time
            )
        chosen.input(_in_one_line(shown.heat), [photograph, asked, chosen], map_, **one_at_a_time)
        query.submit(_in_one_line(shown.search), query, results, **one_at_a_time)
        page.unload(_forget)
    return page.queue(max_size=WAITING, default_concurrency_limit=1, api_open=False)


def application(page: gr.Blocks, hosts: Iterable[str], token: str | None) -> Gate:
    """Make an ASGI application of the page, only for people who have its address.

    Args:
        page: the page, from `build`.
        hosts: the host names to which the page answers.
        token: the token in the page's address; None for a page that everyone may open.
    """
    return Gate(mounted(page), frozenset(map(str.lower, hosts)), token, Path(get_upload_folder()))


def mounted(page: gr.Blocks) -> FastAPI:
    """Make Gradio's application of the page, without any recording; `Gate` must protect it.

    `Blocks.launch` is not used, because it offers share links and sends requests to the network.
    """
    page.state_session_capacity = SESSIONS
    # `launch` would set this: without it Gradio copies any file that a visitor names.
    page.has_launched = True
    app = FastAPI(openapi_url=None, lifespan=uploads.sweeping(Path(get_upload_folder())))
    return gr.mount_gradio_app(
        app,
        page,
        "/",
        run_history=False,
        enable_monitoring=False,
        mcp_server=False,
        ssr_mode=False,
        pwa=False,
        footer_links=[],
        show_error=False,
        max_file_size=answers.MOST_MEGABYTES * 2**20,
        # The default theme would load fonts from another machine.
        theme=gr.themes.Default(
            primary_hue="teal", font=["system-ui", "sans-serif"], font_mono=["monospace"]
        ).set(
            # The theme's teal is too light for white letters.
            button_primary_background_fill="#0f766e",
            button_primary_background_fill_hover="#115e59",
            color_accent="#0f766e",
        ),
        css=resources.files("vclip_jax.demo").joinpath("style.css").read_text("utf-8"),
    )
