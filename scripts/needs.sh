# shellcheck shell=bash
# Read by the other scripts, not run by itself: what each of them needs, said before anything is built.

# need PROGRAM HOW: ends with a sentence on how to get PROGRAM when it is not there.
need() {
    command -v "$1" >/dev/null 2>&1 && return
    echo "$(basename "$0"): $1 is missing. $2" >&2
    exit 1
}

need_rust() {
    need cargo "Install Rust from https://rustup.rs, then open a new shell."
    need cc "Install a C compiler (Debian and Ubuntu: build-essential; Fedora: gcc): the TLS library has parts in C."
}

# The runner of the tests, which cargo can get.
need_nextest() {
    cargo nextest --version >/dev/null 2>&1 && return
    echo "cargo-nextest, which runs the tests, is missing: building it, some minutes, once."
    cargo install --locked cargo-nextest
}

# The folder of builds, also when CARGO_TARGET_DIR is set. The caller stands in the root of the checkout.
target_folder() {
    case "${CARGO_TARGET_DIR:-target}" in
        /*) echo "$CARGO_TARGET_DIR" ;;
        *) echo "$PWD/${CARGO_TARGET_DIR:-target}" ;;
    esac
}

# stage NAME COMMAND...: says what it does, does it, and says how long it took. Ends the script when it fails.
stage() {
    local name=$1 start=$SECONDS
    shift
    echo "== $name"
    if ! "$@"; then
        echo "== $name failed after $((SECONDS - start)) s" >&2
        return 1
    fi
    echo "== $name: $((SECONDS - start)) s"
}
