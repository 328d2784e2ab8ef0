"""Every function that a guest can import, with its parameters, and a guest that calls them all.

The guest is a machine for programs: a payload is a list of steps, each a function's number and the
nine numbers it is called with (it takes as many as it needs). Answers are kept where the step was.
"""

from __future__ import annotations

# Parameters (wasi_snapshot_preview1.witx): "i" is an i32, "I" an i64. All return an errno but
# `proc_exit`.
PREVIEW1 = {
    "args_get": "ii",
    "args_sizes_get": "ii",
    "clock_res_get": "ii",
    "clock_time_get": "iIi",
    "environ_get": "ii",
    "environ_sizes_get": "ii",
    "fd_advise": "iIIi",
    "fd_allocate": "iII",
    "fd_close": "i",
    "fd_datasync": "i",
    "fd_fdstat_get": "ii",
    "fd_fdstat_set_flags": "ii",
    "fd_fdstat_set_rights": "iII",
    "fd_filestat_get": "ii",
    "fd_filestat_set_size": "iI",
    "fd_filestat_set_times": "iIIi",
    "fd_pread": "iiiIi",
    "fd_prestat_dir_name": "iii",
    "fd_prestat_get": "ii",
    "fd_pwrite": "iiiIi",
    "fd_read": "iiii",
    "fd_readdir": "iiiIi",
    "fd_renumber": "ii",
    "fd_seek": "iIii",
    "fd_sync": "i",
    "fd_tell": "ii",
    "fd_write": "iiii",
    "path_create_directory": "iii",
    "path_filestat_get": "iiiii",
    "path_filestat_set_times": "iiiiIIi",
    "path_link": "iiiiiii",
    "path_open": "iiiiiIIii",
    "path_readlink": "iiiiii",
    "path_remove_directory": "iii",
    "path_rename": "iiiiii",
    "path_symlink": "iiiii",
    "path_unlink_file": "iii",
    "poll_oneoff": "iiii",
    "proc_exit": "i",
    "random_get": "ii",
    "sched_yield": "",
    "sock_accept": "iii",
    "sock_recv": "iiiiii",
    "sock_send": "iiiii",
    "sock_shutdown": "ii",
}
CALLS = {"host.call": "iiii", **PREVIEW1}
NAMES = list(CALLS)

STEP_BYTES = 80  # u64: the function's number, then its arguments; the answer replaces the number
PAYLOAD_AT, REPLIES_AT, PAGES = 4096, 128 << 10, 4
_TYPES = {"i": "i32", "I": "i64"}


def machine() -> str:
    """The module's text."""
    imports, arms = [], []
    for number, (name, signature) in enumerate(CALLS.items()):
        parameters = f"(param {' '.join(_TYPES[letter] for letter in signature)})"
        result = "" if name == "proc_exit" else "(result i32)"
        module, _, export = name.rpartition(".")
        imports.append(
            f'(import "{module or "wasi_snapshot_preview1"}" "{export}" '
            f"(func $f{number} {parameters} {result}))"
        )
        loads = []
        for at, letter in enumerate(signature):
            load = f"(i64.load offset={8 + 8 * at} (local.get $step))"
            loads.append(f"(i32.wrap_i64 {load})" if letter == "i" else load)
        called = f"(call $f{number} {' '.join(loads)})"
        if result:
            called = f"(i64.store (local.get $step) (i64.extend_i32_u {called}))"
        arms.append(f"{called} (br $next)")
    depth = len(arms)
    table = " ".join(f"$arm{number}" for number in range(depth))
    body = f"(br_table {table} $next (i32.wrap_i64 (i64.load (local.get $step))))"
    for number, arm in enumerate(arms):
        body = f"(block $arm{number} {body}) {arm}"
    return f"""(module {" ".join(imports)}
      (memory (export "memory") {PAGES} 64)
      (global $given (mut i32) (i32.const {PAYLOAD_AT}))
      (func (export "host_alloc") (param i32) (result i32)
        (global.get $given) (global.set $given (i32.const {REPLIES_AT})))
      (func (export "run") (param $step i32) (param $size i32)
        (local $end i32)
        (local.set $end (i32.load (local.get $step)))
        (local.set $step (i32.add (local.get $step) (i32.const 8)))
        (local.set $end (i32.add (local.get $step) (local.get $end)))
        (loop $again
          (if (i32.ge_u (local.get $step) (local.get $end)) (then (return)))
          (block $next {body})
          (local.set $step (i32.add (local.get $step) (i32.const {STEP_BYTES})))
          (br $again))))"""
