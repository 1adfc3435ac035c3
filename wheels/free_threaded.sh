#!/usr/bin/env bash
# Test cropkit on free-threaded CPython 3.13:
#
#     wheels/free_threaded.sh tests/test_concurrency.py tests/test_threads.py ...
#
# Builds that Python from Debian trixie's source, once, into build/free-threaded; needs gcc and
# Debian's libffi-dev, libssl-dev and zlib1g-dev. cropkit's wheel for it is not repaired: some of
# the tools that `make wheel` needs have no wheels for such a Python.
set -euo pipefail
cd "$(dirname "$0")/.."

built=$PWD/build/free-threaded
if [[ ! -x $built/bin/python3.13t ]]; then
    mkdir -p "$built/apt/lists/partial" "$built/apt/archives/partial" "$built/source"
    cd "$built"
    # A list of sources of its own, from the system's mirror: the system's list stays as it is.
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' | head -n 1)
    echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" \
        >apt/sources.list
    apt=(apt-get --quiet --quiet --option "Dir::Etc::sourcelist=$PWD/apt/sources.list"
        --option Dir::Etc::sourceparts=- --option "Dir::State::lists=$PWD/apt/lists"
        --option "Dir::Cache=$PWD/apt" --option APT::Sandbox::User=root)
    "${apt[@]}" update
    "${apt[@]}" source --download-only --tar-only python3.13
    tar -xJf python3.13_*.orig.tar.xz --strip-components=1 -C source
    cd source
    # -O1: nothing here is about speed.
    ./configure --quiet --disable-gil --disable-test-modules --prefix="$built" OPT='-O1 -DNDEBUG'
    make --quiet --jobs="$(nproc)"
    make --quiet install >"$built/log"
    cd ../../..
fi

venv=$built/venv
rm -rf "$venv" "$built/wheel"
"$built/bin/python3.13t" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --only-binary :all: \
    numpy ml_dtypes pytest hypothesis pytest-timeout 'setuptools>=77' 'Cython>=3.3,<4'
"$venv/bin/python" -m pip wheel --quiet --no-build-isolation --no-deps --wheel-dir "$built/wheel" .
"$venv/bin/python" -m pip install --quiet --no-deps "$built"/wheel/cropkit-*.whl
"$venv/bin/python" -m cropkit info
"$venv/bin/python" -m pytest -p tests.support.no_skips -p no:cacheprovider \
    -m 'not (oracle or frameworks or large or build or gpu)' "$@"
