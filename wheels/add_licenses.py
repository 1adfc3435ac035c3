"""Put into each wheel of a folder the licenses of the shared libraries that it brings along.

    python wheels/add_licenses.py FOLDER

For wheels that ``auditwheel`` or ``delocate`` has repaired: cropkit's own license is in them
already, that of the OpenMP library which they then hold is not. The wheels are rewritten in
place. Needs nothing but Python, since every environment that repairs a wheel runs it.
"""

import base64
import csv
import hashlib
import io
import re
import sys
import zipfile
from pathlib import Path

TEXTS = Path(__file__).parent / "licenses"
# By the beginning of a library's file name: the text's name, and the license.
LICENSES = {
    "libgomp": ("libgomp.txt", "GPL-3.0-or-later WITH GCC-exception-3.1"),
    "libomp": ("libomp.txt", "Apache-2.0 WITH LLVM-exception"),
}


def licenses_of(names: list[str]) -> list[tuple[str, str]]:
    """Return text and license of every library among the files of a wheel."""
    found = set()
    for name in names:
        folder, _, file = name.rpartition("/")
        if not folder.endswith((".libs", ".dylibs")):
            continue
        known = [LICENSES[start] for start in LICENSES if file.startswith(start)]
        if not known:
            raise SystemExit(f"{name}: its license is not in {TEXTS}; known: {', '.join(LICENSES)}")
        found.add(known[0])
    return sorted(found)


def with_licenses(metadata: str, licenses: list[tuple[str, str]]) -> str:
    """Return a wheel's METADATA that names these licenses beside its own."""
    for text, license in licenses:
        metadata, expressions = re.subn(
            r"^(License-Expression: .*)$", rf"\1 AND {license}", metadata, flags=re.MULTILINE
        )
        metadata, files = re.subn(
            r"^(License-File: LICENSE)$", rf"\1\nLicense-File: {text}", metadata, flags=re.MULTILINE
        )
        assert expressions == files == 1, "METADATA has no license expression, or no license file"
    return metadata


def record_line(name: str, content: bytes) -> tuple[str, str, int]:
    """Return what RECORD says of a file."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
    return name, f"sha256={digest.decode()}", len(content)


def add_licenses(wheel: Path) -> None:
    """Rewrite one wheel, if it holds a library that is not cropkit's own."""
    with zipfile.ZipFile(wheel) as archive:
        files = {each: archive.read(each) for each in archive.infolist() if not each.is_dir()}
    licenses = licenses_of([each.filename for each in files])
    if not licenses:
        print(f"{wheel.name}: no library but cropkit's own")
        return
    (record,) = (each for each in files if each.filename.endswith(".dist-info/RECORD"))
    folder = record.filename.removesuffix("RECORD")
    del files[record]
    for each, content in files.items():
        if each.filename == f"{folder}METADATA":
            files[each] = with_licenses(content.decode(), licenses).encode()
    for text, license in licenses:
        each = zipfile.ZipInfo(f"{folder}licenses/{text}", record.date_time)
        each.external_attr = record.external_attr
        files[each] = (TEXTS / text).read_bytes()
        print(f"{wheel.name}: {text}, {license}")
    lines = io.StringIO()
    csv.writer(lines, lineterminator="\n").writerows(
        [record_line(each.filename, content) for each, content in files.items()]
        + [(record.filename, "", "")]
    )
    files[record] = lines.getvalue().encode()  # the last, as the format of wheels advises
    with zipfile.ZipFile(wheel, "w") as archive:
        for each, content in files.items():
            archive.writestr(each, content, zipfile.ZIP_DEFLATED)


def main() -> None:
    """Run the command line."""
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    wheels = sorted(Path(sys.argv[1]).glob("*.whl"))
    if not wheels:
        raise SystemExit(f"{sys.argv[1]}: no wheel in it")
    for wheel in wheels:
        add_licenses(wheel)


if __name__ == "__main__":
    main()
