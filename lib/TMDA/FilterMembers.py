# SPDX-License-Identifier: GPL-2.0-or-later
"""`to-ezmlm` and `to-mailman`: the members of a mailing list.

Made by FilterSources.find_class.  An address matches in any case; a bare domain never does.
Members are kept while their files are unchanged.

ezmlm keeps subscribers in DIR/subscribers/*, each as `T`, the address and a NUL.  Mailman 2.1
keeps a list's attributes in DIR/config.pck, a pickle; Mailman 2.0 in DIR/config.db, marshalled.  A
pickle may name any class or function of any module to be called with any arguments: none is
looked up here, and what would have been made by one is an empty object.
"""
from __future__ import annotations

import io
import os
from typing import Any, Dict, FrozenSet, Optional, Tuple

from TMDA.FilterFiles import ContentCache, SourceError, decode
from TMDA.FilterSourceBase import PathSource


class EzmlmSource(PathSource):
    """The subscribers of the ezmlm list in a directory."""

    def find(self, keys: Tuple[str, ...]) -> Optional[str]:
        with os.scandir(os.path.join(self.path, 'subscribers')) as entries:
            paths = [entry.path for entry in entries if entry.is_file()]
        for path in paths:
            try:
                if keys[0] in _subscribers.get(path):
                    return ''
            except FileNotFoundError:
                pass  # ezmlm renamed or removed it meanwhile
        return None


def _read_subscribers(data: bytes) -> FrozenSet[str]:
    return frozenset(
        decode(entry[1:]).lower() for entry in data.split(b'\0') if entry.startswith(b'T'))


class MailmanSource(PathSource):
    """The addresses in one attribute (members, owner, ...) of the Mailman list in a directory."""

    OPTIONS = {'optional': False, 'attr': True}

    def find(self, keys: Tuple[str, ...]) -> Optional[str]:
        name = self.options.get('attr')
        if name is None:
            raise SourceError(f'"{self.name}" missing -attr argument')
        path, attributes = self._attributes()
        if name not in attributes:
            raise SourceError(f'{path}: the list has no attribute "{name}" with addresses')
        return '' if keys[0] in attributes[name] else None

    def _attributes(self) -> Tuple[str, Dict[str, FrozenSet[str]]]:
        path = os.path.join(self.path, 'config.pck')
        try:
            return path, self._of(path, _pickled)
        except FileNotFoundError:
            old = os.path.join(self.path, 'config.db')
            if not os.path.exists(old):
                raise
            return old, self._of(old, _marshalled)

    @staticmethod
    def _of(path: str, cache: ContentCache) -> Dict[str, FrozenSet[str]]:
        try:
            return cache.get(path)
        except OSError:
            raise
        except Exception as error:  # damaged data may raise nearly anything while it is read
            cause = f'{type(error).__name__}: {error}'
            raise SourceError(f'{path}: not a Mailman list: {cause}') from None


class _Nothing:
    """Stands for every class and function that a pickle names, and for what they would give."""

    def __new__(cls, *_: Any, **__: Any) -> _Nothing:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        """Take what a pickle adds to an object that behaves like a list."""

    def extend(self, values: Any) -> None:
        """The same for several at once."""


def _read_pickle(data: bytes) -> Dict[str, FrozenSet[str]]:
    import pickle

    class Unpickler(pickle.Unpickler):
        def find_class(self, module_name: str, global_name: str) -> Any:
            return _Nothing

    return _addresses(Unpickler(io.BytesIO(data), fix_imports=False, encoding='latin-1').load())


def _read_marshal(data: bytes) -> Dict[str, FrozenSet[str]]:
    import marshal
    return _addresses(marshal.loads(data))


def _addresses(attributes: Any) -> Dict[str, FrozenSet[str]]:
    """Of a list's attributes those that hold addresses: as keys of a dict, or in a list."""
    return {_text(name): frozenset(_text(item).lower() for item in value
                                   if isinstance(item, (str, bytes)))
            for name, value in attributes.items()
            if isinstance(name, (str, bytes)) and isinstance(value, (dict, list, tuple))}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else decode(value)


_subscribers = ContentCache(_read_subscribers)
_pickled = ContentCache(_read_pickle)
_marshalled = ContentCache(_read_marshal)
