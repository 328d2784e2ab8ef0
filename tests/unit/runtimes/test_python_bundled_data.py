"""What the runtime's bundled packages want as files is there as files."""

import asyncio

from isopod.engine.instance import Preopen
from isopod.engine.scheduler import Scheduler
from isopod.runtimes.python.runtime import PythonRuntime

SCRIPT = """
import _host, matplotlib
matplotlib.use("Agg")
import io, matplotlib.pyplot as plt
out = io.BytesIO()
plt.figure().savefig(out, format="png")
_host.call(b"R" + out.getvalue()[1:4])
"""


def test_matplotlib_finds_its_fonts_and_draws(prepared_cache, tmp_path):
    runtime = PythonRuntime(prepared_cache)

    async def main() -> str:
        async with Scheduler(runtime.linkage.engine) as scheduler:
            return await runtime.run_script(
                scheduler, SCRIPT, (Preopen(tmp_path, "/tmp", True),), 512
            )

    assert asyncio.run(main()) == "PNG"
