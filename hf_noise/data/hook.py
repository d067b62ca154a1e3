"""Teaches `datasets.load_dataset` the names that begin with "hf_noise/".

`datasets` has no public place to register builders that live in a package, so the one function that turns a name into
a builder module is wrapped. All other names go to the original untouched. `hf_noise.load_dataset` is the same for those
who want no doubt about it.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.abc
import os
import pkgutil
import sys
import threading
from pathlib import Path
from typing import Any

__all__ = ["builder_class", "builder_names", "code_hash", "install", "install_on_import", "load_dataset"]

PREFIX = "hf_noise/"
_BUILDERS = "hf_noise.data.builders"
_MARK = "_hf_noise_hook"
_lock = threading.RLock()


def load_dataset(path: str, name: str | None = None, *args: Any, **kwargs: Any) -> Any:
    """`datasets.load_dataset`, which certainly knows the names `hf_noise/...`; same arguments, same result."""
    import datasets

    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path must be the name of a data set, such as {builder_names()[0]!r}, got {path!r:.80}")
    if not isinstance(name, str | None):
        raise TypeError(f"name must be that of a configuration, such as 'r0.5', got {name!r:.80}")
    install()
    return datasets.load_dataset(path, name, *args, **kwargs)


def builder_names() -> list[str]:
    """The data sets of this package, such as "hf_noise/docs-noisy": one for each module in `hf_noise.data.builders`."""
    from hf_noise.data import builders

    return sorted(PREFIX + module.name.replace("_", "-") for module in pkgutil.iter_modules(builders.__path__))


def builder_class(name: str) -> type:
    """The builder behind a name such as "hf_noise/docs-noisy".

    What it is of shows in its bases, so that nothing else has to list the data sets of a kind: `PackedTextBuilder` for
    text, `NoisyImagesBuilder` for images; its `BUILDER_CONFIG_CLASS` has the defaults.

    Raises:
        ValueError: there is no such data set.
    """
    if name not in builder_names():
        raise ValueError(f"hf_noise has no data set {name!r:.80}; it has {', '.join(builder_names())}")
    module = importlib.import_module(f"{_BUILDERS}.{name.removeprefix(PREFIX).replace('-', '_')}")
    return next(
        value for value in vars(module).values() if isinstance(value, type) and value.__module__ == module.__name__
        and hasattr(value, "BUILDER_CONFIG_CLASS")
    )


def install() -> None:
    """Wrap the function in both places where `datasets` keeps it. Importing `datasets` if need be; harmless twice."""
    import datasets.inspect
    import datasets.load

    with _lock:
        _wrap(datasets.load)
        _wrap(datasets.inspect)


def install_on_import() -> None:
    """Install now if `datasets` is loaded, else at the moment somebody loads it, so that nobody waits for it here."""
    with _lock:
        if not any(getattr(finder, _MARK, False) for finder in sys.meta_path):
            # Stays in place, so that a reload of datasets.load is wrapped again.
            sys.meta_path.insert(0, _AfterImport())
    load = sys.modules.get("datasets.load")
    # While another thread is still importing it, the module is listed but has no such function yet.
    if hasattr(load, "dataset_module_factory"):
        install()


@functools.cache
def code_hash() -> str:
    """A hash of the package's version and of all code that noisy data depend on; names the folders of the cache.

    A change in a helper thus never meets data that older code has built.
    """
    from hf_noise import __version__

    package = Path(__file__).parents[1]
    digest = hashlib.sha256(__version__.encode())
    for file in sorted([*(package / "noise").rglob("*.py"), *(package / "data").rglob("*.py")]):
        digest.update(file.relative_to(package).as_posix().encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _wrap(module: Any) -> None:
    original = module.dataset_module_factory
    if getattr(original, _MARK, False):
        return

    @functools.wraps(original)
    def dataset_module_factory(path: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(path, str) and path.startswith(PREFIX):
            return _dataset_module(path, kwargs.get("revision"))
        return original(path, *args, **kwargs)

    setattr(dataset_module_factory, _MARK, True)
    module.dataset_module_factory = dataset_module_factory


def _dataset_module(path: str, revision: Any) -> Any:
    from datasets.exceptions import DatasetNotFoundError
    from datasets.load import DatasetModule

    name = path.removeprefix(PREFIX).replace("-", "_")
    if PREFIX + name.replace("_", "-") not in builder_names():
        raise DatasetNotFoundError(f"hf_noise has no data set {path!r}; it has {', '.join(builder_names())}")
    if revision is not None:
        raise TypeError(
            f"revision={revision!r:.80} means nothing for {path}, which is no repository; data on the Hub are taken at "
            "their newest commit"
        )
    # A fresh dictionary each time, because `datasets` takes entries out of it.
    return DatasetModule(f"{_BUILDERS}.{name}", code_hash(), {"dataset_name": name})


class _AfterImport(importlib.abc.MetaPathFinder):
    """Lets the real finders find `datasets.load` and wraps its function right after the module has run."""

    _hf_noise_hook = True

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname != "datasets.load":
            return None
        others = (finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec"))
        spec = next(filter(None, (finder.find_spec(fullname, path, target) for finder in others)), None)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            run = spec.loader.exec_module

            def exec_module(module: Any) -> None:
                run(module)
                _wrap(module)

            spec.loader.exec_module = exec_module
        return spec
