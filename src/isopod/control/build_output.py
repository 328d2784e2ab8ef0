"""What a build leaves on the disk beside its blobs, and who may read it.

Trees and images in the shared folders save the workers from making them again; every shared worker
may read them. Those of an app behind a cordon are its tenant's own worker's to read, which makes
them itself: so such a build works in a folder of its own, and what is in the shared ones goes.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from isopod.blobs.images import ImageCache
from isopod.blobs.trees import TreeCache
from isopod.control.builds import Built
from isopod.control.node import Node
from isopod.model.build import BuildJob
from isopod.model.ids import AppName, Digest
from isopod.model.tenant import TenantName
from isopod.volumes.removal import remove_folder


@asynccontextmanager
async def built_apart(
    job: BuildJob, tenant: TenantName, name: AppName | None, *, node: Node
) -> AsyncGenerator[BuildJob]:
    """The job, with folders of its own if the app is behind a cordon, as far as that is known: a
    first version may say so in its manifest, which only the builder reads."""
    if not await asyncio.to_thread(_is_cordoned, tenant, name, node):
        yield job
        return
    # What a control that was killed leaves there, the next one removes.
    folder = node.settings.uploads_dir / secrets.token_hex(8)
    trees, images = folder / "trees", folder / "images"
    for one in (folder, trees, images):
        one.mkdir(mode=0o700)
    try:
        yield replace(job, trees_dir=str(trees), images_dir=str(images))
    finally:
        await asyncio.shield(asyncio.to_thread(remove_folder, folder))


def _is_cordoned(tenant: TenantName, name: AppName | None, node: Node) -> bool:
    known = node.state.node.tenants.get(tenant)
    if known is not None and known.cordon == "tenant":
        return True
    app = node.state.of(tenant).apps.get(name) if name else None
    return app is not None and node.routes.behind(app.label) is not None


def forget_shared_copies(built: Built, *, node: Node) -> None:
    """Of trees and the image that were built for an app which turned out to be behind a cordon, but
    for what others are served from. Blocks."""
    settings = node.settings
    made = {built.build.app_tree, built.build.site_tree}
    if built.snapshot is not None and built.snapshot.image:
        made.add(built.snapshot.image)
    for _, version in node.state.node.live():
        if node.routes.behind(version.app) is None:
            made -= {version.build.app_tree, version.build.site_tree}
            made -= {version.snapshot.image if version.snapshot else Digest("")}
    trees = TreeCache(settings.trees_dir, node.blobs)
    images = ImageCache(settings.images_dir, node.blobs, limit_bytes=settings.image_cache_mib << 20)
    for digest in made:
        if Path(settings.trees_dir / digest).exists():
            trees.delete(digest)
        if Path(settings.images_dir / digest).exists():
            images.delete(digest)
