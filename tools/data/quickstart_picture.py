"""docs/quickstart.jpg: the photographs at the top of a quickstart's report, in a browser.

    python tools/data/quickstart_picture.py quickstart/report.html docs/quickstart.jpg [BROWSER]

BROWSER is a Chromium, by default `chromium`.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import cv2

WINDOW = 1200, 1400  # pixels
PART = slice(150, 1224), slice(40, 1160)  # rows and columns of the photographs in it


def picture(report: Path, file: Path, browser: str) -> None:
    """Writes the picture as JPEG."""
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "page.png"
        flags = ["--headless", "--no-sandbox", "--hide-scrollbars", f"--screenshot={shot}"]
        flags.append("--window-size={},{}".format(*WINDOW))
        command = [browser, *flags, report.resolve().as_uri()]
        subprocess.run(command, check=True, capture_output=True, cwd=folder)
        page = cv2.imread(str(shot))
    cv2.imwrite(str(file), page[PART], [cv2.IMWRITE_JPEG_QUALITY, 85])


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    picture(Path(sys.argv[1]), Path(sys.argv[2]), (sys.argv[3:] or ["chromium"])[0])
