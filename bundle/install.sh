#!/bin/sh
# Puts CRIMSON up on a machine without a network, out of the bundle that this file lies in.
set -u

usage() {
    cat <<'END'
sh install.sh [--python PYTHON] [--into PYTHON] FOLDER

FOLDER           where to, such as /opt/crimson; it must not exist or be empty
--python PYTHON  the Python that the new virtual environment is made with
--into PYTHON    install into the environment of this Python, and make no new one
END
}

fail() {
    echo "install.sh: $*" >&2
    exit 1
}

# What bundle.txt says under a name: a line for each value.
told() {
    sed -n "s/^$1=//p" "$here/bundle.txt"
}

arguments() {
    python= into= folder=
    while [ $# -gt 0 ]; do
        case $1 in
        -h | --help) usage && exit 0 ;;
        --python | --into)
            [ $# -gt 1 ] || fail "$1 needs a Python, such as /usr/bin/python3"
            [ -z "$python$into" ] || fail "give one of --python and --into, once"
            if [ "$1" = --into ]; then into=$2; else python=$2; fi
            shift 2
            ;;
        -*) fail "there is no option $1; see: sh install.sh --help" ;;
        *)
            [ -z "$folder" ] || fail "give one FOLDER; see: sh install.sh --help"
            folder=$1
            shift
            ;;
        esac
    done
    [ -n "$folder" ] || fail "FOLDER is missing, such as /opt/crimson; see: sh install.sh --help"
    case $folder in
    *[\'\"\$\`\\:]*) fail "FOLDER $folder: leave out quotes, \$, \\ and colons" ;;
    /*) ;;
    *) folder=$(pwd)/$folder ;;
    esac
}

check_python() {
    wanted=$(told python)
    if [ -n "$into" ]; then
        python=$into
    elif [ -z "$python" ]; then
        if command -v "python$wanted" >/dev/null 2>&1; then python=python$wanted; else python=python3; fi
    fi
    command -v "$python" >/dev/null 2>&1 ||
        fail "this bundle is for Python $wanted; there is no $python here: name one with --python PYTHON"
    found=$("$python" -c 'import platform, sys; print("%d.%d" % sys.version_info[:2], sys.implementation.name, platform.machine(), platform.libc_ver()[1] or "none", sys.prefix != sys.base_prefix, sys.prefix)') ||
        fail "$python does not run"
    # shellcheck disable=SC2086 # to be split into words
    set -- $found
    [ "$1" = "$wanted" ] || fail "this bundle is for Python $wanted; found $1: make one with --python $1"
    [ "$2" = cpython ] || fail "this bundle is for CPython; $python is $2"
    [ "$3" = "$(told machine)" ] ||
        fail "this bundle is for $(told machine); this machine is $3: make one with --platform manylinux_2_28_$3"
    least=$(told glibc)
    case $4 in
    2.*) [ "${4#2.}" -ge "${least#2.}" ] ||
        fail "this bundle is for glibc $least or later; found $4: make one with --platform manylinux_2_${4#2.}_$3" ;;
    *) fail "this bundle is for Linux with glibc $least or later; this machine has no glibc" ;;
    esac
    if [ -z "$into" ] && [ "$5" = True ] && [ -n "$(told there)" ]; then
        fail "$python is a virtual environment, and this bundle leaves out packages that the target has: use --into $python"
    fi
    shift 5
    prefix=$*
}

check_folder() {
    if [ -f "$folder/.installing" ]; then
        clear_folder # an earlier run was killed
    elif [ -f "$folder/env.sh" ]; then
        fail "$folder holds an installation already: remove it, or give another FOLDER"
    elif [ -e "$folder" ] && { [ ! -d "$folder" ] || [ -n "$(ls -A "$folder")" ]; }; then
        fail "$folder is not empty: give another FOLDER"
    fi
}

# KiB that must be free where a path is, or will be.
check_space() {
    place=$1
    while [ ! -d "$place" ]; do place=$(dirname "$place"); done
    free=$(df -Pk "$place" | awk 'NR == 2 { print $4 }')
    [ "$free" -ge "$2" ] || fail "no space: $1 needs $(($2 / 1024 + 1)) MiB, and $((free / 1024)) MiB are free"
}

check_files() {
    echo "Checking the files ..."
    bad=0
    while read -r sum name; do
        if [ ! -f "$here/$name" ]; then
            echo "install.sh: $name is missing: copy it again" >&2
            bad=1
        elif [ "$(sha256sum <"$here/$name" | cut -d ' ' -f 1)" != "$sum" ]; then
            echo "install.sh: $name is damaged: copy it again" >&2
            bad=1
        fi
    done <"$here/SHA256SUMS"
    for name in "$here"/wheels/*; do
        grep -qF "  wheels/${name##*/}" "$here/SHA256SUMS" || {
            echo "install.sh: wheels/${name##*/} does not belong to this bundle: remove it" >&2
            bad=1
        }
    done
    [ $bad = 0 ] || exit 1
}

# All files below one folder of the bundle into another folder, parts joined.
join_files() {
    [ -d "$here/$1" ] || return 0
    (cd "$here" && find "$1" -type f | LC_ALL=C sort) >"$folder/.joining" || fail "$folder cannot be written"
    while read -r name; do
        whole=$2/${name#"$1"/}
        case $name in
        *.part-[0-9][0-9][0-9][0-9][0-9]) whole=${whole%.part-*} ;;
        *) [ "$1" != wheels ] || continue ;; # taken from where it lies
        esac
        mkdir -p "$(dirname "$whole")" && cat "$here/$name" >>"$whole" || fail "$whole cannot be written: is the disk full?"
    done <"$folder/.joining"
    rm "$folder/.joining"
}

# pip out of the bundle, deaf to the machine's configuration.
run_pip() {
    PIP_CONFIG_FILE=/dev/null PYTHONPATH=$pip "$python" -m pip "$@" --isolated --disable-pip-version-check --quiet \
        --no-index --no-cache-dir --no-user --root-user-action ignore \
        --find-links "$here/wheels" --find-links "$folder/.wheels" 2>"$folder/.pip" && return
    reason=$(sed -n 's/^ERROR: //p' "$folder/.pip" | head -n 1)
    [ -n "$reason" ] || reason=$(tail -n 1 "$folder/.pip")
    [ -z "$(told there)" ] || reason="$reason. The bundle leaves out what --have listed; $python must have it"
    fail "pip: $reason"
}

make_environment() {
    tools=
    if [ -z "$into" ]; then
        echo "Making a virtual environment ..."
        seen=
        [ -z "$(told there)" ] || seen=--system-site-packages
        # shellcheck disable=SC2086 # nothing, where it is empty
        "$python" -m venv --without-pip $seen "$folder/venv" || fail "$python cannot make a virtual environment"
        python=$folder/venv/bin/python tools=pip
    fi
    echo "Installing ..."
    pip=$(find "$here/wheels" "$folder/.wheels" -name 'pip-*.whl')
    # shellcheck disable=SC2086 # nothing, where it is empty
    run_pip install "$(told requirement)" $tools
    # a version of the same number may have been there
    own=$(find "$here/wheels" "$folder/.wheels" -name "$(told wheel)")
    [ -z "$into" ] || run_pip install --no-deps --force-reinstall "$own"
}

clear_folder() {
    rm -rf "$folder/venv" "$folder/weights" "$folder/hub" "$folder/source" "$folder/.wheels"
    rm -f "$folder/env.sh" "$folder/.env.sh" "$folder/.joining" "$folder/.pip" "$folder/.installing"
}

clean_up() {
    status=$?
    [ $status = 0 ] && return
    clear_folder
    rmdir "$folder" 2>/dev/null
    echo "install.sh: nothing was left in $folder" >&2
}

# Written last: where it is, all is there.
write_environment() {
    {
        echo "# for sh and bash: . $folder/env.sh"
        echo "PATH='$("$python" -c 'import sysconfig; print(sysconfig.get_path("scripts"))')':\$PATH"
        echo "CRIMSON_WEIGHTS='$folder/weights'"
        echo "HF_HUB_OFFLINE=1"
        echo "export PATH CRIMSON_WEIGHTS HF_HUB_OFFLINE"
        [ ! -d "$folder/hub" ] || echo "HF_HUB_CACHE='$folder/hub'; export HF_HUB_CACHE"
    } >"$folder/.env.sh" && rm -rf "$folder/.wheels" "$folder/.pip" &&
        mv "$folder/.env.sh" "$folder/env.sh" && rm "$folder/.installing" || fail "$folder cannot be written"
}

explain() {
    cat <<END
Installed in $folder. Score with:

    . $folder/env.sh
    crimson score $folder/source/examples/reports.csv --judge offline
END
    told judge | while read -r judge; do
        echo "    crimson score reports.csv --judge \"$judge\""
    done
    echo "    python -c 'import evaluate; evaluate.load(\"$folder/source/crimson_metric.py\", \"offline\")'"
}

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
arguments "$@"
for name in SHA256SUMS bundle.txt manifest.json; do
    [ -f "$here/$name" ] || fail "$name is missing: this bundle is not whole; copy it again, or make it again"
done
check_python
check_folder
if [ -n "$into" ]; then
    check_space "$prefix" "$(told kib_installed)"
    check_space "$folder" "$(told kib_joined)"
else
    check_space "$folder" "$(($(told kib_installed) + $(told kib_joined)))"
fi
check_files
trap clean_up EXIT
trap 'exit 130' INT TERM
mkdir -p "$folder" && : >"$folder/.installing" || fail "$folder cannot be written"
join_files wheels "$folder/.wheels"
mkdir -p "$folder/.wheels" "$folder/weights"
join_files weights "$folder/weights"
join_files hub "$folder/hub"
tar -xzf "$here/source.tar.gz" -C "$folder" || fail "source.tar.gz cannot be unpacked into $folder"
make_environment
write_environment
explain
