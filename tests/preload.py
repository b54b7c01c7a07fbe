"""Import all modules that a run needs and read the digits; the fork server of tiny_runs does this before it forks."""

import gc
import importlib
import pkgutil

from tiny_runs import TINY_CONFIG

import lntl
from lntl import config
from lntl.data import mnist

for module in pkgutil.walk_packages(lntl.__path__, "lntl."):
    if module.name != "lntl.__main__":
        importlib.import_module(module.name)
config.validate(TINY_CONFIG, "tiny.yaml")
for split in ("train", "test"):
    mnist.read(split)
gc.collect()
gc.freeze()  # a collection in a forked process would copy the memory that it shares with the server
