"""Audio that a container cannot hold as it is: decoded and encoded anew."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import av
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.packet import Packet

_HOLDS = {
    "mpegts": ("aac", "mp2", "mp3", "ac3", "eac3", "dca", "truehd", "opus"),
    "flv": ("aac", "mp3", "ac3", "eac3", "flac", "opus"),
    "rtsp": ("aac", "mp2", "mp3", "ac3", "opus", "pcm_mulaw", "pcm_alaw"),
}
"""For containers that FFmpeg lets take what nothing can read; the others refuse by themselves."""
_EXPERIMENTAL = {"mp4": ("truehd",), "mov": ("truehd", "opus")}
_ENCODERS = {"webm": "libopus"}
_BITS = {"aac": 96_000, "libopus": 64_000}
"""Bits per second and channel."""
_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}


def held(codec: str, container: str) -> bool:
    """Whether a container may take this codec unchanged; the container itself may still refuse it.

    Args:
        codec: FFmpeg's canonical name of the codec.
        container: FFmpeg's name of the format.
    """
    if codec in _EXPERIMENTAL.get(container, ()):
        return False
    return container not in _HOLDS or codec in _HOLDS[container]


class Recoder:
    """One stream of audio, encoded anew: AAC, or Opus where the container has no AAC. Used by one thread.

    Rate and channels are kept where the encoder takes them; other layouts than mono, stereo, 5.1 and 7.1 become stereo.
    """

    def __init__(self, source: AudioStream, output: OutputContainer) -> None:
        """Adds a stream to an output whose header is not written yet."""
        self.codec = _ENCODERS.get(output.format.name, "aac")
        """FFmpeg's name of the encoder."""
        self.damaged = 0
        """Packets that could not be decoded."""
        self._source, self._from_zero = source, output.format.name in _HOLDS
        rates: list[int] = sorted(av.Codec(self.codec, "w").audio_rates or [source.rate])
        rate = next((each for each in rates if each >= source.rate), rates[-1])
        layout = _LAYOUTS.get(source.channels, "stereo")
        target = output.add_stream(self.codec, rate=rate, layout=layout)
        assert isinstance(target, AudioStream)
        target.bit_rate = _BITS[self.codec] * av.AudioLayout(layout).nb_channels
        self.target = target
        """The output's stream."""

    def encode(self, packet: Packet[Any] | None) -> Iterator[Packet[Any]]:
        """Packets of the output for one of the input, whose times are the output's; None asks for what is left.

        Samples of before 0 are left out: no container shows them.
        """
        try:
            frames = self._source.decode(packet)
        except av.error.InvalidDataError:
            self.damaged += 1
            return
        for frame in frames:
            if frame.pts is None or frame.pts >= 0:
                yield from self._fitting(self.target.encode(frame))
        if packet is None:
            yield from self._fitting(self.target.encode(None))

    def _fitting(self, packets: list[Packet[AudioStream]]) -> list[Packet[AudioStream]]:
        """Without the encoder's priming where times cannot lie before 0: it would move the whole film."""
        return [each for each in packets if not (self._from_zero and each.pts is not None and each.pts < 0)]
