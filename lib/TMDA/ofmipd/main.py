# SPDX-License-Identifier: GPL-2.0-or-later
"""tmda-ofmipd's main(): from the command line to the exit status.

Order of a start: read options; make and check everything that sessions need (assembly.py); bind
the sockets; go into the background; write the pid file; say that we are ready.  So the exit
status of the command tells whether the daemon runs, and every mistake is one line on stderr:

    64  the command line is wrong              69  not available in this version or on this host
    71  the system refused something           75  the address is in use
    78  a file is missing, unsafe or broken    70  a fault of ours

PARTS is the one place that names parts which are imported only when an option asks for them.
"""

from __future__ import annotations

import os
import sys
import time
from typing import NamedTuple, Sequence

from TMDA.Errors import TMDAError
from TMDA.ofmipd.failure import CONFIG, OS_ERROR, SOFTWARE, UNAVAILABLE, StartError
from TMDA.ofmipd.options import Options, parse


class Part(NamedTuple):
    """What serves an option: `module`.run(options) returns the exit status."""

    option: str
    module: str
    flag: str


PARTS = (
    Part('check', 'TMDA.ofmipd.check', '--check'),
    Part('explain', 'TMDA.ofmipd.explain', '--explain'),
    Part('setup', 'TMDA.ofmipd.setup', '--setup'),
    Part('autoconfig', 'TMDA.ofmipd.autoconfig', '--autoconfig'),
    Part('demo', 'TMDA.ofmipd.demo', '--demo'),
    Part('password', 'TMDA.ofmipd.passwordentry', '--password'),
)
STATISTICS = 'TMDA.ofmipd.statistics'


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit status.  Raises nothing."""
    try:
        return _main(parse(list(sys.argv[1:] if arguments is None else arguments)))
    except StartError as error:
        return _complain(error.status, str(error))
    except TMDAError as error:
        return _complain(CONFIG, str(error))
    except BrokenPipeError:  # as in `--check | head`: who reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OS_ERROR
    except OSError as error:
        name = '%s: ' % error.filename if error.filename else ''
        return _complain(OS_ERROR, name + (error.strerror or str(error)))
    except Exception as error:
        from TMDA.ofmipd.trouble import fault
        return _complain(SOFTWARE, 'internal error: %(cause)s (%(where)s)' % fault(error))


def _main(options: Options) -> int:
    if options.help or options.version or options.short_version:
        return _inform(options)
    for part in PARTS:
        if getattr(options, part.option):
            status = _part(part.module, part.flag).run(options)
            sys.stdout.flush()
            return status
    if options.stats:
        _part(STATISTICS, '--stats')
    return _serve(options)


def _inform(options: Options) -> int:
    """--help, --version and -V."""
    if options.help:
        from TMDA.ofmipd.options import help_text
        text = help_text()
    else:
        from TMDA import Version
        text = (Version.details() if options.version else Version.TMDA) + '\n'
    sys.stdout.write(text)
    return 0


def _part(module: str, what: str):
    """Import a module, or say that this version does not have it."""
    try:
        return __import__(module, fromlist=('run',))
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise StartError(UNAVAILABLE, '%s is not available in this version' % what) from None


def is_shared(options: Options) -> bool:
    """Whether several users share the daemon, so that each session has a process of its own."""
    return os.geteuid() == 0 or bool(options.configdir or options.vhome_script)


def _serve(options: Options) -> int:
    """Personal mode: one account, in this process or its workers.  Or shared mode."""
    os.umask(0o077)
    if is_shared(options):
        from TMDA.ofmipd.shared import SharedAssembly
        assembly = SharedAssembly(options, _log(options))
        return assembly.serve_one() if options.one_session else _run_daemon(assembly)
    from TMDA.ofmipd.assembly import Assembly
    assembly = Assembly(options, _log(options))
    if options.one_session:
        from TMDA.ofmipd import onesession
        onesession.run(assembly.service(assembly.options.tls_mode), assembly.networks, os.environ)
        return 0
    return _run_daemon(assembly)


def _log(options: Options):
    """The log as it is until the daemon detaches."""
    from TMDA.ofmipd import logs
    if options.log_file:
        sink = logs.FileSink(options.log_file)
    elif logs.stderr_is_the_client():
        sink = logs.SyslogSink()
    else:
        sink = logs.StderrSink()
    return logs.Log(sink, options.log, options.debug)


def _run_daemon(assembly) -> int:
    """Bind, detach, announce and serve."""
    from TMDA.ofmipd import daemon, listeners, notify
    options = assembly.options
    inherited = notify.inherited_sockets(os.environ)
    notifier = notify.Notifier(os.environ)
    daemon.raise_descriptor_limit()
    listening = listeners.open_all(options.listeners, options.tls_mode, inherited,
                                   assembly.hostname)
    if not options.listeners and not inherited:
        _tell_default(assembly, listening[0].name)
    detached = daemon.Detached()
    try:
        if options.background:
            detached.start()
        _run(assembly, listening, notifier, detached)
    except BaseException as error:
        detached.failed(getattr(error, 'status', OS_ERROR))
        raise
    finally:
        listeners.close_all(listening)
    return 0


def _tell_default(assembly, name: str) -> None:
    """Say so when the default address is not the FQDN's."""
    if not name.startswith(assembly.hostname + ':'):
        assembly.log.event('listening-elsewhere', fqdn=assembly.hostname, address=name)


def _run(assembly, listening, notifier, detached) -> None:
    """Serve, in the background or not, until the end."""
    from TMDA.ofmipd import daemon, logs, process
    options = assembly.options
    pid_file = daemon.PidFile(options.pid_file)
    if options.background and not options.log_file:
        assembly.log.redirect(logs.SyslogSink())
    assembly.log.plain('tmda-ofmipd started at '
                       + time.strftime('%a, %d %b %Y %H:%M:%S %z', time.localtime()))
    for each in listening:
        assembly.log.plain('\tListening on ' + each.name)
    prepared = process.Daemon(assembly, listening, notifier,
                              detached.running if options.background else lambda: None,
                              _book(options))
    try:
        _serve_with_workers(prepared, options)
    finally:
        pid_file.remove()


def _book(options: Options):
    """Where counters are written down, None without --stats; made before anything is forked."""
    return _part(STATISTICS, '--stats').Book(options.stats) if options.stats else None


def _serve_with_workers(prepared, options: Options) -> None:
    """One process, or several: never more than there may be sessions.  Shared mode has its own."""
    if is_shared(options):
        prepared.assembly.supervise(prepared)
        return
    number = min(options.workers, options.sessions or options.workers)
    if number > 1:
        from TMDA.ofmipd.workers import supervise
        supervise(prepared, number, options.sessions)
    else:
        from TMDA.inject import processor
        from TMDA.ofmipd.process import serve
        if not options.all_processors:
            processor.keep_to_one(os.getpid())
        serve(prepared, options.sessions)


def _complain(status: int, text: str) -> int:
    """One line on stderr; where that is the client's connection, to syslog, and 421 to the client."""
    from TMDA.ofmipd.logs import SyslogSink, stderr_is_the_client
    line = 'tmda-ofmipd: ' + text.split('\n')[0]
    if stderr_is_the_client():
        SyslogSink()(line, problem=True)
        os.write(0, b'421 4.3.0 Service not available\r\n')
    else:
        print(line, file=sys.stderr)
    return status
