"""Take the pictures of a card for the docs: python scripts/screenshots.py http://127.0.0.1:7860/OWNER/NAME

Needs Chromium, Pillow and a rehearsal Hub that holds the release (publish hub --root ...). Writes docs/images.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
# name, path behind the repo's, width of the page, part of it (top, bottom), dark
SHOTS = (
    ("suite-light", "", 860, (0, 1180), False),
    ("suite-plots-dark", "#training-dynamics", 620, (0, 1000), True),
    ("suite-phone-dark", "#details", 390, (0, 900), True),
    ("step-light", "/tree/step1000", 860, (645, 1745), False),
)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-device-scale-factor=1"),
    "--virtual-time-budget=30000",  # the frame has loaded, however busy the machine is
)


def shoot(url: str, width: int, height: int, dark: bool, out: Path) -> None:
    """Chromium's own windows stay wider than a phone, so the page is shown in a frame of the width asked for."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    frame = out.with_suffix(".html")
    frame.write_text(
        f'<body style="margin:0"><iframe src="{url}" style="border:0;width:{width}px;height:{height}px"></iframe>'
    )
    scheme = ["--blink-settings=preferredColorScheme=0"] if dark else []
    size = f"--window-size={max(width, 500)},{height}"
    command = [browser, *FLAGS, *scheme, size, f"--screenshot={out}", f"file://{frame}"]
    subprocess.run(command, check=True, capture_output=True, timeout=120)


def main(address: str) -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, path, width, (top, bottom), dark in SHOTS:
            taken = Path(folder) / f"{name}.png"
            shoot(address + path, width, bottom, dark, taken)
            with Image.open(taken) as picture:
                part = picture.crop((0, top, width, bottom)).convert("RGB").quantize(96, dither=Image.Dither.NONE)
                part.save(IMAGES / f"{name}.png", optimize=True)
            print(f"{name}.png {(IMAGES / f'{name}.png').stat().st_size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1])
