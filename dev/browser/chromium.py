"""Chromium, and what Skyvern needs to drive it: settings of its server, and links where Playwright looks for it."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

from dev.process import Process, RigError

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome")
INSTALL_CHROMIUM = "apt-get update && apt-get install --yes --no-install-recommends chromium"
"""On Debian and Ubuntu."""

MISSING = (
    f"Chromium is missing: none of {', '.join(NAMES)} is on PATH. Install it, on Debian and Ubuntu with\n"
    f"    {INSTALL_CHROMIUM}"
)

# Chromium itself looks up a dozen hosts (updates, leaked passwords, ...): it resolves no name but loopback's.
LOOPBACK_ONLY = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"

# Playwright starts the browser and the ffmpeg that it downloaded: put the system's browser and PyPI's ffmpeg there,
# and ffmpeg on PATH, where Skyvern looks for it to make an mp4 of the recording.
_LINK = """
import imageio_ffmpeg, json, pathlib, playwright, sys
root, chromium, ffmpeg = pathlib.Path(sys.argv[1]), sys.argv[2], imageio_ffmpeg.get_ffmpeg_exe()
known = pathlib.Path(playwright.__file__).parent / "driver/package/browsers.json"
revision = {browser["name"]: browser["revision"] for browser in json.loads(known.read_text())["browsers"]}
for link, target in ((f"chromium-{revision['chromium']}/chrome-linux/chrome", chromium),
                     (f"ffmpeg-{revision['ffmpeg']}/ffmpeg-linux", ffmpeg), ("bin/ffmpeg", ffmpeg)):
    (root / link).parent.mkdir(parents=True, exist_ok=True)
    (root / link).unlink(missing_ok=True)
    (root / link).symlink_to(target)
"""


def find_chromium() -> str | None:
    """Return the path of the system's Chromium, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def require_chromium() -> str:
    """Return the path of the system's Chromium, or say how to install it."""
    found = find_chromium()
    if found is None:
        raise RigError(MISSING)
    return found


def browser_settings(python: str, data_dir: Path, model_url: str) -> dict[str, str]:
    """Return the settings of a Skyvern server that runs browsers; its Python environment is `python`'s."""
    root = data_dir / "ms-playwright"
    _link(python, root, require_chromium())
    return {
        "PLAYWRIGHT_BROWSERS_PATH": str(root),
        "PLAYWRIGHT_CHROMIUM_USE_HEADLESS_NEW": "1",
        "PATH": f"{root / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "BROWSER_ADDITIONAL_ARGS": json.dumps([LOOPBACK_ONLY]),
        "BROWSER_WIDTH": "1280",
        "BROWSER_HEIGHT": "800",
        "ENABLE_OPENAI_COMPATIBLE": "true",
        "OPENAI_COMPATIBLE_MODEL_NAME": "scripted",
        "OPENAI_COMPATIBLE_API_KEY": "scripted",
        "OPENAI_COMPATIBLE_API_BASE": model_url,
        "OPENAI_COMPATIBLE_SUPPORTS_VISION": "true",
        "LLM_KEY": "OPENAI_COMPATIBLE",
        "SECONDARY_LLM_KEY": "OPENAI_COMPATIBLE",
    }


def _link(python: str, root: Path, chromium: str) -> None:
    root.mkdir(parents=True, exist_ok=True)
    command = [python, "-c", _LINK, str(root), chromium]
    env = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    process = Process("link browser", command, env=env, cwd=root, log_path=root / "link.log")
    process.start()
    process.join(60)
    if not (root / "bin" / "ffmpeg").exists():
        raise RigError(f"could not link the browser for {python}:\n{process.tail()}")
