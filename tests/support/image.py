"""What the Dockerfile makes, but for what `RUN` does: files, environment, user and entrypoint."""

from __future__ import annotations

import fnmatch
import json
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass
class Image:
    base: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    copies: list[tuple[Path, Path, int | None]] = field(default_factory=list)
    """From below the project to a place in the image, with a mode where one is given."""
    entrypoint: list[str] = field(default_factory=list)
    user: str = ""


def read(base_environment: dict[str, str], root: Path = ROOT) -> Image:
    image = Image(environment=dict(base_environment))
    text = re.sub(r"\\\n", " ", (root / "Dockerfile").read_text())
    for line in text.splitlines():
        word, _, rest = line.strip().partition(" ")
        match word:
            case "FROM":
                image.base = rest
            case "USER":
                image.user = rest
            case "ENTRYPOINT":
                image.entrypoint = json.loads(rest)
            case "ENV":
                for name, value in re.findall(r"(\w+)=(\S+)", rest):
                    image.environment[name] = re.sub(r"\$(\w+)", lambda found: image.environment[found[1]], value)
            case "COPY":
                words = rest.split()
                mode = next((int(word.removeprefix("--chmod="), 8) for word in words if word.startswith("--")), None)
                *sources, target = [word for word in words if not word.startswith("--")]
                image.copies += [(Path(source), Path(target), mode) for source in sources]
    return image


def is_sent(path: Path, root: Path = ROOT) -> bool:
    """Whether .dockerignore lets the builder see this file: the last line that speaks of it counts."""
    sent = True
    for line in (root / ".dockerignore").read_text().splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        wanted = pattern.startswith("!")
        parts = [path, *path.parents][:-1]
        names = [str(part) for part in parts]
        pattern = pattern.lstrip("!")
        if pattern.startswith("**/"):
            matches = any(fnmatch.fnmatch(part.name, pattern[3:]) for part in parts)
        else:
            matches = any(fnmatch.fnmatch(name, pattern) and name.count("/") == pattern.count("/") for name in names)
        if matches:
            sent = wanted
    return sent


def build(image: Image, target: Path, root: Path = ROOT) -> list[Path]:
    """Puts the files where they are in the image, below `target`. Says which they are."""
    made = []
    for source, place, mode in image.copies:
        whole = root / source
        files = [path for path in whole.rglob("*") if path.is_file()] if whole.is_dir() else [whole]
        sent = [path for path in files if is_sent(path.relative_to(root), root)]
        if not sent:
            raise FileNotFoundError(f"COPY {source}: .dockerignore leaves nothing of it")
        for path in sent:
            # Of a folder its content is copied, of a file the file itself.
            inner = place / (path.relative_to(whole) if whole.is_dir() else path.name)
            copied = target / inner.relative_to("/")
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copied)
            copied.chmod(mode or 0o644)
            made.append(inner)
    return made
