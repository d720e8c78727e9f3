# shellcheck shell=bash
# For the tools beside it, which source it: programs of others that they call.

# ensure_programs WHO NEED…: WHO can't go without. A NEED is a program's name, or a pattern of a file's path, and behind
# a colon the Debian packages that bring it, with commas between them.
ensure_programs() {
    local who=$1 need missing=() packages=()
    for need in "${@:2}"; do
        if ! command -v "${need%%:*}" >/dev/null && ! compgen -G "${need%%:*}" >/dev/null; then
            missing+=("${need%%:*}")
            packages+=("${need#*:}")
        fi
    done
    ((${#missing[@]})) || return 0
    mapfile -t packages < <(printf '%s\n' "${packages[@]//,/$'\n'}" | sort -u)
    if ((EUID != 0)) || ! command -v apt-get >/dev/null; then
        fail "$who need ${missing[*]}; on Debian, as root: apt-get install ${packages[*]}"
    fi
    printf 'Installing the Debian packages %s …\n' "${packages[*]}" >&2
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update
    apt-get -qq install --yes --no-install-recommends "${packages[@]}" >/dev/null
}
