"""Clocks that misbehave."""

from __future__ import annotations

from fractions import Fraction

from streamgan.reading.timeline import Clock, Timeline

TENTH = Fraction(1, 10)


def test_a_good_clock_passes_and_a_bad_one_is_mended() -> None:
    assert [Timeline(30).place(tick, 1) for tick in (7,)] == [7]
    mixed = Timeline(30)
    assert [mixed.place(tick, 2) for tick in (0, 2, 6, 4, 8, None, 100)] == [0, 2, 6, 7, 8, 10, 100]
    restarted = Timeline(30)
    assert [restarted.place(tick, 2) for tick in (100, 102, 0, 2)] == [100, 102, 104, 106]


def test_after_a_leap_another_clock_goes_on_behind_the_gap() -> None:
    line = Timeline(30)
    placed = [line.place(tick, 2) for tick in (100, 102)]
    line.leap(50)
    assert placed + [line.place(tick, 2) for tick in (9000, 9002, 9004)] == [100, 102, 154, 156, 158]
    line.leap(1)
    assert line.place(None, 2) == 161


def shifts(packets: list[tuple[int, float]]) -> list[float]:
    """What a clock adds to packets of (stream, decoding time), each a tenth of a second long."""
    clock = Clock()
    return [float(clock.shift(stream, Fraction(at).limit_denominator(1000), TENTH)) for stream, at in packets]


def test_a_restart_moves_all_streams_by_the_same() -> None:
    packets = [(0, 5.0), (1, 4.9), (0, 5.1), (1, 5.0), (0, 1.0), (1, 0.8), (0, 1.1), (1, 0.9)]
    assert shifts(packets) == [0, 0, 0, 0, 4.2, 4.2, 4.2, 4.2]


def test_packets_that_come_late_from_before_the_restart_keep_their_place() -> None:
    packets = [(0, 5.0), (1, 4.9), (0, 1.0), (1, 5.0), (0, 1.1), (1, 0.8)]
    assert shifts(packets) == [0, 0, 4.1, 0, 4.1, 4.1]


def test_the_33_bits_of_mpeg_run_out() -> None:
    wrap = 2**33 / 90000
    packets = [(0, wrap - 0.2), (1, wrap - 0.2), (0, wrap - 0.1), (1, wrap - 0.1), (0, 0.0), (1, 0.0), (0, 0.1)]
    assert [round(shift) for shift in shifts(packets)] == [0, 0, 0, 0, *[round(wrap)] * 3]


def test_a_pause_is_no_other_clock_but_a_leap_is() -> None:
    assert shifts([(0, 0.0), (0, 9.0), (0, 9.1)]) == [0, 0, 0]
    assert shifts([(0, 0.0), (0, 90.0), (0, 90.1)]) == [0, -89.9, -89.9]
    assert float(Clock().shift(0, None, TENTH)) == 0
