"""`pyswarm image …`, and docker's short forms `images`, `load`, `import`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import BinaryIO

import click

from pyswarm.v1 import node_pb2
from pyswarm_cli.connection import call, connect
from pyswarm_cli.failures import each
from pyswarm_cli.output.rows import show
from pyswarm_cli.params import format_option, no_trunc_option, quiet_option
from pyswarm_cli.views import images as image_view
from pyswarm_common.errors import InvalidArgument

_CHUNK = 1 << 20
_TRANSFER_S = 1800.0


def chunks(source: BinaryIO) -> Iterator[bytes]:
    """The content in parts that fit a message."""
    while part := source.read(_CHUNK):
        yield part


@click.command(help="Make an image of a root filesystem: a tar archive, plain or compressed; `-` is standard input.")
@click.option("-c", "--change", multiple=True, metavar="INSTRUCTION", help='Dockerfile instructions (CMD ["/bin/sh"])')
@click.option("-m", "--message", default="", help="Message for the image's history")
@click.argument("archive", type=click.File("rb"), metavar="FILE|-")
@click.argument("reference", metavar="[REPOSITORY[:TAG]]", required=False, default="")
@click.pass_context
def import_image(ctx: click.Context, change: tuple[str, ...], message: str, archive: BinaryIO, reference: str) -> None:
    """`image import`."""
    header = node_pb2.ImportImageHeader(reference=reference, changes=change, message=message)

    def requests() -> Iterator[node_pb2.ImportImageRequest]:
        yield node_pb2.ImportImageRequest(header=header)
        for part in chunks(archive):
            yield node_pb2.ImportImageRequest(data=part)

    click.echo(call(connect(ctx).images.ImportImage, requests(), _TRANSFER_S).image.id)


@click.command(help="Load images from an archive that `docker save` or another tool made.")
@click.option("-i", "--input", "archive", type=click.File("rb"), default="-", help="The file [standard input]")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing")
@click.pass_context
def load(ctx: click.Context, archive: BinaryIO, quiet: bool) -> None:
    """`image load`."""
    if archive.isatty():
        raise InvalidArgument("requested load from stdin, but stdin is a terminal: give a file with -i")
    requests = (node_pb2.LoadImageRequest(data=part) for part in chunks(archive))
    for image in call(connect(ctx).images.LoadImage, requests, _TRANSFER_S).images:
        names = [f"Loaded image: {name}" for name in image.references] or [f"Loaded image ID: {image.id}"]
        if not quiet:
            click.echo("\n".join(names))


@click.command(help="List the images of this machine.")
@format_option
@quiet_option
@no_trunc_option
@click.argument("reference", metavar="[REPOSITORY[:TAG]]", required=False, default="")
@click.pass_context
def list_images(ctx: click.Context, format_: str, quiet: bool, no_trunc: bool, reference: str) -> None:
    """`image ls`."""
    request = node_pb2.ListImagesRequest(reference=reference)
    images = call(connect(ctx).images.ListImages, request).images
    now = time.time()
    rows = [row for image in images for row in image_view.rows(image, now, no_trunc=no_trunc)]
    if quiet:
        rows = list({row["ID"]: row for row in rows}.values())
    click.echo(show(rows, image_view.COLUMNS, format_, quiet=quiet), nl=False)


@click.command(help="Remove images from this machine.")
@click.option("-f", "--force", is_flag=True, help="Also when a container uses it")
@click.argument("references", metavar="IMAGE...", nargs=-1, required=True)
@click.pass_context
def remove(ctx: click.Context, force: bool, references: tuple[str, ...]) -> None:
    """`image rm`."""
    connection = connect(ctx)

    def act(reference: str) -> None:
        request = node_pb2.RemoveImageRequest(reference=reference, force=force)
        removed = call(connection.images.RemoveImage, request)
        for name in removed.untagged:
            click.echo(f"Untagged: {name}")
        for name in removed.deleted:
            click.echo(f"Deleted: {name}")

    each(references, act)


@click.command(help="Give an image another name.")
@click.argument("source", metavar="SOURCE_IMAGE[:TAG]")
@click.argument("target", metavar="TARGET_IMAGE[:TAG]")
@click.pass_context
def tag(ctx: click.Context, source: str, target: str) -> None:
    """`image tag`."""
    call(connect(ctx).images.TagImage, node_pb2.TagImageRequest(source=source, target=target))
