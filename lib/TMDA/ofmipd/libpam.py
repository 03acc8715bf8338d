# SPDX-License-Identifier: GPL-2.0-or-later
"""pam_authenticate and pam_acct_mgmt of the system's libpam, called through ctypes.

Imported by the first PAM login.  Numbers are those of
Linux-PAM (_pam_types.h).  Each call has a handle and a conversation of its own, so calls in
several threads do not meet.
"""

from __future__ import annotations

import ctypes
import functools
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_void_p
from typing import Tuple

PROMPT_HIDDEN, PROMPT_SHOWN, ERROR_TEXT, INFORMATION = 1, 2, 3, 4  # message styles
RHOST = 4  # item: the client's address
CONVERSATION_ERROR = 19
SILENT = 0x8000
NO_EMPTY_PASSWORD = 0x0001


class _Message(ctypes.Structure):
    _fields_ = [('style', c_int), ('text', c_char_p)]


class _Response(ctypes.Structure):
    _fields_ = [('text', c_void_p), ('code', c_int)]


_Function = ctypes.CFUNCTYPE(c_int, c_int, POINTER(POINTER(_Message)),
                             POINTER(POINTER(_Response)), c_void_p)


class _Conversation(ctypes.Structure):
    _fields_ = [('function', _Function), ('data', c_void_p)]


# function: (result, arguments)
_PAM = {
    'pam_start': (c_int, [c_char_p, c_char_p, POINTER(_Conversation), POINTER(c_void_p)]),
    'pam_set_item': (c_int, [c_void_p, c_int, c_char_p]),
    'pam_authenticate': (c_int, [c_void_p, c_int]),
    'pam_acct_mgmt': (c_int, [c_void_p, c_int]),
    'pam_end': (c_int, [c_void_p, c_int]),
    'pam_strerror': (c_char_p, [c_void_p, c_int]),
}
_LIBC = {
    'calloc': (c_void_p, [c_size_t, c_size_t]),
    'strdup': (c_void_p, [c_char_p]),
}


@functools.lru_cache(maxsize=None)
def _libraries() -> Tuple[ctypes.CDLL, ctypes.CDLL]:
    """libpam and libc, their functions declared."""
    try:
        pam = ctypes.CDLL('libpam.so.0')
    except OSError:
        pam = ctypes.CDLL('libpam.so')
    libc = ctypes.CDLL(None)
    for library, functions in ((pam, _PAM), (libc, _LIBC)):
        for name, (result, arguments) in functions.items():
            getattr(library, name).restype = result
            getattr(library, name).argtypes = arguments
    return pam, libc


def _answering(libc: ctypes.CDLL, user: bytes, password: bytes):
    """The conversation function: hidden prompts get the password, shown ones the user."""
    answers = {PROMPT_HIDDEN: password, PROMPT_SHOWN: user, ERROR_TEXT: None, INFORMATION: None}

    def converse(count, messages, responses, _data):
        styles = [messages[number].contents.style for number in range(count)]
        if any(style not in answers for style in styles):
            return CONVERSATION_ERROR
        # libpam frees the array and its strings
        array = libc.calloc(count, ctypes.sizeof(_Response))
        if not array:
            return CONVERSATION_ERROR
        responses[0] = ctypes.cast(array, POINTER(_Response))
        for number, style in enumerate(styles):
            if answers[style] is not None:
                responses[0][number].text = libc.strdup(answers[style])
        return 0

    return _Function(converse)


def authenticate(service: str, user: bytes, password: bytes, remote_host: str) -> Tuple[int, str]:
    """(PAM's return code, its text) for a login; 0 is success.  Blocks as long as the modules do.

    remote_host is for the modules' log and access rules; '' if unknown.  OSError if there is no
    libpam.
    """
    pam, libc = _libraries()
    conversation = _Conversation(_answering(libc, user, password), None)
    handle = c_void_p()
    code = pam.pam_start(service.encode(), user, byref(conversation), byref(handle))
    if code:
        return code, 'pam_start failed'
    if remote_host:
        pam.pam_set_item(handle, RHOST, remote_host.encode())
    code = pam.pam_authenticate(handle, SILENT | NO_EMPTY_PASSWORD)
    if code == 0:
        code = pam.pam_acct_mgmt(handle, SILENT | NO_EMPTY_PASSWORD)
    words = (pam.pam_strerror(handle, code) or b'').decode('utf-8', 'replace')
    pam.pam_end(handle, code)
    return code, words
