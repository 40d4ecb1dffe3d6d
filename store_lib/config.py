"""Reads the configured stores from a service's ConfigOpts or from files, without changing them.

An option that the service has registered is read from its ConfigOpts, with overrides and defaults;
any other from a private ConfigOpts over the same files.
"""

import dataclasses
import functools
import math
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from oslo_config import cfg

from store_lib.arguments import LARGEST
from store_lib.clients.library_calls import LibraryCall
from store_lib.exceptions import BadStoreConfiguration
from store_lib.options import (
    DEFAULT_OPTIONS,
    RESERVED_SECTIONS,
    SET_OPTIONS,
    STORE_OPTIONS,
    StoreOptions,
)
from store_lib.redaction import Secret

#: Default directory of a reserved store of Glance, by store id.
RESERVED_DATADIR = "/var/lib/glance/{}"

_DATADIRS = ("filesystem_store_datadir", "filesystem_store_datadirs")
_LEGACY_NAME = re.compile(r"glance\.store\.(\w+)\.Store")
_UNREGISTERED = (cfg.NoSuchOptError, cfg.NoSuchGroupError)
#: Errors for a ``$`` reference to an unknown option.
_BAD_REFERENCE = (*_UNREGISTERED, cfg.TemplateSubstitutionError)
_LINE = re.compile(r":(\d+), ")
_BAD_VALUE = (cfg.ConfigFileValueError, cfg.ConfigSourceValueError, ValueError)


@dataclasses.dataclass(frozen=True)
class StoreSection:
    """The id of a store, the name of its driver, and the section with its options."""

    store_id: str
    driver: str
    section: str


class Configuration:
    """The configuration of the stores.

    :param caller: a service's ConfigOpts, for the options that it has registered
    :param files: files to read without a ``caller``; later files take precedence
    :param directories: directories whose ``*.conf`` files are read after the files
    :param values: ``{section: {option: value}}``, which take precedence over the files
    :raises BadStoreConfiguration: a file is missing, or cannot be read or parsed
    """

    def __init__(
        self,
        caller: cfg.ConfigOpts | None = None,
        *,
        files: Iterable[str] = (),
        directories: Iterable[str] = (),
        values: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self._caller = caller
        if caller is not None:
            files, directories = _sources(caller)
        self._values = _sections(values)
        self._private = cfg.ConfigOpts()
        self._private.register_opts(DEFAULT_OPTIONS)
        self._private.register_opts(SET_OPTIONS, group="glance_store")
        self._parse([str(path) for path in files], [str(path) for path in directories])
        if caller is not None:
            self._borrow(caller)
        for section in ("DEFAULT", "glance_store"):
            self._override(section)

    def _parse(self, files: Sequence[str], directories: Sequence[str]) -> None:
        for path in files:
            if not os.path.isfile(path):
                raise BadStoreConfiguration(f"Configuration file {path} does not exist.")
        for path in directories:
            if not os.path.isdir(path):
                raise BadStoreConfiguration(f"Configuration directory {path} does not exist.")
        for folder in directories:
            for name in sorted(os.listdir(folder)):
                path = os.path.join(folder, name)
                if name.endswith(".conf") and os.path.exists(path) and not os.path.isfile(path):
                    raise BadStoreConfiguration(f"Expected {path} to be a file.")
        with LibraryCall(_unreadable, kept=()):
            self._private(
                args=[],
                project="store_lib",
                default_config_files=list(files),
                default_config_dirs=list(directories),
            )

    def _borrow(self, caller: cfg.ConfigOpts) -> None:
        """Make the caller's options available in references such as ``$state_path/images``."""
        for name in caller:
            try:
                value = caller[name]
            except (cfg.Error, ValueError, RecursionError):
                continue  # not an error of a store
            if isinstance(value, str) and name not in self._private:
                self._private.register_opt(cfg.StrOpt(name, default=value))

    def _override(self, section: str) -> None:
        group = None if section == "DEFAULT" else section
        for name, value in self._values.get(section, {}).items():
            try:
                self._private.set_override(name, value, group=group)
            except _UNREGISTERED:
                continue  # an option of a store; it is set when the driver is known
            except (ValueError, TypeError, AttributeError) as error:
                raise BadStoreConfiguration(
                    f"Option {name} in section [{section}] is invalid: {error}"
                ) from error

    def value(self, name: str, section: str | None) -> tuple[Any, bool]:
        """Return an option's value, and whether the operator has set it.

        :raises BadStoreConfiguration: the value is not of the option's type
        """
        where = f"Option {name} in section [{section or 'DEFAULT'}]"
        conf = self._private
        if self._caller is not None and _has(self._caller, name, section):
            conf = self._caller
        with LibraryCall(functools.partial(_invalid, where), kept=()):
            return _read(conf, name, section)

    def sections(self) -> list[StoreSection]:
        """Return the configured stores, in the order of the configuration.

        :raises BadStoreConfiguration: an id is reserved, or ``enabled_backends`` is malformed
        """
        enabled, _ = self.value("enabled_backends", None)
        if enabled:
            for store_id in enabled:
                if store_id in RESERVED_SECTIONS:
                    raise BadStoreConfiguration(
                        f"A store cannot be named {store_id!r} in enabled_backends: that section "
                        "has another meaning. Choose another id."
                    )
            return [StoreSection(name, str(driver), name) for name, driver in enabled.items()]
        stores, _ = self.value("stores", "glance_store")
        names = [_LEGACY_NAME.sub(r"\1", str(name).strip()) for name in stores]
        return [StoreSection(name, name, "glance_store") for name in dict.fromkeys(names) if name]

    @property
    def single(self) -> bool:
        """Whether this is the old single-store form."""
        return not self.value("enabled_backends", None)[0]

    def options(
        self,
        section: str,
        opts: Sequence[cfg.Opt],
        library_opts: Mapping[str, Sequence[cfg.Opt]] | None = None,
    ) -> StoreOptions:
        """Return a store's resolved options.

        :param library_opts: options of libraries, by the section that a library reads
        :raises BadStoreConfiguration: a value is not of its option's type
        """
        every = [*STORE_OPTIONS, *opts]
        library = library_opts or {}
        try:
            for group in (section, "backend_defaults"):
                self._private.register_opts(every, group=group)
                self._override(group)
            for group, given in library.items():
                self._private.register_opts(given, group=group)
                self._override(group)
        except cfg.DuplicateOptError as error:
            raise BadStoreConfiguration(f"Two drivers define the same option: {error}") from error
        values: dict[str, Any] = {}
        explicit: set[str] = set()
        for opt in every:
            value, is_set = self.value(opt.dest, section)
            if not is_set:
                shared, shared_set = self.value(opt.dest, "backend_defaults")
                if shared_set:
                    value, is_set = shared, True
            if value is None and is_set and opt.default is not None:
                raise BadStoreConfiguration(
                    f"Option {opt.dest} of section [{section}] is empty. Give it a value, or leave "
                    "the line out."
                )
            if _is_no_number(value):
                raise BadStoreConfiguration(
                    f"Option {opt.dest} of section [{section}] is invalid: expected a number "
                    f"between -{LARGEST} and {LARGEST}."
                )
            # Hidden in listings of a frame's variables.
            values[opt.dest] = Secret(value) if opt.secret and isinstance(value, str) else value
            if is_set:
                explicit.add(opt.dest)
        for group, given in library.items():
            for opt in given:
                values[opt.dest], is_set = self.value(opt.dest, group)
                if is_set:
                    explicit.add(opt.dest)
        return StoreOptions(values, frozenset(explicit), section)


class Selection(Configuration):
    """Some of the stores of a configuration.

    :param sections: the selected stores
    :param reserved: ids of reserved stores among them; the service reads their directory from the
        configuration too, so ``[backend_defaults]`` must not change it

    The other parameters are those of :class:`Configuration`.
    """

    def __init__(
        self,
        caller: cfg.ConfigOpts | None,
        sections: Sequence[StoreSection],
        reserved: Collection[str] = (),
        *,
        files: Iterable[str] = (),
        directories: Iterable[str] = (),
        values: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self._sections = list(sections)
        self._reserved = frozenset(reserved)
        super().__init__(caller, files=files, directories=directories, values=values)

    def sections(self) -> list[StoreSection]:
        return self._sections

    def value(self, name: str, section: str | None) -> tuple[Any, bool]:
        if section == "glance_store" and name in ("default_backend", "default_store"):
            return None, False  # the default store may not be selected
        value, given = super().value(name, section)
        return value, given or (section in self._reserved and name in _DATADIRS)


def _sections(values: Any) -> dict[str, dict[str, Any]]:
    """Return a copy of the options by section.

    :raises BadStoreConfiguration: ``values`` is not a mapping of mappings
    """
    sections = {} if values is None else values
    if isinstance(sections, Mapping) and all(isinstance(s, Mapping) for s in sections.values()):
        return {str(section): dict(given) for section, given in sections.items()}
    raise BadStoreConfiguration("Expected the configuration as {section: {option: value}}.")


def _is_no_number(value: Any) -> bool:
    """Return whether a value is NaN or too large an integer."""
    if isinstance(value, float):
        return math.isnan(value)  # it passes all comparisons with bounds
    return isinstance(value, int) and abs(value) > LARGEST


def _has(conf: cfg.ConfigOpts, name: str, section: str | None) -> bool:
    """Return whether an option is registered, even if its value refers to one that is not."""
    if section is None:
        return name in conf
    try:
        group = conf[section]
    except _UNREGISTERED:
        return False
    return isinstance(group, cfg.ConfigOpts.GroupAttr) and name in group


def literal(value: Any) -> Any:
    """Return a value with ``$`` escaped, so that a configuration returns it unchanged."""
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, list):
        return [literal(item) for item in value]
    if isinstance(value, dict):
        return {name: literal(item) for name, item in value.items()}
    return value


def _unreadable(error: Exception) -> BadStoreConfiguration | None:
    """Return the error for a file that oslo.config cannot read, else ``None``."""
    reason = str(error)
    if isinstance(error, cfg.ConfigFileParseError):
        # The line itself may contain a password.
        where = _LINE.search(reason)
        line = f", line {where[1]}" if where else ""
        reason = f"{error.config_file}{line}: expected a [section], or name = value."
    elif isinstance(error, UnicodeDecodeError):
        reason = f"it is not UTF-8 (byte {error.start} of a file)."
    elif not isinstance(error, cfg.Error):
        return None
    return BadStoreConfiguration(f"The configuration cannot be read: {reason}")


def _invalid(where: str, error: Exception) -> BadStoreConfiguration | None:
    """Return the error for a value that oslo.config cannot read, else ``None``."""
    if isinstance(error, (*_BAD_REFERENCE, RecursionError)):
        # The name may be a part of a password that contains a $.
        return BadStoreConfiguration(
            f"{where} is invalid: a $ in it refers to an unknown option, or to "
            "itself. Write $$ for a $."
        )
    if isinstance(error, _BAD_VALUE):
        return BadStoreConfiguration(f"{where} is invalid: {error}")
    return None


def _sources(caller: cfg.ConfigOpts) -> tuple[list[str], list[str]]:
    """Return the files and directories that a ConfigOpts was called with; none if it was not."""
    sources: list[list[str]] = []
    for name in ("config_file", "config_dir"):
        try:
            value = getattr(caller, name)
        except (cfg.Error, AttributeError):
            value = None
        sources.append([str(path) for path in value or ()])
    return sources[0], [path for path in sources[1] if os.path.isdir(path)]


def _read(conf: cfg.ConfigOpts, name: str, section: str | None) -> tuple[Any, bool]:
    group = conf if section is None else conf[section]
    value = getattr(group, name)
    location = conf.get_location(name, section)
    given = location is not None and (
        location.location.is_user_controlled or location.location is cfg.Locations.set_override
    )
    return value, given
