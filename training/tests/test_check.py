"""The report on a data set: what is broken, what repeats, and what leaks from training into the held-out part."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from streamgan.api import UsageError
from streamgan_training.frames import check, data_commands, fingerprint


def picture(seed: int) -> np.ndarray:
    """Soft blobs, ``(90, 120, 3)`` uint8."""
    coarse = np.random.default_rng(seed).integers(0, 255, (9, 12, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((120, 90), Image.Resampling.BICUBIC))


def tree(root: Path) -> Path:
    """Two domains of six pictures each."""
    for domain, first in (("day", 0), ("night", 100)):
        (root / domain).mkdir(parents=True)
        for number in range(6):
            Image.fromarray(picture(first + number)).save(root / domain / f"{domain}{number}.png")
    return root


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(data_commands.data, ["check", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_a_sound_tree_is_counted_by_domain(tmp_path: Path) -> None:
    report = check.check(check.find_domains([tree(tmp_path / "set")], ["*5.png"]))
    assert report.sound
    day, night = report.domains
    assert (day.name, day.trained, day.held_out, night.name) == ("day", 5, 1, "night")
    assert day.smallest == day.median == day.largest == (120, 90)
    assert not day.duplicates and not report.shared


def test_a_broken_file_is_named_and_ends_with_1(tmp_path: Path) -> None:
    root = tree(tmp_path / "set")
    whole = (root / "day" / "day0.png").read_bytes()
    (root / "day" / "cut.png").write_bytes(whole[: len(whole) // 2])
    code, said = run(root)
    assert code == 1 and "cut.png: not a whole image" in said and "not sound: 1 broken, 0 leaking" in said


def test_a_smaller_brighter_copy_in_the_held_out_part_leaks(tmp_path: Path) -> None:
    root = tree(tmp_path / "set")
    copy = np.clip(picture(2).astype(float) * 0.8 + 40, 0, 255).astype(np.uint8)
    Image.fromarray(copy).resize((80, 60)).save(root / "day" / "held.jpg", quality=60)
    report = check.check(check.find_domains([root], ["held*"]))
    assert [(pair.first.name, pair.second.name, pair.exact) for pair in report.leaks] == [
        ("day2.png", "held.jpg", False)
    ]
    code, said = run(root, "--hold-out", "held*")
    assert code == 1 and "LEAKAGE" in said
    assert run(root)[0] == 0  # on one side it is a duplicate, no leak


def test_the_same_file_is_found_within_and_across_domains(tmp_path: Path) -> None:
    root = tree(tmp_path / "set")
    Image.fromarray(picture(0)).save(root / "day" / "again.png")
    Image.fromarray(picture(1)).save(root / "night" / "lost.png")
    report = check.check(check.find_domains([root]))
    assert [(pair.exact, pair.bits) for pair in report.domains[0].duplicates] == [(True, 0)]
    assert [pair.second.name for pair in report.shared] == ["lost.png"]


def test_the_hash_is_that_of_the_definition() -> None:
    image = picture(3)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    wide = cv2.blur(cv2.resize(grey, (128, 128), interpolation=cv2.INTER_AREA), (7, 7))
    small = cv2.resize(wide, (32, 32), interpolation=cv2.INTER_AREA).astype(float)
    k, n = np.arange(32)[:, None], np.arange(32)[None, :]
    basis = np.cos(np.pi * (2 * n + 1) * k / 64) / 4  # DCT-II; row 0 is not used
    low = (basis @ small @ basis.T)[1:9, 1:9].ravel()
    expected = int("".join("1" if value > np.median(low) else "0" for value in low), 2)
    assert fingerprint.distance(fingerprint.fingerprint(image).bits, expected) <= 2
    others = [fingerprint.fingerprint(picture(seed)).bits for seed in range(10, 60)]
    assert 28 < np.mean([fingerprint.distance(expected, other) for other in others]) < 36


def test_near_duplicates_are_those_of_a_slow_comparison() -> None:
    prints = [fingerprint.fingerprint(picture(seed)) for seed in range(30)]
    prints += [fingerprint.fingerprint(np.clip(picture(seed) * 0.7 + 9, 0, 255).astype(np.uint8)) for seed in (3, 8)]
    expected = [
        (i, j, (prints[i].bits ^ prints[j].bits).bit_count())
        for i in range(32)
        for j in range(i + 1, 32)
        if (prints[i].bits ^ prints[j].bits).bit_count() <= 14
        and np.corrcoef(prints[i].small, prints[j].small)[0, 1] >= 0.85
    ]
    assert fingerprint.near_duplicates(prints) == expected
    assert {(i, j) for i, j, _ in expected} >= {(3, 30), (8, 31)}


def test_the_contact_sheet_shows_every_domain_and_frames_what_is_held_out(tmp_path: Path) -> None:
    root, sheet = tree(tmp_path / "set"), tmp_path / "sheet.png"
    assert run(root, "--sheet", sheet, "--hold-out", "day5*")[0] == 0
    pixels = np.array(Image.open(sheet))
    assert pixels.shape[0] == 2 * (22 + 124 + 4)
    framed = (pixels == (230, 160, 40)).all(2)
    assert framed[:150].any() and not framed[150:].any()


def test_wrong_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        check.find_domains([tmp_path / "missing"])
    with pytest.raises(UsageError, match="no image found"):
        check.find_domains([tmp_path])


def test_help_imports_neither_torch_nor_opencv() -> None:
    code = (
        "import sys; from streamgan_training.frames import data_commands as c; from click.testing import CliRunner;"
        "assert CliRunner().invoke(c.frames, ['--help']).exit_code == 0;"
        "assert CliRunner().invoke(c.data, ['check', '--help']).exit_code == 0;"
        "assert not {'torch', 'cv2', 'av', 'PIL'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
