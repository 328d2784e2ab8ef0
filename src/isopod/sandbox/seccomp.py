"""Which system calls a process may still make.

An allow-list. What is not on it and known to be dangerous fails with EPERM. What is on neither list
is answered with ENOSYS, as by an older kernel: the C library then falls back to calls that are
listed, so an update of it does not break a node. Killing would end the requests of a thousand apps
for one stray call; in the tests the default is to kill, so that a stray call is found there.

The filters are made by libseccomp, which knows each machine's numbers, through `pyseccomp`
(docs/decisions/010-sandbox.md).
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterable
from typing import Any

# Files: what a guest's WASI calls, SQLite, logs, trees and images need.
_FILES = """
    read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 lseek sendfile
    copy_file_range open openat openat2 close close_range dup dup2 dup3 fcntl flock
    stat lstat fstat newfstatat statx statfs fstatfs access faccessat faccessat2 readlink readlinkat
    getdents64 getcwd truncate ftruncate fallocate fadvise64 fsync fdatasync sync_file_range
    mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2 link linkat symlink symlinkat
    utimensat chmod fchmod fchmodat fchmodat2 fchown umask memfd_create
"""
_MEMORY = "brk munmap mremap madvise mincore msync membarrier"
_THREADS = """
    exit exit_group futex futex_waitv set_robust_list get_robust_list rseq set_tid_address
    sched_yield sched_getaffinity sched_getparam sched_getscheduler sched_get_priority_min
    sched_get_priority_max getcpu gettid getpid getppid getpgrp getpgid getsid
    sigaltstack rt_sigaction rt_sigprocmask rt_sigreturn rt_sigtimedwait rt_sigpending
    rt_sigsuspend pause restart_syscall
"""
_TIME = """
    clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time times
    timer_create timer_settime timer_gettime timer_getoverrun timer_delete getitimer setitimer alarm
"""
_EVENTS = """
    epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 poll ppoll select
    pselect6 eventfd eventfd2 pipe pipe2
"""
# Of sockets that are open: connections are accepted, none is made. Those of guests are made by a
# process of its own and handed over (docs/decisions/013-network.md).
_CONNECTIONS = """
    accept accept4 listen shutdown recvfrom recvmsg recvmmsg sendto sendmsg sendmmsg
    getsockopt setsockopt getsockname getpeername
"""
_ABOUT_ITSELF = """
    getrandom uname sysinfo getrusage getpriority getuid geteuid getgid getegid getgroups
    getresuid getresgid capget getrlimit
"""
ALLOWED = frozenset(
    (_FILES + _MEMORY + _THREADS + _TIME + _EVENTS + _CONNECTIONS + _ABOUT_ITSELF).split()
)

# Never, in no process of ours that strangers' code can get at.
FORBIDDEN_ALWAYS = frozenset(
    """
    ptrace process_vm_readv process_vm_writev process_madvise process_mrelease kcmp
    pidfd_open pidfd_getfd pidfd_send_signal
    mount umount2 pivot_root chroot setns fsopen fsmount fsconfig fspick open_tree move_mount
    mount_setattr name_to_handle_at open_by_handle_at
    keyctl add_key request_key bpf perf_event_open userfaultfd memfd_secret
    io_uring_setup io_uring_enter io_uring_register
    kexec_load kexec_file_load init_module finit_module delete_module
    reboot swapon swapoff acct quotactl quotactl_fd sethostname setdomainname syslog
    settimeofday clock_settime clock_adjtime adjtimex stime iopl ioperm modify_ldt personality
    mknod mknodat fanotify_init lookup_dcookie vhangup nfsservctl uselib
    migrate_pages move_pages mbind set_mempolicy
    """.split()  # noqa: SIM905  a table reads better than eighty strings
)
# And in one that runs guests nothing of this either.
FORBIDDEN = FORBIDDEN_ALWAYS | frozenset(
    """
    execve execveat fork vfork unshare socket connect bind
    setuid setgid setreuid setregid setresuid setresgid setfsuid setfsgid setgroups capset
    seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self
    chown lchown fchownat setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr
    inotify_init inotify_init1 inotify_add_watch splice tee vmsplice
    setpriority sched_setaffinity sched_setscheduler sched_setparam sched_setattr
    setpgid setsid setrlimit pkey_mprotect pkey_alloc pkey_free
    rt_sigqueueinfo rt_tgsigqueueinfo tkill
    shmget shmat shmctl semget semop semctl msgget msgsnd msgrcv msgctl mq_open mq_unlink
    """.split()  # noqa: SIM905
)

_UNKNOWN = -1
_PR_SET_NAME, _PR_SET_VMA = 15, 0x53564D41
# isatty, bytes ready, non-blocking, close on exec and not.
_IOCTLS = (0x5401, 0x541B, 0x5421, 0x5451, 0x5450)
_CLONE_VM, _CLONE_SIGHAND, _CLONE_THREAD = 0x100, 0x800, 0x10000
_A_THREAD = _CLONE_VM | _CLONE_SIGHAND | _CLONE_THREAD
# New namespaces, a traced child, and one that shares no file table, cannot be asked for with these.
_CLONE_ASIDE = 0x7E020080 | 0x2000


def library() -> Any:
    """pyseccomp. Its import looks for libseccomp with other programs (ldconfig), so it must come
    before they are out of reach. Raises ImportError, RuntimeError or OSError without it."""
    import pyseccomp  # type: ignore[import-untyped]

    return pyseccomp


def guard_guests(
    lib: Any,
    *,
    machine_code: bool = False,
    shown_code: bool = False,
    kill_unlisted: bool = False,
) -> None:
    """For a process that runs guests: all of its threads, for good. Raises OSError.

    `machine_code`: it still maps some. `shown_code`: it is shown some through a window
    (`engine.code_window`), and the engine is to believe that what it read itself became executable.
    `kill_unlisted`: for tests, which want to know of a call that is on neither list.
    """
    unlisted = lib.KILL_PROCESS if kill_unlisted else lib.ERRNO(errno.ENOSYS)
    made = lib.SyscallFilter(unlisted)
    no = lib.ERRNO(errno.EPERM)
    for name in ALLOWED:
        _add(lib, made, lib.ALLOW, name)
    for name in FORBIDDEN:
        _add(lib, made, no, name)
    # Machine code comes from the compiled module, mapped before. ctypes made its closures then too.
    executable = lib.ALLOW if machine_code else no
    for name in ("mmap", "mprotect"):
        _add(lib, made, lib.ALLOW, name, lib.Arg(2, lib.MASKED_EQ, mmap.PROT_EXEC, 0))
        if name == "mprotect" and shown_code:
            # It says that it did, and does nothing: nothing that could be written is executable.
            both = mmap.PROT_WRITE | mmap.PROT_EXEC
            done = lib.ERRNO(0)
            _add(lib, made, done, name, lib.Arg(2, lib.MASKED_EQ, both, mmap.PROT_EXEC))
            _add(lib, made, no, name, lib.Arg(2, lib.MASKED_EQ, both, both))
            continue
        _add(lib, made, executable, name, lib.Arg(2, lib.MASKED_EQ, mmap.PROT_EXEC, mmap.PROT_EXEC))
    # Its arguments are behind a pointer, where no filter sees them; glibc falls back to clone.
    if kill_unlisted:
        _add(lib, made, lib.ERRNO(errno.ENOSYS), "clone3")
    _add(
        lib,
        made,
        lib.ALLOW,
        "clone",
        lib.Arg(0, lib.MASKED_EQ, _A_THREAD | _CLONE_ASIDE, _A_THREAD),
    )
    _add(lib, made, no, "clone", lib.Arg(0, lib.MASKED_EQ, _CLONE_THREAD, 0))
    _add(lib, made, lib.ALLOW, "socketpair", lib.Arg(0, lib.EQ, 1))  # AF_UNIX
    for name in ("kill", "tgkill"):  # itself: abort(), raise()
        _add(lib, made, lib.ALLOW, name, lib.Arg(0, lib.EQ, os.getpid()))
        _add(lib, made, no, name, lib.Arg(0, lib.NE, os.getpid()))
    _add(lib, made, lib.ALLOW, "prlimit64", lib.Arg(2, lib.EQ, 0))  # asks, sets nothing
    _add(lib, made, no, "prlimit64", lib.Arg(2, lib.NE, 0))
    for request in _IOCTLS:
        _add(lib, made, lib.ALLOW, "ioctl", lib.Arg(1, lib.EQ, request))
    for option in (_PR_SET_NAME, _PR_SET_VMA):
        _add(lib, made, lib.ALLOW, "prctl", lib.Arg(0, lib.EQ, option))
    _load(lib, made)


def forbid_always(lib: Any) -> None:
    """For a process that still needs the network and other programs: the worst is out of reach."""
    made = lib.SyscallFilter(lib.ALLOW)
    for name in FORBIDDEN_ALWAYS:
        _add(lib, made, lib.ERRNO(errno.EPERM), name)
    _load(lib, made)


def forbid(lib: Any, names: Iterable[str]) -> None:
    """These, and every new process; threads stay possible."""
    made = lib.SyscallFilter(lib.ALLOW)
    no = lib.ERRNO(errno.EPERM)
    for name in names:
        _add(lib, made, no, name)
    _add(lib, made, lib.ERRNO(errno.ENOSYS), "clone3")  # see guard_guests
    _add(lib, made, no, "clone", lib.Arg(0, lib.MASKED_EQ, _CLONE_THREAD, 0))
    _load(lib, made)


def _add(lib: Any, made: Any, action: int, name: str, *arguments: Any) -> None:
    number = lib.resolve_syscall(lib.Arch.NATIVE, name)
    if number != _UNKNOWN:  # to this libseccomp: then it is on no list
        made.add_rule(action, number, *arguments)


def _load(lib: Any, made: Any) -> None:
    made.set_attr(lib.Attr.CTL_TSYNC, 1)
    made.set_attr(lib.Attr.ACT_BADARCH, lib.KILL_PROCESS)  # another machine's calls: 32-bit, x32
    made.load()
