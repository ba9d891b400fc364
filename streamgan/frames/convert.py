"""Between decoded pictures and `Frame`: colours, rotation, depth and transparency, in and out."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import cv2  # before av: loaded after it, OpenCV's window library fails

# isort: split
import av
import numpy as np
import numpy.typing as npt
from av.codec import CodecContext
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from streamgan.api import Color, Frame
from streamgan.frames import color, hdr, pixels, planar

_ROTATE = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, -90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180}
_DEPTHS = (8, 10, 12, 16)
_LIFT = 128
_SEES_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}


class FrameMaker:
    """Makes a `Frame` of each decoded picture of one stream; the first picture says what they are like.

    High dynamic range becomes BT.709 (see `streamgan.frames.hdr`). Transparent pixels keep the colours that they have,
    which is what a model sees. Used by one thread: it keeps the scaler's tables from frame to frame.
    """

    def __init__(self, first: av.VideoFrame, codec: str = "") -> None:
        """Looks at the first picture.

        Args:
            first: as it was decoded.
            codec: FFmpeg's name of what decoded it. A GIF is taken for transparent only if its first picture is, since
                FFmpeg gives all of them an alpha.

        Raises:
            SourceError: if its colours are coded in a way that cannot be read.
        """
        self._reformatter = VideoReformatter()
        self._size = (first.width, first.height)
        self._rotation = _ROTATE.get(_quarter_turns(first))
        self._given = color.read_color(first)
        self._curve: hdr.Curve | None = None
        form = pixels.layout(first.format.name)
        self.color: Color = self._given
        """What the numbers of a film made of the frames shall mean: what those of the stream do, if it is no HDR."""
        self.bits = next(bits for bits in _DEPTHS if bits >= form.bits)
        """Bits of a sample; see `VideoInfo`."""
        self.alpha = form.alpha and (codec != "gif" or self._is_transparent(first))
        """Whether the frames carry an alpha; see `VideoInfo`."""
        self.turned = self._rotation in (cv2.ROTATE_90_CLOCKWISE, cv2.ROTATE_90_COUNTERCLOCKWISE)
        """Whether width and height change places."""
        self.size: tuple[int, int] = self._size[::-1] if self.turned else self._size
        """(width, height) of the frames, upright, in pixels."""
        self.planar = False
        """Whether pictures may stay Y, Cb and Cr, as a `planar.PlanarFrame`, if that is what they are."""
        self.notes: list[str] = []
        """What was done to the pictures beside decoding, one line each; complete once the frames are made."""
        self._settle(first, form)

    def _settle(self, first: av.VideoFrame, form: pixels.Layout) -> None:
        """Decides on the colours of the result, where the stream's own are none that it can have."""
        if not form.rgb and not form.gray:
            self.notes.extend(color.doubts(first))
        kind = hdr.NAMES.get(self._given.transfer)
        if kind is not None:
            brightest = hdr.peak(first) if kind == "PQ" else hdr.NOMINAL_PEAK
            self._curve = hdr.curve(self._given.transfer, self._given.primaries, brightest)
            self.color = hdr.SDR
            what = f"HDR ({kind}, up to {brightest:.0f} cd/m²) was tone-mapped to SDR"
            self.notes.append(f"{what}: BT.709, by method A of BT.2446")
        elif form.gray or self._given.matrix == color.YCGCO:
            matrix = color.guess(first.height) if self._given.matrix == color.YCGCO else self._given.matrix
            self.color = dataclasses.replace(self._given, matrix=matrix, full_range=False)

    def make(self, picture: av.VideoFrame, pts: int, time_base: Fraction, duration: int) -> Frame:
        """A picture as RGB, upright, of the first one's size.

        Raises:
            av.error.FFmpegError: if its pixel format cannot be converted.
        """
        form = pixels.layout(picture.format.name)
        matrix, full_range = self._meaning(picture, form)
        if self.planar and self._stays(picture, form, matrix):
            planes = planar.Planes(picture, dataclasses.replace(self.color, matrix=matrix, full_range=full_range))
            return planar.PlanarFrame(pts, time_base, duration, planes=planes)
        given = pixels.read(self._reformatter, picture, self._size)
        image, fine = self._colors(given, matrix, full_range)
        alpha = None if given.alpha is None else _eight_bits(given.alpha, given.bits)
        frame = Frame(image, pts, time_base, duration, alpha=alpha, fine=fine if self.bits > 8 else None)
        if alpha is not None and not self.alpha:
            frame = self._without(frame)
        return frame if self._rotation is None else _turned(frame, self._rotation)

    def _stays(self, picture: av.VideoFrame, form: pixels.Layout, matrix: int) -> bool:
        """Whether a picture can be a `planar.PlanarFrame`."""
        turned = self._rotation is not None or (picture.width, picture.height) != self._size
        plain = matrix != color.YCGCO and self._curve is None and self.bits == 8 and not self.alpha
        return plain and not turned and planar.is_planar(form, self._size)

    def _colors(
        self, given: pixels.Unpacked, matrix: int, full_range: bool
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int8] | None]:
        """Levels of 8 bits, rounded, and what is left of 1/256 of a level in a deeper picture."""
        if given.bits == 8 and self._curve is None:
            return planar.to_rgb(given, matrix, full_range), None
        width, height = given.size
        image, fine = np.empty((height, width, 3), np.uint8), np.empty((height, width, 3), np.uint8)
        for rows in planar.strips(height, width * 2):
            values = color.to_rgb(pixels.merged(given, rows), matrix, full_range, given.bits)
            if self._curve is not None:
                values = np.left_shift(values, 8, dtype=np.uint16) if given.bits == 8 else values
                values = hdr.tone_map(values, self._curve)
            low, high = cv2.split((values + np.uint16(_LIFT)).view(np.uint8).reshape(len(values), -1, 2))
            image[rows], fine[rows] = high.reshape(values.shape), low.reshape(values.shape)
        return image, np.bitwise_xor(fine, _LIFT, out=fine).view(np.int8)

    def _meaning(self, picture: av.VideoFrame, form: pixels.Layout) -> tuple[int, bool]:
        """Matrix and range of a picture; those that it does not name are the first one's."""
        if form.rgb:
            return color.RGB, True
        own = color.read_color(picture)
        return color.RGB if form.gray else self._given.matrix if own.guessed else own.matrix, own.full_range

    def _is_transparent(self, picture: av.VideoFrame) -> bool:
        """Whether any pixel lets something through."""
        given = pixels.read(self._reformatter, picture, self._size)
        return given.alpha is not None and bool(given.alpha.min() < (1 << given.bits) - 1)

    def _without(self, frame: Frame) -> Frame:
        """A frame without the alpha that the first picture did not announce; says so once."""
        if frame.alpha is None or frame.alpha.min() == 255:
            return dataclasses.replace(frame, alpha=None)
        note = "transparent pixels are shown over white: the first picture has none"
        self.notes.extend([] if note in self.notes else [note])
        return over_white(frame)


def decoder_with_alpha(stream: VideoStream) -> VideoCodecContext | None:
    """A decoder that sees the alpha of a WebM stream, which FFmpeg's own decoders of VP8 and VP9 leave out.

    Args:
        stream: of an open input.

    Returns:
        A context to decode the stream's packets with, by ``context.decode(packet)`` and ``context.decode(None)`` at
        the end; None if the stream's own will do.
    """
    name = _SEES_ALPHA.get(stream.codec_context.name)
    if name is None or stream.metadata.get("alpha_mode") != "1":
        return None
    try:
        context = CodecContext.create(name, "r")
    except (av.error.FFmpegError, ValueError):  # an FFmpeg that was built without it
        return None
    assert isinstance(context, VideoCodecContext)
    own = stream.codec_context
    context.extradata = own.extradata
    # What the container says of the colours goes to frames by the decoder's settings, which nobody has copied.
    context.colorspace, context.color_range = own.colorspace, own.color_range
    context.color_primaries, context.color_trc = own.color_primaries, own.color_trc
    return context


def to_picture(reformatter: VideoReformatter, frame: Frame, meaning: Color, pixel_format: str) -> av.VideoFrame:
    """A frame for an encoder; the picture carries the tags of `meaning`, and no time.

    Args:
        reformatter: one per thread.
        frame: a fine part of another size than the image is left out, an alpha of another size is scaled. Where the
            pixel format has no alpha, the image is shown over white.
        meaning: what the numbers of the result shall mean.
        pixel_format: FFmpeg's name of any format of 8 to 16 bits, such as ``yuv420p`` or ``yuva444p10le``. Without an
            alpha in the frame, the picture is opaque.

    Raises:
        av.error.FFmpegError: if FFmpeg cannot make this format.
        ValueError: if there is no such format.
    """
    made = _drawn(frame, meaning, pixel_format)
    if made is None:
        form = pixels.layout(pixel_format)
        frame = fitted(frame) if form.alpha else over_white(frame)
        plain = form.bits == 8 and not form.gray
        made = (_plain_picture if plain else _deep_picture)(reformatter, frame, meaning, pixel_format)
    color.stamp(made, meaning)
    return made


def _drawn(frame: Frame, meaning: Color, pixel_format: str) -> av.VideoFrame | None:
    """The picture that a frame's planes were drawn as, if it is what an encoder shall have."""
    if not isinstance(frame, planar.PlanarFrame) or not frame.planes.drawn or pixel_format != planar.FORMAT:
        return None
    own = frame.planes.color
    alike = (own.matrix, own.full_range) == (meaning.matrix, meaning.full_range)
    return frame.planes.picture if alike else None


def _plain_picture(reformatter: VideoReformatter, frame: Frame, meaning: Color, pixel_format: str) -> av.VideoFrame:
    """8 bits, by FFmpeg's scaler."""
    # from_numpy_buffer borrows the array; from_ndarray copies it line by line, 5.8 ms at 1280x720 here.
    if frame.alpha is None:
        given = av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(frame.image), format="rgb24")
    else:
        samples = np.dstack([frame.image, frame.alpha])
        given = av.VideoFrame.from_numpy_buffer(samples, format="rgba")
    return color.scale_from_rgb(reformatter, given, meaning, pixel_format)


def _deep_picture(reformatter: VideoReformatter, frame: Frame, meaning: Color, pixel_format: str) -> av.VideoFrame:
    """More than 8 bits, or grey, by our own arithmetic: FFmpeg's scaler takes in no `Frame.fine`."""
    height, width = frame.image.shape[:2]
    picture, views = pixels.canvas((width, height), pixel_format)
    form = pixels.layout(picture.format.name)
    wanted = meaning
    if form.rgb or form.gray:  # grey files seldom say their range, and who reads them takes it for full
        wanted = dataclasses.replace(meaning, matrix=color.RGB if form.rgb else meaning.matrix, full_range=True)
    for rows in planar.strips(height, width * 2):
        planes = color.from_rgb(_joined(frame, rows), _LIFT, wanted, form.bits, form.step)
        for number, (view, plane) in enumerate(zip(views, planes[: 1 if form.gray else 3], strict=False)):
            top = rows.start // form.step[1] if number else rows.start
            view[top : top + len(plane)] = plane
    if form.alpha:
        most = (1 << form.bits) - 1
        opaque = np.full((height, width), 255, np.uint8)
        alpha = opaque if frame.alpha is None else frame.alpha
        views[3][...] = (alpha.astype(np.uint32) * most + 127) // 255
    return pixels.packed(reformatter, picture, pixel_format)


def _joined(frame: Frame, rows: slice) -> npt.NDArray[np.uint16]:
    """Rows of image and fine part in 1/256 of a level, higher by `_LIFT` so that nothing is below 0."""
    image = frame.image[rows]
    high = np.ascontiguousarray(image).reshape(len(image), -1)
    if frame.fine is None:
        low = np.full_like(high, _LIFT)
    else:
        low = np.bitwise_xor(np.ascontiguousarray(frame.fine[rows]).view(np.uint8), _LIFT).reshape(high.shape)
    return np.asarray(cv2.merge([low, high])).view(np.uint16).reshape(image.shape)


def _turned(frame: Frame, rotation: int) -> Frame:
    """A frame with all that it has turned."""
    image = np.asarray(cv2.rotate(frame.image, rotation), dtype=np.uint8)
    alpha = None if frame.alpha is None else np.asarray(cv2.rotate(frame.alpha, rotation), dtype=np.uint8)
    fine = None if frame.fine is None else np.asarray(cv2.rotate(frame.fine, rotation), dtype=np.int8)
    return dataclasses.replace(frame, image=image, alpha=alpha, fine=fine)


def over_white(frame: Frame) -> Frame:
    """A transparent frame on white, without its alpha; others are returned as they are."""
    frame = fitted(frame)
    if frame.alpha is None:
        return frame
    share = frame.alpha[..., None].astype(np.float32) / 255
    white = np.float32(255) * (1 - share)
    if frame.fine is None:
        return dataclasses.replace(frame, image=np.rint(frame.image * share + white).astype(np.uint8), alpha=None)
    values = (frame.image + frame.fine * np.float32(1 / 256)) * share + white
    image = np.rint(values).clip(0, 255)
    fine = np.rint((values - image) * 256).clip(-128, 127)
    return dataclasses.replace(frame, image=image.astype(np.uint8), fine=fine.astype(np.int8), alpha=None)


def fitted(frame: Frame) -> Frame:
    """A frame whose alpha is scaled to the size of its image, and whose fine part is left out if it has another."""
    alpha, fine, size = frame.alpha, frame.fine, frame.image.shape[:2]
    if fine is not None and fine.shape != frame.image.shape:
        fine = None
    if alpha is not None and alpha.shape != size:
        how = cv2.INTER_AREA if alpha.shape[0] >= size[0] else cv2.INTER_LINEAR
        alpha = np.asarray(cv2.resize(alpha, size[::-1], interpolation=how), dtype=np.uint8)
    unchanged = alpha is frame.alpha and fine is frame.fine
    return frame if unchanged else dataclasses.replace(frame, alpha=alpha, fine=fine)


def _eight_bits(alpha: pixels.Samples, bits: int) -> npt.NDArray[np.uint8]:
    """Opacity of any depth, rounded to 8 bits."""
    if bits == 8:
        return np.asarray(alpha, dtype=np.uint8)
    top = (1 << bits) - 1
    return ((alpha.astype(np.uint32) * 255 + top // 2) // top).astype(np.uint8)


def _quarter_turns(picture: av.VideoFrame) -> int:
    """The rotation a player would apply, counter-clockwise, as one of 0, 90, 180 and -90 degrees."""
    degrees = round(picture.rotation / 90) * 90 % 360
    return degrees - 360 if degrees == 270 else degrees
