"""Compiles a seccomp profile once, where the OCI runtime would do it for every container.

crun spends some 8 ms of CPU per container on compiling docker's profile. It also takes a compiled filter, in an
annotation, which then replaces the profile; the profile itself stays in the configuration, so that a runtime that
does not know the annotation is no less strict. libseccomp makes the filter, the same library that crun uses.
"""

from __future__ import annotations

import base64
import ctypes
import os
from functools import lru_cache
from typing import Any

from pyswarm_runtime.oci.seccomp import ARCHITECTURES, profile

_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_UNKNOWN_SYSCALL = -1
_ATTRIBUTE_OPTIMIZE = 8
_BINARY_TREE = 2
_EEXIST = 17
_OPERATORS = {"SCMP_CMP_NE": 1, "SCMP_CMP_EQ": 4, "SCMP_CMP_MASKED_EQ": 7}


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("index", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("value", ctypes.c_uint64),
        ("value_two", ctypes.c_uint64),
    )


@lru_cache(maxsize=64)
def compiled_filter(architecture: str, capabilities: frozenset[str]) -> str | None:
    """In base64; None where it cannot be made, and the OCI runtime has to compile the profile itself."""
    if architecture not in ARCHITECTURES:
        return None
    try:
        return base64.b64encode(_compile(_library(), profile(architecture, capabilities))).decode()
    except OSError:
        return None


def _library() -> ctypes.CDLL:
    library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = (ctypes.c_uint32,)
    library.seccomp_release.argtypes = (ctypes.c_void_p,)
    library.seccomp_release.restype = None
    library.seccomp_arch_resolve_name.argtypes = (ctypes.c_char_p,)
    library.seccomp_arch_resolve_name.restype = ctypes.c_uint32
    library.seccomp_arch_add.argtypes = (ctypes.c_void_p, ctypes.c_uint32)
    library.seccomp_attr_set.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32)
    library.seccomp_syscall_resolve_name.argtypes = (ctypes.c_char_p,)
    library.seccomp_rule_add_array.argtypes = (
        *(ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint),
        ctypes.POINTER(_Comparison),
    )
    library.seccomp_export_bpf.argtypes = (ctypes.c_void_p, ctypes.c_int)
    return library


def _compile(library: ctypes.CDLL, document: dict[str, Any]) -> bytes:
    context = library.seccomp_init(_ERRNO | document["defaultErrnoRet"])
    if not context:
        raise OSError("libseccomp gave no context")
    try:
        for name in document["architectures"]:
            _add_architecture(library, context, name)
        library.seccomp_attr_set(context, _ATTRIBUTE_OPTIMIZE, _BINARY_TREE)  # old libraries go without
        for rule in document["syscalls"]:
            _add_rule(library, context, rule)
        return _export(library, context)
    finally:
        library.seccomp_release(context)


def _add_architecture(library: ctypes.CDLL, context: int, name: str) -> None:
    token = library.seccomp_arch_resolve_name(name.removeprefix("SCMP_ARCH_").lower().encode())
    _check(library.seccomp_arch_add(context, token), accept=_EEXIST)


def _add_rule(library: ctypes.CDLL, context: int, rule: dict[str, Any]) -> None:
    action = _ALLOW if rule["action"] == "SCMP_ACT_ALLOW" else _ERRNO | rule["errnoRet"]
    arguments = [
        _Comparison(entry["index"], _OPERATORS[entry["op"]], entry["value"], entry["valueTwo"])
        for entry in rule.get("args", ())
    ]
    array = (_Comparison * len(arguments))(*arguments)
    for name in rule["names"]:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number != _UNKNOWN_SYSCALL:
            _check(library.seccomp_rule_add_array(context, action, number, len(arguments), array))


def _export(library: ctypes.CDLL, context: int) -> bytes:
    fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        _check(library.seccomp_export_bpf(context, fd))
        file.seek(0)
        return file.read()


def _check(result: int, accept: int = 0) -> None:
    if result < 0 and -result != accept:
        raise OSError(-result, os.strerror(-result), "libseccomp")
