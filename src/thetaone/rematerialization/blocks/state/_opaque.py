"""Which objects hide a state in C that can neither be read nor set.

What is not known to be constant is refused where code names it, never taken for a constant.
"""

import datetime
import decimal
import logging
import operator
import os
import re
import secrets
import struct
import sys
import threading
import types
import uuid
from typing import Any

import numpy as np

KNOWN = (
    operator.itemgetter, operator.attrgetter, operator.methodcaller, datetime.date, datetime.time,
    datetime.timedelta, datetime.tzinfo, decimal.Decimal, uuid.UUID, BaseException, property,
    staticmethod, classmethod, types.CodeType, types.GenericAlias, types.UnionType, np.ufunc,
    types.NotImplementedType, types.GetSetDescriptorType, types.MemberDescriptorType, re.Match,
    type(threading.Lock()), type(threading.RLock()), logging.Filterer, logging.LoggerAdapter,
    struct.Struct,
)  # fmt: skip
# libraries whose objects say what code is or where messages go, and are not computed with
_INERT = {"typing", "abc", "inspect", "importlib", "enum", "ast", "dataclasses", "warnings"}
# torch's own are looked at where they draw; pytest puts its rewriter into modules that it imports
_TRUSTED = {"torch", "numpy", "thetaone", "pytest", "_pytest"}
_VIEWS = (type({}.keys()), type({}.values()), type({}.items()))
_DRAWS = (
    os.urandom, uuid.uuid4, uuid.uuid1, secrets.token_bytes, secrets.token_hex,
    secrets.token_urlsafe, secrets.randbelow, getattr(os, "getrandom", os.urandom),
)  # fmt: skip
_HEADER = object.__basicsize__


def is_view(value: Any) -> bool:
    """Whether a value shows the contents of a dictionary."""
    return isinstance(value, _VIEWS)


def is_draw(value: Any) -> bool:
    """Whether a function draws from the operating system, which draws nothing twice."""
    return any(value is one for one in _DRAWS)


def is_inert(value: Any) -> bool:
    """Whether a value is known to keep nothing that a computation reads."""
    root = (type(value).__module__ or "").partition(".")[0]
    return isinstance(value, KNOWN) or root in _INERT or type(value) is object


def is_library(value: Any) -> bool:
    """Whether a value is of a class of Python's own libraries, whose code is not followed."""
    return (type(value).__module__ or "builtins").partition(".")[0] in sys.stdlib_module_names


def hidden_state(value: Any) -> str:
    """What cannot be noted of a value, for messages; empty if nothing is hidden.

    Python's classes add a dictionary, a list of weak references and slots to ``object``; a class
    whose instances are larger keeps more in C. (``object.__reduce_ex__`` refuses the same ones.)
    """
    cls, kind = type(value), f"a {type(value).__name__}"
    step = getattr(cls, "__next__", None)
    if step is not None and not isinstance(step, types.FunctionType):
        return f"{kind}, whose position cannot be read"
    if isinstance(value, np.random.SeedSequence):
        return f"{kind}, which counts what it spawns"
    root = (cls.__module__ or "builtins").partition(".")[0]
    if root in _TRUSTED or isinstance(value, threading.local):
        return ""
    if hasattr(cls, "__get__"):  # reads a member of a class
        return ""
    if callable(value) and re.search("function|method|func$|builtin", cls.__name__):
        return ""
    slots = sum(
        isinstance(one, types.MemberDescriptorType)
        for base in cls.__mro__
        if "__slots__" in vars(base)
        for one in vars(base).values()
    )
    pointers = slots + (cls.__dictoffset__ > 0) + (cls.__weakrefoffset__ > 0)
    larger = cls.__basicsize__ > _HEADER + 8 * pointers
    return f"{kind}, whose state cannot be noted" if larger else ""
