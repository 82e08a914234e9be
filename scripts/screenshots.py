"""Take the pictures of the docs: a release in the terminal, and cards on the pages of its rehearsal Hub.

Runs ``publish demo``. Needs Chromium, Pillow and tmux. Writes docs/images: ``python scripts/screenshots.py [NAME...]``
"""

from __future__ import annotations

import io
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from publish.cli.demo import TARGET
from publish.cli.rehearse import load_rehearsal_hub

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
# name, path behind the repo's, width of the page, part of it (top, bottom), dark
CARDS = (
    ("suite-light", "", 860, (450, 1605), False),
    ("suite-plots-dark", "#training-dynamics", 620, (0, 1000), True),
    ("suite-phone-dark", "#details", 390, (0, 900), True),
    ("step-light", "/tree/step1000", 860, (870, 2125), False),
)
TERMINAL = "release-terminal"
COLUMNS, LINES = 116, 26
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-device-scale-factor=1"),
    "--virtual-time-budget=10000",  # milliseconds of the page's clock, in which it loads and scrolls
)
SCREEN = """<body style="margin:0;background:#1c1c22"><pre style="margin:0;padding:18px 20px;color:#e6e6e6;
font:14px/1.4 'DejaVu Sans Mono',monospace">{code}</pre>"""


def shoot(page: Path, width: int, height: int, dark: bool, out: Path) -> None:
    """Take a picture of a file's page. Chromium's own windows stay wider than a phone: they are at least 500 pixels."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    scheme = ["--blink-settings=preferredColorScheme=0"] if dark else []
    size = f"--window-size={max(width, 500)},{height}"
    command = [browser, *FLAGS, *scheme, size, f"--screenshot={out}", f"file://{page}"]
    subprocess.run(command, check=True, capture_output=True, timeout=120)


def save(picture: Image.Image, name: str) -> None:
    out = IMAGES / f"{name}.png"
    picture.convert("RGB").quantize(96, dither=Image.Dither.NONE).save(out, optimize=True)
    print(f"{out.name} {out.stat().st_size:,} bytes")


def release(folder: Path) -> str:
    """Run the demo in a terminal; what stands there at the end, with its colours."""
    tmux = ["tmux", "-L", "publish-screenshots", "-f", "/dev/null"]
    path, here = shlex.quote(str(Path(sys.executable).parent)), shlex.quote(str(folder))
    shell = f"PS1='$ '; PATH={path}:$PATH; cd {here}; clear\n"
    (folder / "rc").write_text(shell)
    size = ["-x", str(COLUMNS), "-y", str(LINES)]
    subprocess.run([*tmux, "new-session", "-d", *size, f"bash --rcfile {folder}/rc -i"], check=True)
    try:
        time.sleep(1)
        subprocess.run([*tmux, "send-keys", "publish demo --work-dir demo", "Enter"], check=True)
        while True:
            time.sleep(1)
            shown = subprocess.run([*tmux, "capture-pane", "-p", "-e"], check=True, capture_output=True, text=True)
            if "Run again:" in shown.stdout:
                return shown.stdout.rstrip().removesuffix("$").rstrip()
    finally:
        subprocess.run([*tmux, "kill-server"], check=True)


def terminal(shown: str, folder: Path) -> None:
    """The picture of a terminal's content."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    console.print(Text.from_ansi(shown), soft_wrap=True)
    page, taken = folder / "terminal.html", folder / "terminal.png"
    page.write_text(console.export_html(theme=MONOKAI, inline_styles=True, code_format=SCREEN), "utf-8")
    shoot(page, 1050, 800, True, taken)
    with Image.open(taken) as picture:
        box = Image.eval(picture.convert("L"), lambda value: 255 * (value > 60)).getbbox()
        save(picture.crop((0, 0, box[2] + 20, box[3] + 18)), TERMINAL)


def card(address: str, name: str, path: str, width: int, part: tuple[int, int], dark: bool, folder: Path) -> None:
    """The picture of a part of a page."""
    page, taken = folder / "frame.html", folder / "card.png"
    style = f"border:0;width:{width}px;height:{part[1]}px"
    page.write_text(f'<body style="margin:0"><iframe src="{address}{path}" style="{style}"></iframe>')
    shown = None
    while True:  # until two pictures in a row are equal: on a busy machine the first may show half a page
        before = shown
        shoot(page, width, part[1], dark, taken)
        with Image.open(taken) as picture:
            shown = picture.crop((0, part[0], width, part[1])).convert("RGB")
        if shown == before and len(shown.getcolors(shown.width * shown.height)) > 1:
            break
    save(shown, name)


def main(names: list[str]) -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["HF_HOME"] = str(folder / "home")
        shown = release(folder)
        if not names or TERMINAL in names:
            terminal(shown, folder)
        with load_rehearsal_hub()(folder / "demo" / "hub") as hub:
            for name, *shot in CARDS:
                if not names or name in names:
                    card(f"{hub.url}/{TARGET}", name, *shot, folder)


if __name__ == "__main__":
    main(sys.argv[1:])
