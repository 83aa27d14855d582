"""The whole page: tabs, appearance and serving."""

from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from crimson_core.compare.html import rendering
from space import about_tab, api, corpus_tab, pair_tab, words
from space.settings import Settings

_HERE = Path(__file__).parent
# System fonts: a web font would tell its service about every visit.
_FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
_MONO_FONTS = ["ui-monospace", "Menlo", "Consolas", "monospace"]


def build(settings: Settings) -> gr.Blocks:
    """Build the page for an owner's settings."""
    with gr.Blocks(
        title="CRIMSON: chest X-ray report scores",
        analytics_enabled=False,
        delete_cache=(600, 600),  # an upload that was broken off; the others are deleted when they are read
    ) as page:
        gr.Markdown(words.HEADING, elem_id="heading")
        with gr.Tabs(selected="pair") as tabs:
            with gr.Tab("One pair", id="pair"):
                pair = pair_tab.build(settings)
            with gr.Tab("A file", id="file"):
                corpus_tab.build(settings, tabs, pair, several=False)
            with gr.Tab("Compare", id="compare"):
                corpus_tab.build(settings, tabs, pair, several=True)
            with gr.Tab("About", id="about"):
                about_tab.build(settings)
        api.add(settings)
        page.unload(_forget(page))
    page.queue(default_concurrency_limit=16)
    return page


def launch_options(settings: Settings) -> dict[str, Any]:
    """Keywords of `launch`; they turn off everything that the page does not need."""
    style = _text(rendering.FOLDER / "style.css") + _text(_HERE / "style.css")
    script = _text(rendering.FOLDER / "point.js") + _text(_HERE / "page.js")
    return {
        "theme": _theme(),
        # Not as `css`, whose rules Gradio confines to the inside of its own boxes.
        "head": f"<style>{style}</style><script>{script}</script>",
        "max_file_size": settings.max_bytes,
        "footer_links": [],
        "run_history": False,  # it would keep reports in the browser
        "enable_monitoring": False,
        "ssr_mode": False,
        "mcp_server": False,
        "pwa": False,
        "share": False,
        "show_error": True,
        "app_kwargs": {"middleware": [Middleware(_WithoutDeepLinks)]},
    }


class _WithoutDeepLinks:
    """Refuses Gradio's deep links, which write the contents of a visitor's page, with reports, to the disk."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].rstrip("/").endswith("/deep_link"):
            await PlainTextResponse("Not found", status_code=404)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def _theme() -> gr.themes.Base:
    theme = gr.themes.Default(primary_hue="rose", neutral_hue="slate", font=_FONTS, font_mono=_MONO_FONTS)
    return theme.set(
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_hover_dark="*primary_800",
        button_primary_text_color="white",
        button_primary_text_color_dark="white",
    )


def _forget(page: gr.Blocks):  # noqa: ANN202
    def forget(request: gr.Request) -> None:
        # Gradio would keep a session's state for an hour after its page is closed.
        page.state_holder.session_data.pop(request.session_hash, None)

    return forget
