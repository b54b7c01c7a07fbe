"""The modules that the server of tiny_runs imports before it forks: all that a run needs; nothing is computed."""

import gc
import importlib
import pkgutil

from tiny_runs import TINY

import lntl
from lntl import config

for module in pkgutil.walk_packages(lntl.__path__, "lntl."):
    if module.name != "lntl.__main__":
        importlib.import_module(module.name)
config.validate(TINY, "tiny.yaml")
gc.collect()
gc.freeze()  # a collection in a forked process would copy the memory that it shares with the server
