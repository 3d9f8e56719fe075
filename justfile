# One command for each chore; `just check` is what must hold before a change is kept.

python := ".venv/bin/python"
bin := ".venv/bin"

# Everything: lint, types, contracts, tests.
check: lint types contracts test

test *args:
    {{python}} -m pytest {{args}}

lint:
    {{bin}}/ruff check
    {{bin}}/ruff format --check

types:
    {{bin}}/mypy --strict src

contracts:
    {{bin}}/lint-imports --no-logo

bench *args:
    {{python}} bench/run.py {{args}}

serve *args:
    {{bin}}/alphapack serve {{args}}

replay +files:
    {{bin}}/alphapack replay {{files}}

# Install exactly what is locked, and the package from this folder.
install:
    python3 -m venv .venv
    {{bin}}/pip install -q --require-hashes -r requirements/dev.txt
    {{bin}}/pip install -q --no-deps --no-build-isolation -e .

# Lock the newest versions for every supported Python and platform (needs uv).
lock:
    uv pip compile --universal --upgrade --python-version 3.11 --generate-hashes --no-header --no-annotate --quiet \
        --output-file requirements/core.txt pyproject.toml requirements/build.in
    uv pip compile --universal --upgrade --python-version 3.11 --generate-hashes --no-header --no-annotate --quiet \
        --extra dev --constraints requirements/core.txt --output-file requirements/dev.txt pyproject.toml requirements/build.in
    uv pip compile --universal --upgrade --python-version 3.11 --generate-hashes --no-header --no-annotate --quiet \
        --extra bench --output-file requirements/peers.txt pyproject.toml requirements/build.in requirements/peers.in

# Install the libraries that benchmarks compare with, beside the package, in a folder of their own.
peers:
    python3 -m venv .venv-peers
    .venv-peers/bin/pip install -q --require-hashes -r requirements/peers.txt
    .venv-peers/bin/pip install -q --no-deps --no-build-isolation -e .
