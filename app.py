"""The Gradio Space: CRIMSON in a browser. `python app.py` starts it; docs/space.md names the settings."""

import os
import signal
import sys
import tempfile

# Before Gradio is imported, which reads both. Uploads go to a folder of our own, which is gone with the process.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
_uploads = tempfile.TemporaryDirectory(prefix="crimson-space-")
os.environ["GRADIO_TEMP_DIR"] = _uploads.name

from crimson_core.errors import InputError  # noqa: E402
from space.judging import warm_up  # noqa: E402
from space.page import build, launch_options  # noqa: E402
from space.settings import settings_from  # noqa: E402

try:
    settings = settings_from(os.environ)
except InputError as error:
    sys.exit(f"crimson: {error}")
demo = build(settings)

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # as Ctrl-C does, so that the folder is deleted
    warm_up(settings.judge)
    demo.launch(**launch_options(settings))
