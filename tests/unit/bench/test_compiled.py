"""Which modules `make compiled` takes; what they give then, it tests itself."""

import importlib
import inspect

import msgspec

from bench.compiled.build import ROOT, modules

HOT = {
    "fold",
    "usage",
    "dedupe",
    "state",
    "decide",
    "evaluate",
    "executions",
    "lifecycle",
    "latency",
}


def test_every_module_that_events_pass_through_is_compiled() -> None:
    assert sorted(HOT - {path.stem for path in modules()}) == []


def test_no_module_that_defines_a_struct_is_compiled() -> None:
    for path in modules():
        assert (ROOT / path).is_file()
        module = importlib.import_module(".".join(path.with_suffix("").parts))
        structs = [
            name
            for name, one in inspect.getmembers(module, inspect.isclass)
            if issubclass(one, msgspec.Struct) and one.__module__ == module.__name__
        ]
        assert structs == [], path
