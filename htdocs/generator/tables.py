# SPDX-License-Identifier: GPL-2.0-or-later
"""The program's tables as HTML and as roff (man(7)).

Each function of HTML_PARTS and ROFF_PARTS returns one generated part.  The argument of a marker
says which rows are meant: a group of options, a section of variables.
"""
import html
import re
import textwrap

from TMDA.inject.limits import LIMITS
from TMDA.ofmipd.logs import EVENTS
from TMDA.ofmipd.options import OPTIONS
from TMDA.ofmipd.statistics import METRICS, PREFIX
from TMDA.ofmipd.verbs import MAIL, RCPT, READY, START, VERBS
from TMDA.Variables import VARIABLES

# The first variable of each section of VARIABLES, by the argument of the marker.
SECTIONS = {
    'user': 'TMDARC',
    'transport': 'MAIL_TRANSFER_AGENT',
    'message': 'FILTER_OUTGOING',
    'addresses': 'RECIPIENT_DELIMITER',
    'keys': 'CRYPT_KEY_FILE',
}
# What is shown as code in a sentence of a table.
_QUOTED = re.compile(r'\$[A-Z_]+|(?:DIR|~|(?<![\w>/]))/[\w/.<>~-]*\w|~\w+/[\w/.-]*\w'
                     r'|(?<![\w-])-{1,2}[A-Za-z0-9][\w-]*|%s')


# HTML

def _html(text: str) -> str:
    """A sentence of a table: options, paths and $VARIABLES in it as code."""
    pieces, position = [], 0
    for found in _QUOTED.finditer(text):
        pieces += [html.escape(text[position:found.start()], quote=False),
                   '<code>%s</code>' % html.escape(found[0], quote=False)]
        position = found.end()
    return ''.join(pieces) + html.escape(text[position:], quote=False)


def options(argument: str) -> str:
    """The options of one group, or of all."""
    lines = ['<dl>']
    for row in OPTIONS:
        if row.group.lower() != argument.lower():
            continue
        shown = ', '.join('<code>%s</code>' % flag for flag in row.flags)
        if row.argument:
            shown += '%s<var>%s</var>' % ('=' if row.flags[-1][:2] == '--' else ' ',
                                          html.escape(row.argument, quote=False))
        lines.append('<dt id="option-%s">%s</dt>' % (row.flags[-1].lstrip('-'), shown))
        lines.append('<dd>%s</dd>' % _html(row.meaning))
    return '\n'.join(lines + ['</dl>'])


def limits(page: str) -> str:
    """All limits as a table; the options are described in options.html."""
    place = '' if page == 'options.html' else 'options.html'
    lines = ['<div class="wide"><table>',
             '<tr><th>Limit</th><th>Default</th><th>For</th><th>Option</th></tr>']
    for row in LIMITS:
        option = '<a href="%s#option-%s"><code>%s</code></a>' % (
            place, row.option.lstrip('-'), row.option) if row.option else ''
        lines.append('<tr id="limit-%s"><td><code>%s</code></td><td class="number">%s</td><td>%s'
                     '</td><td>%s</td></tr>' % (row.name, row.name, _amount(row),
                                                _html(row.meaning), option))
    return '\n'.join(lines + ['</table></div>'])


def _amount(row) -> str:
    return '%d %s' % (row.default, row.unit) if row.default else 'none'


def section(argument: str) -> list:
    """The variables of one section, in order."""
    found, taking = [], False
    for variable in VARIABLES.values():
        if variable.direction != 'out':
            break
        if variable.name in SECTIONS.values():
            taking = variable.name == SECTIONS[argument]
        if taking:
            found.append(variable)
    return found


def variables(argument: str) -> str:
    """One section of the variables."""
    lines = ['<dl>']
    for variable in section(argument):
        facts = '%s. Default: %s.' % (_capital(_kind(variable)), _default(variable))
        if variable.environ:
            facts += ' <code>$%s</code> wins over the configuration.' % variable.environ
        lines += ['<dt id="%s"><code>%s</code></dt>' % (variable.name, variable.name),
                  '<dd>%s. <span class="facts">%s</span></dd>'
                  % (html.escape(variable.meaning, quote=False), facts)]
    return '\n'.join(lines + ['</dl>'])


def _kind(variable) -> str:
    return html.escape((variable.kind.__doc__ or '').strip(), quote=False)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _default(variable) -> str:
    text = html.escape(variable.default_text, quote=False)
    return text if callable(variable.default) else '<code>%s</code>' % text


def incoming() -> str:
    """The names of the variables that are taken without effect."""
    return '<p>%s</p>' % ', '.join('<code id="%s">%s</code>' % (name, name)
                                   for name, variable in VARIABLES.items()
                                   if variable.direction == 'in')


def events() -> str:
    """All events: name, whether a problem, meaning."""
    lines = ['<div class="wide"><table>',
             '<tr><th>Event</th><th>Logged</th><th>Meaning</th></tr>']
    for name, (problem, meaning) in EVENTS.items():
        lines.append('<tr><td><a href="#event-%s"><code>%s</code></a></td><td>%s</td><td>%s</td>'
                     '</tr>' % (name, name, 'always' if problem else '<code>-L</code>',
                                _html(meaning)))
    return '\n'.join(lines + ['</table></div>'])


def metrics() -> str:
    """What --stats writes."""
    lines = ['<div class="wide"><table>', '<tr><th>Name</th><th>Labels</th><th>Meaning</th></tr>']
    for metric in METRICS:
        labels = {metric.label: None} if metric.label else {}
        for further in metric.counters.values():
            labels.update(further)
        shown = PREFIX + metric.name + '_total' * (metric.type == 'counter')
        lines.append('<tr id="metric-%s"><td><code>%s</code></td><td>%s</td><td>%s</td></tr>' % (
            metric.name, shown, ', '.join(map('<code>%s</code>'.__mod__, labels)),
            html.escape(metric.meaning, quote=False)))
    return '\n'.join(lines + ['</table></div>'])


def verbs() -> str:
    """The commands of a session and when each is legal."""
    lines = ['<div class="wide"><table>',
             '<tr><th>Command</th><th>Legal</th><th>Before TLS</th><th>Before login</th></tr>']
    for row in VERBS.values():
        lines.append('<tr><td><code>%s</code></td><td>%s</td><td>%s</td><td>%s</td></tr>' % (
            html.escape(row.syntax), _legal(row.states), _yes(row.before_tls),
            _yes(row.before_auth)))
    return '\n'.join(lines + ['</table></div>'])


def _legal(states: int) -> str:
    words = {START | READY | MAIL | RCPT: 'always', READY | MAIL | RCPT: 'after a greeting',
             READY: 'after a greeting, outside a transaction', MAIL | RCPT: 'after MAIL',
             RCPT: 'after RCPT'}
    return words[states]


def _yes(value: bool) -> str:
    return 'yes' if value else 'no'


HTML_PARTS = {'options': options, 'limits': limits, 'variables': variables, 'incoming': incoming,
              'events': events, 'metrics': metrics, 'verbs': verbs}


# roff

def roff(text: str) -> str:
    """Text for man(7): what roff would take for something else is escaped."""
    text = text.replace('\\', '\\e')
    for plain, escape in (('-', '\\-'), ("'", '\\(aq'), ('~', '\\(ti'), ('^', '\\(ha'),
                          ('`', '\\(ga')):
        text = text.replace(plain, escape)
    return '\\&' + text if text[:1] == '.' else text


def _sentence(text: str) -> str:
    """Prose: hyphens inside words stay hyphens; lines of a length to be read."""
    escaped = re.sub(r'(?<=[a-z])\\-(?=[a-z])', '-', roff(text))
    lines = textwrap.wrap(escaped, 79, break_long_words=False, break_on_hyphens=False)
    return '\n'.join('\\&' + line if line[:1] == '.' else line for line in lines)


def _bold(text: str) -> str:
    return '\\fB%s\\fP' % roff(text)


def roff_options(argument: str) -> str:
    """The options of one group."""
    lines = []
    for row in OPTIONS:
        if row.group.lower() != argument.lower():
            continue
        shown = ', '.join(map(_bold, row.flags))
        if row.argument:
            shown += '%s\\fI%s\\fP' % ('=' if row.flags[-1][:2] == '--' else ' ',
                                       roff(row.argument))
        lines += ['.TP', shown, _sentence(row.meaning)]
    return '\n'.join(lines)


def roff_limits() -> str:
    """All limits."""
    lines = []
    for row in LIMITS:
        text = '%s: %s.' % (_capital(row.meaning), _amount(row))
        if row.option:
            text += ' Option %s.' % row.option
        lines += ['.TP', _bold(row.name), _sentence(text)]
    return '\n'.join(lines)


def roff_variables(argument: str) -> str:
    """One section of the variables."""
    lines = []
    for variable in section(argument):
        text = '%s. %s. Default: %s.' % (variable.meaning, _capital(_plain_kind(variable)),
                                         variable.default_text)
        if variable.environ:
            text += ' $%s wins over the configuration.' % variable.environ
        lines += ['.TP', _bold(variable.name), _sentence(text)]
    return '\n'.join(lines)


def _plain_kind(variable) -> str:
    return (variable.kind.__doc__ or '').strip()


def roff_incoming() -> str:
    """The names of the variables that are taken without effect."""
    return _sentence(', '.join(name for name, variable in VARIABLES.items()
                               if variable.direction == 'in') + '.')


def roff_events() -> str:
    """All events."""
    lines = []
    for name, (problem, meaning) in EVENTS.items():
        lines += ['.TP', _bold(name) + (' (always)' if problem else ''),
                  _sentence(_capital(meaning) + '.')]
    return '\n'.join(lines)


ROFF_PARTS = {'options': roff_options, 'limits': roff_limits, 'variables': roff_variables,
              'incoming': roff_incoming, 'events': roff_events}
