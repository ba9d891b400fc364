"""High dynamic range to standard: PQ and HLG as BT.709, so that a model sees what it was trained on.

The light that a display would show, by SMPTE ST 2084 for PQ and by ITU-R BT.2100 for HLG on a display of 1000 cd/m², is
tone-mapped by method A of ITU-R BT.2446 (section 4) to 100 cd/m², gets the primaries of BT.709, and becomes the signal
of a display by ITU-R BT.1886. Diffuse white, 203 cd/m² by ITU-R BT.2408, so comes to 69 % of the signal; what was
brighter keeps its drawing above.
"""

from __future__ import annotations

import dataclasses
import functools
import struct
from collections.abc import Callable
from typing import Any

import cv2  # before av: loaded after it, OpenCV's window library fails

# isort: split
import av
import numpy as np
import numpy.typing as npt
from av.sidedata.sidedata import Type

from streamgan.api import Color

NAMES = {16: "PQ", 18: "HLG"}
"""The transfer characteristics of high dynamic range, by their numbers in ITU-T H.273."""
SDR = Color(matrix=1, primaries=1, transfer=1, full_range=False)
"""What the pictures are afterwards."""
NOMINAL_PEAK = 1000.0
"""The brightest light in cd/m² of HLG, and of PQ that does not name its own."""
_DARKEST_PEAK, _BRIGHTEST_PEAK, _SDR_PEAK = 300.0, 4000.0, 100.0
_GAMMA, _SYSTEM_GAMMA = 2.4, 1.2
_CODES, _WHITE = 1 << 16, 255 * 256
_LUMA = np.array([[0.2627, 0.6780, 0.0593]], np.float32)  # BT.2020
_FLOAT = npt.NDArray[np.float32]
# Chromaticities of red, green, blue; the white of all is D65.
_PRIMARIES = {1: (0.64, 0.33, 0.30, 0.60, 0.15, 0.06), 9: (0.708, 0.292, 0.170, 0.797, 0.131, 0.046)}
_PRIMARIES |= {12: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060)}
_D65 = (0.3127, 0.3290)


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
    """Tables from one kind of high dynamic range to BT.709, each of 65536 values, of float32."""

    power: _FLOAT
    """The root (1/2.4) of light as a share of the peak, by the picture's number: of the display for PQ, of the scene
    for HLG."""
    scene: _FLOAT | None
    """For HLG: light of the scene, by the picture's number."""
    system: _FLOAT | None
    """For HLG: what `power` of the display is over that of the scene, by the square root of the scene's luminance."""
    share: _FLOAT
    """f(Y'_SDR) of BT.2446, by Y'."""
    gamut: _FLOAT
    """``(3, 3)``, light with the picture's primaries to light with those of BT.709."""


def peak(picture: av.VideoFrame) -> float:
    """The brightest light of a PQ film in cd/m²: what its first picture says, else `NOMINAL_PEAK`.

    MaxCLL (CTA-861.3) counts more than the mastering display (SMPTE ST 2086); both are held to 300 to 4000.
    """
    found = 0.0
    beside: list[Any] = list(picture.side_data)
    for data in beside:
        if data.type == Type.CONTENT_LIGHT_LEVEL:
            found = float(struct.unpack_from("=I", bytes(data))[0]) or found
        elif data.type == Type.MASTERING_DISPLAY_METADATA and not found:
            upper, lower = struct.unpack_from("=ii", bytes(data), 72)  # max_luminance, the tenth fraction
            found = upper / lower if lower else 0.0
    return min(max(found or NOMINAL_PEAK, _DARKEST_PEAK), _BRIGHTEST_PEAK)


@functools.cache
def curve(transfer: int, primaries: int, brightest: float) -> Curve:
    """The tables for a film.

    Args:
        transfer: 16 for PQ, 18 for HLG.
        primaries: by ITU-T H.273; those of BT.2020 if they are not known here.
        brightest: the peak of a PQ film in cd/m²; HLG has that of its display, `NOMINAL_PEAK`.
    """
    signal, even = np.minimum(np.arange(_CODES) / _WHITE, 1.0), np.arange(_CODES) / (_CODES - 1)
    given = np.array(_PRIMARIES.get(primaries, _PRIMARIES[9]))
    gamut = np.linalg.inv(_to_xyz(np.array(_PRIMARIES[1]))) @ _to_xyz(given)
    hlg = transfer == 18
    light = _hlg_scene(signal) if hlg else np.minimum(_pq_light(signal) / brightest, 1.0)
    system = (even**2).clip(1e-12) ** ((_SYSTEM_GAMMA - 1) / _GAMMA)
    return Curve(
        power=(light ** (1 / _GAMMA)).astype(np.float32),
        scene=light.astype(np.float32) if hlg else None,
        system=system.astype(np.float32) if hlg else None,
        share=_share(even.clip(1e-6), NOMINAL_PEAK if hlg else brightest).astype(np.float32),
        gamut=gamut.astype(np.float32),
    )


def tone_map(values: npt.NDArray[np.uint16], given: Curve) -> npt.NDArray[np.uint16]:
    """A picture of high dynamic range as BT.709.

    Args:
        values: ``(H, W, 3)`` uint16 red, green and blue in 1/256 of a level of 8 bits, full range.
        given: the tables of its kind.

    Returns:
        The same shape and unit, for a display by ITU-R BT.1886.
    """
    power = np.take(given.power, values, mode="clip")  # R', G', B'
    if given.scene is not None and given.system is not None:
        luminance = cv2.transform(np.take(given.scene, values, mode="clip"), _LUMA)
        power = _each(cv2.multiply, power, _looked_up(given.system, cv2.sqrt(luminance)))
    luma = np.asarray(cv2.transform(power, _LUMA), np.float32)  # Y'
    # Steps 3 to 5 of method A at once: C'b, C'r and Y' scaled, less 0.1 of a positive C'r, back as R', G', B'.
    reddish = np.maximum(power[..., 0] - luma, 0) * np.float32(0.1 / 1.4746)
    power = _each(cv2.add, power, luma * np.float32(0.1) - reddish)
    power = _each(cv2.multiply, power, _looked_up(given.share, luma))
    light = cv2.transform(_looked_up(_display_light(), power), given.gamut)
    return _looked_up(_display_signal(), cv2.sqrt(np.maximum(light, 0)))


def _each(does: Callable[[Any, Any], Any], picture: _FLOAT, plane: npt.NDArray[Any]) -> _FLOAT:
    """What OpenCV does with each colour of a picture and a plane; numpy is three times slower at it."""
    return np.asarray(does(picture, cv2.merge([plane] * 3)), np.float32)


def _looked_up(table: npt.NDArray[Any], share: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Values of a table by a share of 0..1, to which it is held."""
    index: Any = cv2.addWeighted(share, _CODES - 1, share, 0, 0, dtype=cv2.CV_16U)  # rounds, and stops at the ends
    return np.asarray(np.take(table, index, mode="clip"))


def _share(luma: npt.NDArray[np.float64], brightest: float) -> npt.NDArray[np.float64]:
    """Steps 1 to 4 of method A: f(Y'_SDR) = Y'_SDR / (1.1 Y'), with the paper's ρ_HDR, Y'_p, Y'_c and ρ_SDR."""
    rho_hdr, rho_sdr = (1 + 32 * (light / 10_000) ** (1 / _GAMMA) for light in (brightest, _SDR_PEAK))
    y_p = np.log(1 + (rho_hdr - 1) * luma) / np.log(rho_hdr)
    middle = -1.1510 * y_p**2 + 2.7811 * y_p - 0.6302
    y_c = np.where(y_p <= 0.7399, 1.0770 * y_p, np.where(y_p < 0.9909, middle, 0.5000 * y_p + 0.5000))
    return np.asarray((rho_sdr**y_c - 1) / (rho_sdr - 1) / (1.1 * luma))


@functools.cache
def _display_light() -> _FLOAT:
    """The EOTF of ITU-R BT.1886 without black level: signal to light."""
    return ((np.arange(_CODES) / (_CODES - 1)) ** _GAMMA).astype(np.float32)


@functools.cache
def _display_signal() -> npt.NDArray[np.uint16]:
    """Its inverse, by the square root of light: near black, equal steps of light would be steps that are seen."""
    return np.rint((np.arange(_CODES) / (_CODES - 1)) ** (2 / _GAMMA) * _WHITE).astype(np.uint16)


def _pq_light(signal: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """SMPTE ST 2084, the EOTF: signal E' of 0..1 to light in cd/m²."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    root = signal ** (1 / m2)
    return np.asarray(10_000 * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1))


def _hlg_scene(signal: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """ITU-R BT.2100, the inverse of the OETF of HLG: signal E' of 0..1 to scene light E of 0..1."""
    a = 0.17883277
    b, c = 1 - 4 * a, 0.5 - a * np.log(4 * a)
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)


def _to_xyz(primaries: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Light with given primaries to CIE XYZ, ``(3, 3)``: SMPTE RP 177."""
    x, y = np.append(primaries.reshape(3, 2), [_D65], axis=0).T
    columns = np.array([x / y, np.ones(4), (1 - x - y) / y])
    return np.asarray(columns[:, :3] * np.linalg.solve(columns[:, :3], columns[:, 3]))
