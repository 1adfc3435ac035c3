"""Make asv's published page open without a network: its scripts come along.

    python asv_bench/offline_page.py asv_bench/html

The page loads nine scripts and a style sheet from content delivery networks. The same
packages are fetched once with npm, put beside the page, and the page's links changed.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

# What the page links to, by a part of its address, and the file of an npm package for it.
# Stupidtable 1.0.1 is not on npm; 1.1.3 is compatible.
FILES = {
    "jquery-3.3.1.min.js": ("jquery@3.3.1", "dist/jquery.min.js"),
    "jquery.flot.min.js": ("flot@0.8.3", "jquery.flot.js"),
    "jquery.flot.time.min.js": ("flot@0.8.3", "jquery.flot.time.js"),
    "jquery.flot.selection.min.js": ("flot@0.8.3", "jquery.flot.selection.js"),
    "jquery.flot.categories.min.js": ("flot@0.8.3", "jquery.flot.categories.js"),
    "jquery.flot.orderBars.js": ("flot-orderbars@1.0.0", "js/jquery.flot.orderBars.js"),
    "stupidtable.min.js": ("stupid-table-plugin@1.1.3", "stupidtable.min.js"),
    "md5.min.js": ("blueimp-md5@2.19.0", "js/md5.min.js"),
    "bootstrap.min.js": ("bootstrap@3.1.1", "dist/js/bootstrap.min.js"),
    "bootstrap.min.css": ("bootstrap@3.1.1", "dist/css/bootstrap.min.css"),
}
_LINK = re.compile(
    r'<(?P<tag>script|link)(?P<before>[^>]*?)(?P<key>src|href)="https://[^"]*/(?P<file>[^"/]+)"'
    r"(?P<after>[^>]*)>"
)
# What guarded the network's copy: it would refuse a file on the disk.
_GUARDS = re.compile(r'\s(integrity|crossorigin|referrerpolicy)="[^"]*"')


def local_link(match: re.Match[str]) -> str:
    """Return a script or style tag that points beside the page."""
    if match["file"] not in FILES:
        raise SystemExit(f"the page links to {match['file']}, which is not in FILES")
    rest = _GUARDS.sub("", match["before"] + f'{match["key"]}="vendor/{match["file"]}"')
    return f"<{match['tag']}{rest}{_GUARDS.sub('', match['after'])}>"


def main(page: Path) -> None:
    """Change the page in the folder `page`."""
    vendor = page / "vendor"
    vendor.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        packages = sorted({package for package, _ in FILES.values()})
        command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
        subprocess.run([*command, "--prefix", folder, *packages], check=True)
        for name, (package, path) in FILES.items():
            source = Path(folder, "node_modules", package.rpartition("@")[0], path)
            shutil.copyfile(source, vendor / name)
    index = page / "index.html"
    index.write_text(_LINK.sub(local_link, index.read_text()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
