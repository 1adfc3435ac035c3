"""Run asv with this project's settings, but with its results in a folder that is thrown away."""

import json
import os
import subprocess
import sys
from pathlib import Path

from asv import util

from asv_bench.commits import ROOT


def run_asv(folder: Path, *arguments: str, repository: Path = ROOT, **environment: str) -> None:
    """Run ``asv`` in `folder`, where it finds and leaves ``results``, and leaves ``html``.

    Raises
    ------
    RuntimeError
        asv fails; the message is what it printed.
    """
    conf = util.load_json(str(ROOT / "asv_bench" / "asv.conf.json"), js_comments=True)
    conf |= {"repo": str(repository), "benchmark_dir": str(ROOT / "asv_bench" / "benchmarks")}
    conf |= {f"{name}_dir": str(folder / name) for name in ("results", "html", "env")}
    (folder / "asv.conf.json").write_text(json.dumps(conf))
    done = subprocess.run(
        [sys.executable, "-m", "asv", "--config", str(folder / "asv.conf.json"), *arguments],
        env=os.environ | environment,
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"asv {' '.join(arguments)}:\n{done.stdout}{done.stderr}")
