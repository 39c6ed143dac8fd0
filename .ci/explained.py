"""Lists of what is known and explained: Markdown, under a heading `## FILE` the items

- `WHAT`: reason
- `WHAT`; `WHAT`: reason, which may
  go on

without line numbers, which each edit moves. What stands there twice is meant twice.
"""
import collections
import re
import sys


def read(path, because=""):
    """How often each (file, what) stands there, with a reason that begins so."""
    found, file, item = collections.Counter(), None, []

    def close():
        if item:
            match = re.match(r"((?:`[^`]+`(?:; ?)?)+): +(\S.*)", " ".join(item))
            if not match:
                sys.exit(f"{path.name}: no reason: {' '.join(item)}")
            if match[2].startswith(because):
                found.update((file, what) for what in re.findall(r"`([^`]+)`", match[1]))
            item.clear()

    for line in path.read_text(encoding="utf-8").splitlines():
        if item and line.startswith("  "):
            item.append(line.strip())
            continue
        close()
        if line.startswith("## "):
            file = line[3:].strip("` ")
        elif line.startswith("- `") and file:
            item.append(line[2:])
    close()
    return found
