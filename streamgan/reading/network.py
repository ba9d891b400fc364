"""What FFmpeg needs to know to read over a network, and how long a lost connection is waited for."""

from __future__ import annotations

from collections.abc import Iterator

PATIENCE = 10.0
"""Seconds that a connection may take to come about, or a live one be silent, before it counts as lost."""
_WAITS = (1.0, 2.0, 4.0, 8.0)
_LIVE = ("rtsp", "rtsps", "rtmp", "rtmps", "rtmpt", "rtmpe", "rtp", "srt", "udp", "tcp", "mmsh", "mmst")
_SILENCE = {"rw_timeout": str(int(PATIENCE * 1e6))}
_WEB = {**_SILENCE, "reconnect": "1", "reconnect_on_http_error": "5xx", "reconnect_delay_max": "8"}


def is_network(location: str) -> bool:
    """Whether a location is a URL that may be slow, or go away."""
    return "://" in location and scheme(location) != "file"


def is_live(location: str) -> bool:
    """Whether a location goes on while nobody reads it: what is missed then is gone."""
    return is_network(location) and scheme(location) in _LIVE


def scheme(location: str) -> str:
    """The protocol of a URL in lower case; empty for a path."""
    return location.partition("://")[0].lower() if "://" in location else ""


def options(location: str) -> dict[str, str]:
    """FFmpeg's options for a location: time limits, TCP for RTSP (UDP loses packets), and over HTTP byte ranges that go
    on where a connection broke off, with FFmpeg's own back-off of 0, 1, 3 and 7 seconds."""
    protocol = scheme(location)
    if protocol in ("http", "https"):
        return dict(_WEB)
    if protocol in ("rtsp", "rtsps"):
        return {"rtsp_flags": "prefer_tcp", "timeout": _SILENCE["rw_timeout"]}
    if protocol == "udp":
        return {"overrun_nonfatal": "1"}
    return dict(_SILENCE) if is_network(location) else {}


def silence(location: str) -> float:
    """Seconds without a packet until a connection counts as lost: over HTTP, more than FFmpeg tries for itself."""
    return PATIENCE if is_live(location) else 3 * PATIENCE


def waits() -> Iterator[float]:
    """Seconds to wait before each further try to connect, growing; at the end of it the source is given up."""
    yield from _WAITS
