"""Test the tests by mutation: `python -m benchmarks.mutation [--sample N] [--group NAME]`.

A mutant is a module with one small change: an operator, a number, an argument, an assignment. The
changes are those of mutmut. A mutant is killed if a test fails with it. A surviving mutant is a
change of behaviour that no test notices, or a change that has no effect.

mutmut's own runner copies the repository and imports torch again in each copy. This program starts
pytest once for a group of modules and records which tests execute which lines. For each mutant it
forks that process, replaces the code of the changed function in place, and runs the tests that
execute the changed lines. Two kinds of mutants run in a fork that imports `lab` anew, with the
changed source: changes outside of functions, and mutants that survived, because a test may have
called the function when pytest imported it.

Not mutated: annotations, decorators, imports, docstrings, the case of texts, and messages, which
are the arguments of `raise` and all texts with a space; a change of a message is no change of the
computation. Tests marked as slow do not run: they start processes, which would import the unchanged
module.
"""

import argparse
import functools
import gc
import importlib
import importlib.abc
import importlib.util
import itertools
import multiprocessing
import os
import random
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path as File
from types import CodeType, FunctionType, ModuleType
from typing import Any

import coverage
import libcst as cst
import pytest
from hypothesis import Phase, settings
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.mutators import mutation_operators, operator_string

ROOT = File(__file__).parents[1]

# Modules and the test files that cover them, by the name of the group.
GROUPS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "cost": (
        ("lab/config/flops.py", "lab/config/budget.py", "lab/config/objectives/*.py"),
        (
            "tests/config/test_budget.py", "tests/config/test_costs_by_hand.py",
            "tests/config/test_objective_properties.py", "tests/config/test_trial.py",
            "tests/config/schedules/test_phases.py",
        ),
    ),
    "objectives": (
        ("lab/training/objectives/*.py", "lab/training/counter_rng.py"),
        (
            "tests/training/test_co[nu]*[!s].py", "tests/training/test_[er]*.py",
            "tests/training/test_masking.py", "tests/training/test_objective_calls.py",
            "tests/training/test_sampling.py",
        ),
    ),
    "statistics": (
        tuple(
            f"lab/reporting/{name}.py"
            for name in ("intervals", "stats", "compute/*", "power/design", "conclusion")
        ),
        ("tests/reporting/test_[cfs]*.py", "tests/reporting/test_power.py"),
    ),
    "designs": (("lab/search/designs.py",), ("tests/search/test_designs.py",)),
}  # fmt: skip

# Packages that are imported before the first fork; none of them imports `lab`.
_PACKAGES = (
    "torch", "torch.utils.flop_counter", "numpy", "pandas", "pydantic", "scipy.stats",
    "scipy.stats.qmc", "tokenizers", "matplotlib.pyplot", "jinja2",
)  # fmt: skip
_BYTES = 12 * 2**30  # limit of the data of a process; a mutant may allocate without end
_SLOWER, _SECONDS = 5, 10  # limit of CPU time of a test: five times its usual time, and ten seconds


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """A module with one change.

    Attributes:
        file: path of the module in the repository.
        lines: first and last line of the changed expression.
        change: the expression before and after.
        source: text of the changed module.
    """

    file: str
    lines: tuple[int, int]
    change: str
    source: str

    def __str__(self) -> str:
        return f"{self.file}:{self.lines[0]}: {self.change}"


@dataclass(frozen=True, kw_only=True)
class Fresh:
    """A mutant that must be tested in a process that imports `lab` anew.

    Attributes:
        mutant: the mutant.
        tests: node ids of the tests.
        seconds: usual CPU time of the tests.
    """

    mutant: Mutant
    tests: Sequence[str]
    seconds: float


def find_mutants(file: str) -> list[Callable[[], Mutant]]:
    """Return functions that build the mutants of a module; a build takes milliseconds."""
    wrapper = MetadataWrapper(cst.parse_module((ROOT / file).read_text(encoding="utf-8")))
    module, positions = wrapper.module, wrapper.resolve(PositionProvider)

    def build(node: Any, changed: Any) -> Mutant:
        place = positions[node]
        texts = (" ".join(module.code_for_node(n).split()) for n in (node, changed))
        return Mutant(
            file=file,
            lines=(place.start.line, place.end.line),
            change=" -> ".join(texts),
            source=module.deep_replace(node, changed).code,
        )

    return [
        functools.partial(build, node, changed)
        for node in _nodes_of(module)
        if node in positions
        for changed in _changes_of(node)
    ]


def _nodes_of(node: Any) -> Iterator[Any]:
    """Yield a node and all nodes below it, except those that are not mutated."""
    if isinstance(node, cst.Annotation | cst.Decorator | cst.Import | cst.ImportFrom | cst.Raise):
        return
    if isinstance(node, cst.SimpleString) and " " in node.value:
        return
    if isinstance(node, cst.Subscript) and getattr(node.value, "value", "") == "Literal":
        return
    yield node
    for child in node.children:
        yield from _nodes_of(child)


def _changes_of(node: Any) -> Iterator[Any]:
    for kind, operator in mutation_operators:
        if isinstance(node, kind):
            changes = iter(operator(node))
            # The first change of a text adds letters; the others change only its case.
            yield from itertools.islice(changes, 1) if operator is operator_string else changes


def _code_objects(code: CodeType) -> Iterator[CodeType]:
    """Yield the code objects directly inside of `code`."""
    return (const for const in code.co_consts if isinstance(const, CodeType))


def _same_instructions(one: CodeType, two: CodeType) -> bool:
    """Return whether two code objects are equal except for line numbers and code inside them."""
    names = ("co_code", "co_names", "co_varnames", "co_freevars", "co_cellvars", "co_flags")
    constants = (
        [(type(c), c) for c in code.co_consts if not isinstance(c, CodeType)] for code in (one, two)
    )
    return all(getattr(one, name) == getattr(two, name) for name in names) and repr(
        next(constants)
    ) == repr(next(constants))


class _Functions:
    """Functions of imported modules. Their code can be replaced in place."""

    def __init__(self, files: Iterable[str]) -> None:
        paths = {str(ROOT / file) for file in files}
        self._functions: dict[tuple[str, str, int], list[FunctionType]] = {}
        for function in gc.get_objects():
            if type(function) is FunctionType and function.__code__.co_filename in paths:
                self._functions.setdefault(self._key(function.__code__), []).append(function)

    @staticmethod
    def _key(code: CodeType) -> tuple[str, str, int]:
        return code.co_filename, code.co_qualname, code.co_firstlineno

    def replacements(self, mutant: Mutant) -> list[tuple[FunctionType, CodeType]] | None:
        """Return functions and their new code; None if code outside of functions has changed."""
        path = ROOT / mutant.file
        old = compile(path.read_text(encoding="utf-8"), str(path), "exec")
        return self._compare(old, compile(mutant.source, str(path), "exec"))

    def _compare(
        self, old: CodeType, new: CodeType, inside: bool = False
    ) -> list[tuple[FunctionType, CodeType]] | None:
        functions = self._functions.get(self._key(old), [])
        if len({id(function.__code__) for function in functions}) > 1:
            return None  # two lambdas of one line
        inside = inside or bool(functions)
        if not inside and not _same_instructions(old, new):
            return None
        if functions and old.co_freevars != new.co_freevars:
            return None
        pairs = [(function, new) for function in functions]
        children = [list(_code_objects(code)) for code in (old, new)]
        if len(children[0]) != len(children[1]):
            return pairs if inside else None
        for before, after in zip(*children, strict=True):
            deeper = self._compare(before, after, inside)
            if deeper is None:
                return None
            pairs += deeper
        return pairs


class _Session:
    """A pytest plugin that tests the mutants of a group after the collection.

    Args:
        mutants: mutants of the group.
        report: called with each result: the mutant and whether a test failed.
    """

    def __init__(self, mutants: Sequence[Mutant], report: Callable[[Mutant, bool], None]) -> None:
        self._mutants, self._report = mutants, report
        self._failed = False
        self._kills: Counter[str] = Counter()
        self.fresh: list[Fresh] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a failure of a test or of a fixture."""
        self._failed |= report.failed

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Record the coverage of the tests, and test the mutants."""
        items = {item.nodeid: item for item in session.items}
        files = sorted({mutant.file for mutant in self._mutants})
        covering, seconds = self._record(session, files)
        functions = _Functions(files)
        for mutant in self._mutants:
            contexts = covering[mutant.file]
            tests = set().union(
                *(contexts.get(n, ()) for n in range(mutant.lines[0], mutant.lines[1] + 1))
            )
            tests &= items.keys()
            new_code = functions.replacements(mutant)
            if new_code is None:
                tests |= (
                    items.keys()
                )  # a test may read a constant and execute no line of the module
            ordered = sorted(tests, key=lambda name: (-self._kills[name], seconds[name]))
            if new_code is not None and ordered:
                killer = self._run_fork(new_code, [items[name] for name in ordered], seconds)
                if killer is not None:
                    self._kills[killer] += 1
                    self._report(mutant, True)
                    continue
            if not ordered:
                self._report(mutant, False)
                continue
            self.fresh.append(
                Fresh(mutant=mutant, tests=ordered, seconds=sum(seconds[name] for name in ordered))
            )
        return True

    def _record(
        self, session: pytest.Session, files: Sequence[str]
    ) -> tuple[dict[str, dict[int, list[str]]], dict[str, float]]:
        """Run all tests; return the tests of each line of each file, and the tests' CPU times."""
        recorder = coverage.Coverage(
            data_file=None, config_file=False, include=[str(ROOT / file) for file in files]
        )
        names = {file.removesuffix(".py").replace("/", ".") for file in files}
        caches = [
            wrapper for wrapper in gc.get_objects()
            if type(wrapper) is functools._lru_cache_wrapper and wrapper.__module__ in names
        ]  # fmt: skip
        seconds = {}
        recorder.start()
        for item, following in itertools.zip_longest(session.items, session.items[1:]):
            for cache in caches:
                cache.cache_clear()
            recorder.switch_context(item.nodeid)
            began = time.process_time()
            item.ihook.pytest_runtest_protocol(item=item, nextitem=following or session)
            seconds[item.nodeid] = time.process_time() - began
            if self._failed:
                pytest.exit(f"{item.nodeid} fails without a mutant", returncode=1)
        recorder.stop()
        for cache in caches:
            cache.cache_clear()
        data = recorder.get_data()
        return {file: data.contexts_by_lineno(str(ROOT / file)) for file in files}, seconds

    def _run_fork(
        self,
        new_code: Sequence[tuple[FunctionType, CodeType]],
        items: Sequence[pytest.Item],
        seconds: Mapping[str, float],
    ) -> str | None:
        """Run tests in a fork with new code; return the test that failed, or else None."""

        def run(connection: Connection) -> None:
            for function, code in new_code:
                function.__code__ = code
            for item, following in itertools.zip_longest(items, items[1:]):
                connection.send(item.nodeid)
                signal.setitimer(signal.ITIMER_PROF, _SLOWER * seconds[item.nodeid] + _SECONDS)
                item.ihook.pytest_runtest_protocol(item=item, nextitem=following or item.session)
                if self._failed:
                    return
            connection.send(None)

        last: str | None = _fork(run)[-1]
        return last


def _fork(run: Callable[[Connection], None]) -> list[Any]:
    """Call a function in a fork without output; return all that it sent, until its end."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = os.fork()
    if process == 0:
        errors = os.fdopen(os.dup(2), "w")
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        resource.setrlimit(resource.RLIMIT_DATA, (_BYTES, _BYTES))
        try:
            run(sender)
        except Exception:
            errors.write(traceback.format_exc())
            errors.flush()
        finally:
            os._exit(0)
    sender.close()
    sent = []
    while True:
        try:
            sent.append(receiver.recv())
        except EOFError:
            os.waitpid(process, 0)
            return sent


class _Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finder and loader of a mutant in place of its module, without files of bytecode."""

    def __init__(self, mutant: Mutant) -> None:
        self._path, self._source = ROOT / mutant.file, mutant.source
        self._name = mutant.file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    def find_spec(self, name: str, path: object, target: ModuleType | None = None) -> Any:
        """Return the specification of the mutant, or None for other modules."""
        del path, target
        if name != self._name:
            return None
        folders = [str(self._path.parent)] if self._path.name == "__init__.py" else None
        return importlib.util.spec_from_file_location(
            name, self._path, loader=self, submodule_search_locations=folders
        )

    def exec_module(self, module: ModuleType) -> None:
        """Run the mutant."""
        exec(compile(self._source, self._path, "exec"), module.__dict__)  # noqa: S102


def _run_fresh(fresh: Fresh) -> bool:
    """Test a mutant in a fork that imports it; return whether a test failed."""

    def run(connection: Connection) -> None:
        signal.setitimer(signal.ITIMER_PROF, _SLOWER * fresh.seconds + 3 * _SECONDS)
        sys.meta_path.insert(0, _Changed(fresh.mutant))
        connection.send(int(pytest.main(["-x", *_OPTIONS, *fresh.tests])))

    return _fork(run) != [0]


_OPTIONS = (
    "-q", "-s", "-m", "not slow", "-p", "no:cacheprovider", "--hypothesis-profile", "mutation",
    "-W", "ignore::pytest.PytestAssertRewriteWarning",  # hypothesis is already imported
)  # fmt: skip


def _files_of(patterns: Sequence[str]) -> list[str]:
    return [
        str(file.relative_to(ROOT)) for pattern in patterns for file in sorted(ROOT.glob(pattern))
    ]


def _prepare() -> None:
    """Import packages, and let hypothesis neither shrink nor remember failures."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.chdir(ROOT)
    for name in _PACKAGES:
        importlib.import_module(name)
    phases = (Phase.explicit, Phase.generate)
    settings.register_profile(
        "mutation", deadline=None, database=None, derandomize=True, phases=phases
    )


def main() -> None:
    """Test the mutants of each group, and print the survivors and a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--group", choices=GROUPS, action="append", help="default: all groups")
    parser.add_argument("--sample", type=int, help="mutants of each module; default: all")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample")
    parser.add_argument("--again", type=File, help="output of an earlier run; its survivors only")
    arguments = parser.parse_args()
    earlier = arguments.again.read_text(encoding="utf-8") if arguments.again else None
    _prepare()
    print(f"{'module':48} {'mutants':>8} {'tested':>7} {'killed':>7}", flush=True)
    for group in arguments.group or GROUPS:
        _test_group(group, arguments.sample, arguments.seed, earlier)


def _choose(
    found: Mapping[str, Sequence[Callable[[], Mutant]]],
    sample: int | None,
    seed: int,
    earlier: str | None,
) -> list[Mutant]:
    """Return a sample of the mutants of each module, or the survivors in an earlier output."""
    chosen = []
    for file, builds in found.items():
        number = min(len(builds), sample or len(builds))
        chosen += [
            build()
            for build in random.Random(f"{seed} {file}").sample(builds, number)  # noqa: S311
        ]
    return [m for m in chosen if earlier is None or f"survived {m}\n" in earlier]


def _test_group(group: str, sample: int | None, seed: int, earlier: str | None) -> None:
    patterns, tests = GROUPS[group]
    found = {file: find_mutants(file) for file in _files_of(patterns)}
    tested = _choose(found, sample, seed, earlier)
    killed: Counter[str] = Counter()

    def report(mutant: Mutant, dies: bool) -> None:
        killed[mutant.file] += dies
        if not dies:
            print(f"survived {mutant}", flush=True)

    def run(connection: Connection) -> None:
        session = _Session(tested, lambda mutant, dies: connection.send((mutant, dies)))
        status = pytest.main([*_OPTIONS, *_files_of(tests)], plugins=[session])
        for result in (*session.fresh, int(status)):
            connection.send(result)

    *results, status = _fork(run)
    if status not in (0, 5):
        sys.exit(f"the tests of group {group} fail without a mutant")
    for result in results:
        report(*(result.mutant, _run_fresh(result)) if isinstance(result, Fresh) else result)
    _print_table(found, Counter(mutant.file for mutant in tested), killed)


def _print_table(
    found: Mapping[str, Sequence[object]], tested: Counter[str], killed: Counter[str]
) -> None:
    for file, mutants in found.items():
        print(f"{file:48} {len(mutants):8} {tested[file]:7} {killed[file]:7}", flush=True)


if __name__ == "__main__":
    main()
