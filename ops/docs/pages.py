"""The Markdown pages of the repository: their code blocks, links and anchors. For the scripts beside it; standard library only."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# A part of a crate's own documentation, not a page.
INCLUDED = {"benches/workload/src/file/lines.md"}


@dataclass
class Block:
    """A fenced block of code, with the directives in comments right before it: `<!-- NAME: WORDS -->`."""

    page: str
    line: int
    language: str
    text: str
    directives: dict

    def where(self):
        return f"{self.page}:{self.line}"


def pages():
    """Every page, as its path in the repository; committed or not yet."""
    told = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.md"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return sorted(name for name in told.stdout.split("\n") if name and name not in INCLUDED and (ROOT / name).exists())


def read(page):
    return (ROOT / page).read_text()


def blocks(page):
    """The fenced blocks of a page."""
    found, directives, opened = [], {}, None
    for number, line in enumerate(read(page).split("\n"), 1):
        fence = re.match(r"(\s*)(```+|~~~+)\s*(\S*)", line)
        if opened is None and fence:
            opened = (number, fence.group(2), fence.group(3).split(",")[0], len(fence.group(1)), [])
        elif opened and fence and fence.group(2).startswith(opened[1]) and not fence.group(3):
            number, _, language, indent, lines = opened
            text = "".join(line[indent:] + "\n" for line in lines)
            found.append(Block(page, number, language, text, directives))
            opened, directives = None, {}
        elif opened:
            opened[4].append(line)
        elif comment := re.fullmatch(r"\s*<!-- ([a-z ]+): (.+) -->\s*", line):
            directives[comment.group(1)] = comment.group(2)
        elif line.strip():
            directives = {}
    if opened:
        raise SystemExit(f"{page}:{opened[0]}: a block without an end")
    return found


def prose(page):
    """The page's lines with their numbers, without blocks of code."""
    fenced = False
    for number, line in enumerate(read(page).split("\n"), 1):
        if re.match(r"\s*(```|~~~)", line):
            fenced = not fenced
        elif not fenced:
            yield number, line


def mentions(page):
    """Code in the text: `like this`; also where it goes on in the next line."""
    paragraph, at = "", 1
    for number, line in [*prose(page), (0, "")]:
        if line.strip() and not line.startswith("|"):
            at = at if paragraph else number
            paragraph += line.strip() + " "
            continue
        yield from ((at, code) for code in re.findall(r"`([^`]+)`", paragraph))
        paragraph = ""
        yield from ((number, code) for code in re.findall(r"`([^`]+)`", line))


def links(page):
    """Targets of links and pictures, with their lines."""
    for number, line in prose(page):
        line = re.sub(r"`[^`]*`", "", line)
        for target in re.findall(r"\]\(([^)\s]+)(?: \"[^\"]*\")?\)|^\[[^\]]+\]: (\S+)|(?:src|href)=\"([^\"]+)\"", line):
            yield number, next(part for part in target if part)


def anchors(page):
    """The anchors of a page's headings, as GitHub and mdBook make them."""
    found, seen = set(), {}
    for _, line in prose(page):
        heading = re.match(r"#+ +(.*)", line)
        if not heading:
            found.update(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", line))
            continue
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.group(1)).strip().lower()
        slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        count = seen.get(slug, 0)
        seen[slug] = count + 1
        found.add(f"{slug}-{count}" if count else slug)
    return found
