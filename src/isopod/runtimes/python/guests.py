"""The Python runtime in a worker, as `isopod.runtimes.base.Guests`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from isopod.model.ids import Digest
from isopod.runtimes.base import GuestOrder
from isopod.runtimes.python import artifacts
from isopod.runtimes.python.runtime import PythonRuntime
from isopod.runtimes.python.serve import PythonGuest


@dataclass(frozen=True, slots=True)
class PythonGuests:
    runtime: PythonRuntime

    @property
    def image_digest(self) -> Digest:
        return artifacts.image_digest()

    @property
    def base_image(self) -> Path:
        return self.runtime.base_image

    def new_guest(self, order: GuestOrder) -> PythonGuest:
        return self.runtime.new_guest(
            scheduler=order.scheduler,
            app_tree=order.app_tree,
            site_tree=order.site_tree,
            tmp=order.tmp,
            entrypoint=order.entrypoint,
            env=order.env,
            memory_mib=order.memory_mib,
            disk_mib=order.disk_mib,
            output=order.output,
            image=order.image,
            after_restore=order.after_restore,
            share=order.share,
            world=order.world,
            app=order.app,
            volumes=order.volumes,
            command=order.command,
        )

    def new_command(self, order: GuestOrder) -> PythonGuest:
        return self.new_guest(order)
