"""Imports the module that is named, and no more: for tests/cover.py, where a module has no tests of its own."""

import importlib
import sys

importlib.import_module(sys.argv[1])
