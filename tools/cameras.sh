# shellcheck shell=bash
# For the tools beside it, which source it: the RTSP server that stands for cameras. It runs in the system's Python.

CAMERA_PACKAGES=(gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-{base,good,bad} python3-gi)

# Installs it, or says what goes without it.
ensure_cameras() {
    compgen -G '/usr/lib/*/girepository-1.0/GstRtspServer-1.0.typelib' >/dev/null && return
    if ((EUID == 0)) && command -v apt-get >/dev/null; then
        printf 'Installing the Debian packages %s …\n' "${CAMERA_PACKAGES[*]}" >&2
        DEBIAN_FRONTEND=noninteractive apt-get -qq update &&
            DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends "${CAMERA_PACKAGES[@]}" \
                >/dev/null && return
    fi
    printf 'There is no RTSP server, so %s; on Debian, as root: apt-get install %s\n' "$1" "${CAMERA_PACKAGES[*]}" >&2
}
