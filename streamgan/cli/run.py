"""``streamgan run``: translates films, one or many."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from streamgan import plugins
from streamgan.api import UsageError
from streamgan.cli import options
from streamgan.cli.plugins import mention_failed

if TYPE_CHECKING:
    from streamgan import jobs

_GROUPS = {
    "Options": ("output", "preset", "strength", "overwrite", "help"),
    "Part of the film": ("start", "end", "frames", "every", "stream", "on_error"),
    "Translation": ("settings", "size", "smooth", "compare", "skip_similar", "timeout"),
    "Speed": ("backend", "precision", "threads"),
    "Output": ("audio", "codec", "encoder", "crf", "encoder_preset", "lossless", "alpha"),
    "Many films, long films": ("manifest", "skip_existing", "fail_fast", "shard", "resume", "segment"),
    "What is said": ("dry_run", "verbose", "quiet", "report"),
}


@click.command("run", cls=options.Grouped, groups=_GROUPS)
@click.argument("inputs", metavar="INPUT...", nargs=-1)
@click.option(
    "-o",
    "--output",
    metavar="OUT",
    help="A file, or a folder (out/) for films under their own names. By default beside the input: film.PRESET.mp4, "
    "photo.PRESET.jpg, shots.PRESET/.",
)
@options.translation
@options.encoding
@click.option(
    "--audio",
    type=click.Choice(["copy", "aac", "none"]),
    default="copy",
    show_default=True,
    help="What the output cannot hold is left out (copy) or re-encoded (aac, Opus in webm); none leaves all out.",
)
@click.option("--start", type=options.Time(), help="First time wanted: seconds, or HH:MM:SS.mmm.")
@click.option("--end", type=options.Time(), help="Time to stop at: seconds, or HH:MM:SS.mmm.")
@click.option("--frames", type=click.IntRange(min=1), help="How many frames to make at most.")
@click.option("--every", type=click.IntRange(min=1), default=1, help="Take one frame in so many.")
@click.option("--stream", type=click.IntRange(min=0), help="Number of the video stream to take; the best by default.")
@click.option(
    "--on-error",
    type=click.Choice(["skip", "stop", "repeat"]),
    default="skip",
    show_default=True,
    help="What a frame that cannot be decoded does.",
)
@click.option(
    "--manifest", type=click.Path(path_type=Path), metavar="FILE", help="List of inputs: a path a line, or JSON."
)
@click.option(
    "--skip-existing",
    is_flag=True,
    help="Leave what is complete and was made in the same way; go on with what was interrupted.",
)
@click.option("--fail-fast", is_flag=True, help="Stop at the first film that fails; the others go on by default.")
@click.option("--shard", metavar="I/N", help="Do one of N parts, for job arrays: I from 1 to N, or from 0 to N-1.")
@click.option("--resume", is_flag=True, help="Go on where an interrupted run of the same command ended.")
@click.option(
    "--segment", type=click.IntRange(min=1), default=250, help="Frames after which what is made is kept for --resume."
)
@click.option("--smooth", type=click.FloatRange(0, 1), help="Reduce flicker: 0 not at all, 1 as much as possible.")
@click.option(
    "--skip-similar",
    type=click.FloatRange(min=0, min_open=True),
    is_flag=False,
    flag_value=40.0,
    metavar="[DB]",
    help="Show a frame that is like the last translated one, by so much PSNR, as that one. 40 dB if it ends the line.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=300.0,
    show_default=True,
    help="Seconds after which a translator that does not answer is given up.",
)
@click.option("--compare", is_flag=True, help="Put the source beside the translation.")
@click.option("--report", metavar="FILE.json", help="Write a record of the run; streamgan show prints it.")
@click.option("--dry-run", is_flag=True, help="Print what would be done, and stop.")
@click.option("-v", "--verbose", is_flag=True, help="Print what will be done, then do it.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    inputs: tuple[str, ...],
    output: str | None,
    manifest: Path | None,
    shard: str | None,
    settings: tuple[str, ...],
    start: Fraction | None,
    end: Fraction | None,
    skip_existing: bool,
    fail_fast: bool,
    dry_run: bool,
    verbose: bool,
    quiet: bool,
    **given: Any,
) -> None:
    """Translate films, images, and folders and patterns of them.

    \b
    streamgan run drive.mp4 -p day2night               writes drive.day2night.mp4
    streamgan run drive.mp4 -p day2night -o night.mkv
    streamgan run clips/ -p day2night -o out/          every film below clips/
    streamgan run '*.mov' -p day2night -o out/ --skip-existing
    streamgan run frames/ -p day2night -o 'night/%06d.png'

    INPUT is a film, a URL, an image, a folder or a quoted pattern; a folder of images is a film. Audio and subtitles
    are copied, and every frame keeps its time. An output appears under its name when it is complete.
    """
    fields = {**given, "options": options.assignments(settings), "start": start, "end": end}
    if not inputs and manifest is None:
        raise click.UsageError("Missing argument 'INPUT...'.")
    from streamgan import jobs  # after the cheap checks: it loads the video libraries
    from streamgan.cli import films

    part = None if shard is None else jobs.parse_shard(shard)
    found = _find(inputs, manifest, output, given)
    chosen = list(found.jobs) if part is None else jobs.shard(found.jobs, *part)
    sources = {name: ctx.get_parameter_source(name) for name in ctx.params}
    manner = films.Manner(
        fields=fields,
        registry=plugins.load(ctx.obj),
        given=frozenset(name for name, source in sources.items() if source is ParameterSource.COMMANDLINE),
        tracked=skip_existing or bool(manifest or shard) or not found.is_plain(output),
        skip_existing=skip_existing,
        fail_fast=fail_fast,
        dry_run=dry_run,
        verbose=verbose,
        quiet=quiet,
    )
    for note in [] if quiet else found.notes:
        click.echo(f"note: {note}", err=True)
    if not quiet:
        mention_failed(manner.registry)
    if chosen:
        films.work(chosen, manner)
    elif not quiet:
        click.echo(f"--shard {shard}: nothing to do, {len(found.jobs)} films are fewer than the parts")


def _find(inputs: tuple[str, ...], manifest: Path | None, output: str | None, given: dict[str, Any]) -> jobs.Found:
    """The jobs that the command line names.

    Raises:
        UsageError: if they cannot be, or one record is to be written for several.
    """
    from streamgan import batch, jobs

    if output == "":
        raise UsageError("-o: is empty; name a file or a URL")
    listed = [] if manifest is None else jobs.read_manifest(manifest)
    look, ending = jobs.name_of(given["preset"]), batch.ending_of(given["codec"])
    found = jobs.find_all(inputs, listed, output, look, ending=ending)
    if given["report"] is not None and len(found.jobs) > 1:
        raise UsageError(f"--report {given['report']}: one record for {len(found.jobs)} films; run them one by one")
    return found
