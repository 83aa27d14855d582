"""Gradio's deep links would write what a visitor's page holds to the disk."""

import httpx

from space.page import build, launch_options
from space.settings import settings_from


def test_a_deep_link_writes_nothing():
    settings = settings_from({})
    page = build(settings)
    _, url, _ = page.launch(**launch_options(settings), prevent_thread_lock=True, quiet=True)
    try:
        link = httpx.get(f"{url.rstrip('/')}/gradio_api/deep_link", params={"session_hash": "any"})
        assert (link.status_code, httpx.get(url).status_code) == (404, 200)
    finally:
        page.close()
