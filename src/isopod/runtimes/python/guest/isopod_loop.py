"""asyncio in a guest: its event loop's only wait is one host call, and no thread is needed.

What would run in a thread runs at once, in the place of whoever waits for it: an executor's work,
`asyncio.to_thread`, anyio's worker threads (which frameworks use for functions that are not async).
`complete_...` are called when a module of that name is first imported (see isopod_outside).
"""

import contextlib

_NO_THREADS = (
    "can't start new thread: an instance has none; make the function async, or call it directly "
    "(executors and asyncio.to_thread run what they are given at once)"
)


def make_loop_class():
    """asyncio's selector loop, waiting through `isopod_socket` or what took its place."""
    import selectors
    from asyncio import events, selector_events, tasks, unix_events

    class Selector(selectors._BaseSelectorImpl):
        def __init__(self):
            super().__init__()
            self.wait = None  # the server's; until then, the sockets'

        def select(self, timeout=None):
            keys = self._fd_to_key
            if timeout is not None and timeout < 0:
                timeout = 0
            if self.wait is not None:
                found = self.wait(keys, timeout)
            else:
                found = _wait_for_sockets(keys, timeout)
            return [(keys[fd], mask & keys[fd].events) for fd, mask in found if fd in keys]

    class Loop(unix_events._UnixSelectorEventLoop):
        def __init__(self, selector=None):
            super().__init__(Selector())

        # Nobody else could wake it.
        def _make_self_pipe(self):
            self._ssock = self._csock = None

        def _close_self_pipe(self):
            pass

        def _write_to_self(self):
            pass

        def run_in_executor(self, executor, func, *args):
            self._check_closed()
            future = self.create_future()
            try:
                future.set_result(run_aside(self, func, *args))
            except StopIteration:
                future.set_exception(RuntimeError("the function raised StopIteration"))
            except Exception as error:
                future.set_exception(error)
            return future

    def run_aside(loop, func, *args):
        """Call it as if on a thread of its own: there, no loop would be running."""
        if events._get_running_loop() is not loop:
            return func(*args)
        task = tasks._swap_current_task(loop, None)
        events._set_running_loop(None)
        try:
            return func(*args)
        finally:
            events._set_running_loop(loop)
            tasks._swap_current_task(loop, task)

    Loop.run_aside = staticmethod(run_aside)
    assert issubclass(Loop, selector_events.BaseSelectorEventLoop)
    return Loop


def _wait_for_sockets(keys, timeout):
    if not keys:
        if timeout is None:
            raise RuntimeError("isopod: nothing that the event loop waits for can happen")
        if timeout:
            import time

            time.sleep(timeout)
        return []
    import isopod_socket

    return isopod_socket.ready({fd: key.events for fd, key in keys.items()}, timeout).items()


def complete_asyncio(module):
    """`import asyncio` then makes loops of ours, whoever asks for one."""
    from asyncio import unix_events

    loop_class = make_loop_class()
    module.SelectorEventLoop = module.EventLoop = loop_class
    unix_events.SelectorEventLoop = unix_events.EventLoop = loop_class
    unix_events._DefaultEventLoopPolicy._loop_factory = loop_class


def complete_threads(module):
    """`threading`."""

    def start_joinable_thread(*_args, **_named):
        raise RuntimeError(_NO_THREADS)

    module._start_joinable_thread = start_joinable_thread


def complete_executor(module):
    """`concurrent.futures.thread`."""
    from concurrent.futures import _base

    class ThreadPoolExecutor(_base.Executor):
        """Runs each call when it is submitted."""

        def __init__(
            self, max_workers=None, thread_name_prefix="", initializer=None, initargs=(), **named
        ):
            if max_workers is not None and max_workers <= 0:
                raise ValueError("max_workers must be greater than 0")
            self._max_workers = max_workers or 1
            self._initializer = (initializer, initargs)
            self._shutdown = False

        def submit(self, fn, /, *args, **kwargs):
            if self._shutdown:
                raise RuntimeError("cannot schedule new futures after shutdown")
            initializer, initargs = self._initializer
            if initializer is not None:
                self._initializer = (None, ())
                initializer(*initargs)
            future = _base.Future()
            future.set_running_or_notify_cancel()
            try:
                future.set_result(_aside(fn, *args, **kwargs))
            except Exception as error:
                future.set_exception(error)
            return future

        def shutdown(self, wait=True, *, cancel_futures=False):
            self._shutdown = True

    module.ThreadPoolExecutor = ThreadPoolExecutor


def _aside(fn, *args, **kwargs):
    """As in `run_aside`, whichever loop runs, if one does."""
    import sys

    asyncio = sys.modules.get("asyncio")
    loop = asyncio._get_running_loop() if asyncio is not None else None
    aside = getattr(loop, "run_aside", None)
    if aside is None:
        return fn(*args, **kwargs)
    return aside(loop, lambda: fn(*args, **kwargs))


def complete_anyio(module):
    """`anyio._backends._asyncio`: its worker threads."""

    async def run_sync_in_worker_thread(
        cls, func, args, abandon_on_cancel=False, limiter=None, **named
    ):
        await module.AsyncIOBackend.checkpoint()
        return _aside(func, *args)

    with contextlib.suppress(AttributeError):  # another version, which does it otherwise
        module.AsyncIOBackend.run_sync_in_worker_thread = classmethod(run_sync_in_worker_thread)


def complete_asgiref(module):
    """`asgiref.sync`: a thread of its own is what ends an executor of a request's."""
    import types

    class Thread:
        def __init__(self, target=None, args=(), kwargs=None, **_named):
            self._call = (target, args, kwargs or {})

        def start(self):
            target, args, kwargs = self._call
            target(*args, **kwargs)

    threads = types.ModuleType("threading")
    vars(threads).update(vars(module.threading), Thread=Thread)
    module.threading = threads


def make_multiprocessing_module():
    """So that what can start processes can be imported, and says so when it does."""
    import errno
    import types

    class SemLock:
        SEM_VALUE_MAX = 2**31 - 1

        def __init__(self, *_args, **_named):
            raise OSError(errno.ENOSYS, "isopod: an instance has no processes")

    module = types.ModuleType("_multiprocessing")
    module.SemLock, module.flags = SemLock, {}
    module.sem_unlink = lambda _name: None
    return module
