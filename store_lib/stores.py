"""The configured stores, and operations that find the store by its id or by a URI."""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import entry_points
from typing import Any, Self, TypeVar

from oslo_config import cfg
from stevedore import DriverManager
from stevedore.exception import MultipleMatches, NoMatches

from store_lib.config import Configuration, StoreSection, literal
from store_lib.driver import Driver, RequestContext, Stat, Verifier
from store_lib.exceptions import (
    BadStoreConfiguration,
    BadStoreUri,
    DriverLoadFailure,
    NotFound,
    NotSupported,
    StoreAddDisabled,
    StoreError,
    TimeoutError,
    UnknownScheme,
    UnknownStore,
)
from store_lib.location import scheme_of
from store_lib.options import MEMORY_LIMIT, NAMESPACE, StoreOptions
from store_lib.store import DEFAULT_DIGESTS, AddResult, Runtime, Store
from store_lib.transfer.budget import MIB, PROCESS_BUDGET, Budget
from store_lib.transfer.reader import ObjectReader, ReadLayer
from store_lib.transfer.retry import Retry
from store_lib.transfer.timeouts import HangGuard, checkpoint
from store_lib.transfer.upload import Progress
from store_lib.transfer.workers import run_concurrently

R = TypeVar("R")


class Stores:
    """The configured stores; iterate over them, or get one by its id.

    A misconfigured store is included, with the reason in :attr:`Store.error`, and does not affect
    the others.  ``Stores`` is a context manager that closes the stores.  A process can have several
    independent instances.
    """

    def __init__(
        self,
        configuration: Configuration,
        *,
        strict: bool = False,
        budget: Budget = PROCESS_BUDGET,
        context: Callable[[], RequestContext | None] | None = None,
        read_layers: Mapping[str, ReadLayer] | None = None,
    ) -> None:
        """
        :param strict: raise the error of the first store that is misconfigured
        :param budget: memory for the transfers; by default, the process's budget
        :param context: returns the request context for calls without one
        :param read_layers: layers between engine and driver for reads, by store id
        :raises BadStoreConfiguration: the configuration of the stores as a whole is invalid
        :raises UnknownStore: there is a read layer for a store that is not configured
        """
        self._stores: dict[str, Store] = {}
        memory, given = configuration.value(MEMORY_LIMIT.dest, "glance_store")
        if given:
            budget.set_limit(memory * MIB)
        layers = read_layers or {}
        try:
            for section in configuration.sections():
                runtime = Runtime(budget, context, layers.get(section.store_id))
                store = _make(configuration, section, runtime)
                self._stores[store.id] = store
                if strict and store.error is not None:
                    raise store.error
            for store_id in layers:
                self[store_id]  # raises UnknownStore
            self.default = self._find_default(configuration)
        except BaseException:
            self.close()
            raise
        if self.default is not None:
            self.default.is_default = True

    @classmethod
    def from_config(
        cls,
        conf: cfg.ConfigOpts,
        *,
        strict: bool = False,
        budget: Budget = PROCESS_BUDGET,
        context: Callable[[], RequestContext | None] | None = None,
        read_layers: Mapping[str, ReadLayer] | None = None,
    ) -> Self:
        """Create the stores of a service's configuration; ``conf`` is only read."""
        return cls(
            Configuration(conf),
            strict=strict,
            budget=budget,
            context=context,
            read_layers=read_layers,
        )

    @classmethod
    def from_files(
        cls,
        *paths: str | os.PathLike[str],
        directories: Iterable[str | os.PathLike[str]] = (),
        strict: bool = False,
        budget: Budget = PROCESS_BUDGET,
        context: Callable[[], RequestContext | None] | None = None,
        read_layers: Mapping[str, ReadLayer] | None = None,
    ) -> Self:
        """Create the stores of configuration files.

        :param directories: directories whose ``*.conf`` files are read after ``paths``
        :raises BadStoreConfiguration: a file does not exist or cannot be parsed
        """
        files = [os.fspath(path) for path in paths]
        folders = [os.fspath(path) for path in directories]
        return cls(
            Configuration(files=files, directories=folders),
            strict=strict,
            budget=budget,
            context=context,
            read_layers=read_layers,
        )

    @classmethod
    def from_mapping(
        cls,
        values: Mapping[str, Mapping[str, Any]],
        *,
        strict: bool = False,
        budget: Budget = PROCESS_BUDGET,
        context: Callable[[], RequestContext | None] | None = None,
        read_layers: Mapping[str, ReadLayer] | None = None,
    ) -> Self:
        """Create stores from ``{section: {option: value}}``, as it would be in a file.

        :raises BadStoreConfiguration: a value is not of its option's type
        """
        return cls(
            Configuration(values=values),
            strict=strict,
            budget=budget,
            context=context,
            read_layers=read_layers,
        )

    def _find_default(self, configuration: Configuration) -> Store | None:
        if configuration.single:
            scheme, _ = configuration.value("default_store", "glance_store")
            for store in self:
                if scheme in store.schemes:
                    return store
            return self._stores.get(scheme)
        name, _ = configuration.value("default_backend", "glance_store")
        if name:
            if name not in self._stores:
                raise BadStoreConfiguration(
                    f"default_backend in [glance_store] names {name!r}, which is not among "
                    f"enabled_backends: {', '.join(self._stores)}."
                )
            return self._stores[name]
        ranked = self.by_weight()
        only = ranked[0] if len(ranked) == 1 else None
        return next((store for store in ranked if store.writable), only)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the configuration, credentials included.

        The copy creates its own drivers.  It has the process's budget, but no factory of contexts
        and no read layers.
        """
        sections: dict[str, Mapping[str, Any]] = {}
        for store in self:
            if store.options is None:
                raise TypeError(
                    f"Stores cannot be pickled while store {store.id} is misconfigured: "
                    f"{store.error}"
                )
            options = store.options
            # The values are resolved already, so a $ in them is literal.
            sections[store.id] = {
                name: literal(options[name]) for name in options if options.is_set(name)
            }
        enabled = {store.id: store.driver_name for store in self}
        default = self.default.id if self.default is not None else None
        values = {
            "DEFAULT": {"enabled_backends": enabled},
            "glance_store": {"default_backend": default},
            **sections,
        }
        return _remake, (type(self), values)

    # The stores

    def __getitem__(self, store_id: str) -> Store:
        try:
            return self._stores[store_id]
        except (KeyError, TypeError):
            known = ", ".join(self._stores) or "none"
            raise UnknownStore(store_id=store_id, known=known) from None

    def __contains__(self, store_id: object) -> bool:
        return store_id in self._stores

    def __iter__(self) -> Iterator[Store]:
        return iter(self._stores.values())

    def __len__(self) -> int:
        return len(self._stores)

    def __repr__(self) -> str:
        return f"<Stores {', '.join(self._stores)}>"

    def by_weight(self) -> list[Store]:
        """Return the stores with the highest weight first; equal ones in the configured order."""
        return sorted(self, key=lambda store: -store.weight)

    def close(self) -> None:
        """Refuse new calls, and close every driver once its running calls have ended."""
        with contextlib.ExitStack() as stack:
            for store in self:
                stack.callback(store.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Operations

    def add(
        self,
        object_id: str,
        data: Any,
        size: int | None = None,
        store: str | None = None,
        *,
        digests: Iterable[str] = DEFAULT_DIGESTS,
        expected: Mapping[str, str] | None = None,
        verifier: Verifier | None = None,
        context: RequestContext | None = None,
        progress: Progress | None = None,
    ) -> AddResult:
        """Store an object: see :meth:`Store.add <store_lib.Store.add>`.

        :param store: the store's id; ``None`` for the default one
        :raises UnknownStore: there is no such store
        :raises StoreAddDisabled: no store was named, and there is no default store
        """
        return self._target(store).add(
            object_id,
            data,
            size,
            digests=digests,
            expected=expected,
            verifier=verifier,
            context=context,
            progress=progress,
        )

    def get(
        self,
        uri: str,
        offset: int = 0,
        length: int | None = None,
        store: str | None = None,
        *,
        expected: Mapping[str, str] | None = None,
        context: RequestContext | None = None,
    ) -> ObjectReader:
        """Open an object for reading: see :meth:`Store.get <store_lib.Store.get>`.

        :param store: the store's id; ``None`` to find it by the URI
        :raises UnknownScheme: no configured store has such URIs
        """
        return self._first(
            uri,
            store,
            lambda origin: origin.get(uri, offset, length, expected=expected, context=context),
        )

    def stat(
        self, uri: str, store: str | None = None, *, context: RequestContext | None = None
    ) -> Stat:
        """Return an object's size and metadata: see :meth:`Store.stat <store_lib.Store.stat>`."""
        return self._first(uri, store, lambda origin: origin.stat(uri, context=context))

    def delete(
        self, uri: str, store: str | None = None, *, context: RequestContext | None = None
    ) -> None:
        """Remove an object: see :meth:`Store.delete <store_lib.Store.delete>`."""
        self._first(uri, store, lambda origin: origin.delete(uri, context=context))

    def copy(
        self,
        uri: str,
        object_id: str,
        *,
        store: str | None = None,
        to: str | None = None,
        digests: Iterable[str] = DEFAULT_DIGESTS,
        expected: Mapping[str, str] | None = None,
        context: RequestContext | None = None,
        progress: Progress | None = None,
    ) -> AddResult:
        """Copy an object to a new one.

        Within one store, the backend itself copies the object if it can, unless ``expected`` is
        given; the result then has no digests.  Otherwise the bytes pass through this process.

        :param store: id of the object's store; ``None`` to find it by the URI
        :param to: id of the new object's store; ``None`` for the default store
        """
        target = self._target(to)

        def copy(origin: Store) -> AddResult:
            if origin is target and "copy" in origin.capabilities and not expected:
                with contextlib.suppress(NotSupported):  # this object may be in another account
                    return origin.copy(uri, object_id, context=context)
            with origin.get(uri, context=context) as reader:
                return target.add_copy(
                    reader,
                    object_id,
                    digests=digests,
                    expected=expected,
                    context=context,
                    progress=progress,
                )

        return self._first(uri, store, copy)

    def _target(self, store: str | None) -> Store:
        if store is not None:
            return self[store]
        if self.default is None:
            raise StoreAddDisabled(
                "No store was named, and there is no default that can be written to. Name one of "
                f"{', '.join(self._stores)}, or set default_backend in [glance_store]."
            )
        return self.default

    def _first(self, uri: str, store: str | None, call: Callable[[Store], R]) -> R:
        """Call ``call`` with the named store, or with each store that may hold ``uri``.

        In the latter case, return the first result without an error.
        """
        if store is not None:
            return call(self[store])
        missing: StoreError | None = None
        foreign: StoreError | None = None
        for candidate in self._candidates(uri):
            try:
                return call(candidate)
            except NotFound as error:
                missing = missing or error
            except BadStoreUri as error:  # the configuration alone did not show this
                foreign = foreign or error
        problem = missing or foreign
        assert problem is not None
        raise problem

    def _candidates(self, uri: str) -> list[Store]:
        """Return the stores that may hold ``uri``, judging by the configuration only.

        :raises UnknownScheme: no store has such URIs
        :raises BadStoreUri: stores have such URIs, but not this one
        """
        scheme = scheme_of(uri)
        of_scheme = [store for store in self if scheme in store.schemes]
        if not of_scheme:
            raise UnknownScheme(scheme=scheme)
        problem: BadStoreUri | None = None
        owners = []
        for store in of_scheme:
            try:
                if store.holds(uri):
                    owners.append(store)
            except BadStoreUri as error:
                problem = problem or error
        usable = [store for store in owners if store.error is None] or owners
        if usable:
            return usable
        if problem is not None:
            raise problem
        raise BadStoreUri(
            "The URI %(uri)s lies outside of every configured store: "
            + ", ".join(store.id for store in of_scheme),
            uri=uri,
        )


def _remake(cls: type[Stores], values: Mapping[str, Mapping[str, Any]]) -> Stores:
    return cls.from_mapping(values)


def _make(configuration: Configuration, section: StoreSection, runtime: Runtime) -> Store:
    """Create a store; if it is misconfigured, with the error."""
    driver: Driver[Any] | None = None
    options: StoreOptions | None = None
    problem: BadStoreConfiguration | None = None
    try:
        cls = _load(section)
        options = configuration.options(section.section, cls.options, cls.library_options)
        instance = cls(section.store_id, options)
        instance.run_concurrently = run_concurrently
        instance.retry = Retry.of(section.store_id, options).call
        instance.checkpoint = checkpoint
        try:
            _configure(instance, section.driver)
            driver = instance
        except BadStoreConfiguration as error:
            if error.readable:
                driver = instance
            raise
    except BadStoreConfiguration as error:
        error.annotate(store=section.store_id, operation="configure")
        problem = error
    except StoreError as error:
        problem = BadStoreConfiguration(
            store_name=section.store_id,
            reason=str(error),
            store=section.store_id,
            operation="configure",
        )
        problem.__cause__ = error
    return Store(section.store_id, section.driver, driver, options, problem, runtime)


def _configure(driver: Driver[Any], driver_name: str) -> None:
    """Configure a driver, with a time limit: a dead mount must not block a service's start."""
    try:
        HangGuard(driver.hang_policy).call(driver.configure)
    except ImportError as error:
        raise _not_installed(driver_name, error, driver.extra) from error
    except TimeoutError as error:
        raise driver.misconfigured(
            f"its storage did not answer within {driver.hang_policy.timeout} s. Check the "
            "storage and its mount, and start again."
        ) from error


def _load(section: StoreSection) -> type[Driver[Any]]:
    """Load a driver's class by its entry point.

    :raises DriverLoadFailure: the driver or something that it needs is not installed
    """
    failures: list[BaseException] = []
    try:
        manager: DriverManager[Any] = DriverManager(
            NAMESPACE,
            section.driver,
            invoke_on_load=False,
            on_load_failure_callback=lambda _manager, _point, error: failures.append(error),
        )
        driver = manager.driver
    except NoMatches:
        if failures:
            raise _not_installed(section.driver, failures[0]) from failures[0]
        known = sorted({point.name for point in entry_points(group=NAMESPACE)})
        raise DriverLoadFailure(
            driver_name=section.driver,
            reason=f"no installed package has this entry point in {NAMESPACE}; known are: "
            f"{', '.join(known)}.",
        ) from None
    except MultipleMatches as error:
        raise DriverLoadFailure(
            driver_name=section.driver,
            reason=f"several installed packages bring a driver of this name: {error}",
        ) from error
    if not (isinstance(driver, type) and issubclass(driver, Driver)):
        raise DriverLoadFailure(
            driver_name=section.driver,
            reason="its entry point is no subclass of store_lib.driver.Driver.",
        )
    return driver


def _not_installed(driver: str, error: BaseException, extra: str = "") -> DriverLoadFailure:
    """Return the error for a driver that needs a package which is not installed.

    :param driver: name of the driver's entry point
    :param error: the error of the import
    :param extra: the extra that installs the package; by default, the driver's name
    """
    extra = extra or driver
    remedy = "Install what it needs, as the package that brings it says."
    for point in entry_points(group=NAMESPACE, name=driver):
        extras = point.dist.metadata.get_all("Provides-Extra") if point.dist is not None else None
        if point.dist is not None and extra in (extras or ()):
            remedy = f"Install what it needs: pip install {point.dist.name}[{extra}]"
    return DriverLoadFailure(driver_name=driver, reason=f"{error}. {remedy}")
