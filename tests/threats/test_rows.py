# SPDX-License-Identifier: GPL-2.0-or-later
"""Threat by threat: the tests that fail without the defense.

A row is a threat, as htdocs/security.html names it, and the tests in FILE::NAME form, FILE below
tests/; a dialogue is a file alone.  The tests here make sure that all of them exist.
"""
import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
PAGE = TESTS.parent / 'htdocs' / 'security.html'

ROWS = {
    'SMTP smuggling in': (
        'unit/test_smuggling.py::test_form_is_one_message',
        'unit/test_smuggling.py::test_random_mixes_are_one_message_each',
        'unit/test_smuggling.py::test_after_a_message_that_is_refused_the_rest_is_no_command',
        'unit/test_datareader.py::test_form_is_no_end_of_data',
        'unit/test_session.py::test_fault_while_reading_a_message_ends_the_session',
        'real/test_smuggling_postfix.py::test_form_is_one_message_for_postfix'),
    'smuggling out': (
        'unit/test_smuggling.py::test_form_in_the_header_is_one_message',
        'unit/test_smtpout.py::test_smuggling_out_dots',
        'unit/test_smtpout.py::test_smuggling_out_header',
        'real/test_smuggling_postfix.py::test_random_mixes_are_one_message_each_for_postfix'),
    'str.splitlines()': (
        'threats/test_source.py::test_splitlines_is_not_used_on_protocol_or_header',
        'unit/test_datareader.py::test_form_is_no_end_of_data'),
    'STARTTLS command injection': (
        'unit/test_session.py::test_starttls_drops_what_came_in_the_clear_behind_it',
        'unit/test_session.py::test_starttls_forgets_login_and_transaction',
        'fuzz/test_fuzz.py::test_target_keeps_its_promises'),
    'STARTTLS response injection': (
        'unit/test_smtplink.py::test_tls_response_injection',
        'unit/test_smtplink.py::test_tls_not_offered'),
    'AUTH in clear': (
        'unit/test_session.py::test_verb_before_tls_and_login', 'dialogs/tls-on.txt'),
    'old TLS, weak suites': (
        'unit/test_tls.py::test_context_floor_and_switches',
        'unit/test_tls.py::test_context_offers_forward_secrecy_only'),
    'hung handshake': (
        'unit/test_server.py::test_server_hung_handshake_stops_nobody',
        'unit/test_session.py::test_handshake_that_hangs_ends_with_tls_seconds'),
    'slowloris': (
        'unit/test_wire.py::test_drip_does_not_move_the_deadline',
        'unit/test_session.py::test_login_time_is_a_total',
        'unit/test_session.py::test_silence_after_login_ends_with_command_seconds',
        'unit/test_session.py::test_client_that_never_reads_is_cut_off',
        'unit/test_datareader.py::test_slow_sender_is_cut_off',
        'soak/test_soak.py::test_soak_leaves_nothing_behind'),
    'brute force': (
        'unit/test_guard.py::test_delay_doubles_up_to_the_most',
        'unit/test_guard.py::test_addresses_remembered_are_bounded',
        'unit/test_session.py::test_failed_login_is_delayed_and_logged',
        'unit/test_session.py::test_source_that_cannot_tell_costs_time_too',
        'dialogs/login-failures.txt',
        'threats/test_fail2ban.py::test_fail2ban_finds_failed_logins'),
    'user enumeration': (
        'threats/test_strangers.py::test_unknown_user_is_answered_like_a_wrong_password',
        'threats/test_strangers.py::test_salt_of_an_unknown_user_stays_the_same',
        'unit/test_passwords.py::test_unknown_user_is_checked_against_an_entry',
        'unit/test_passwords.py::test_unknown_user_takes_the_same_time'),
    'header injection': (
        'unit/test_received.py::test_received_helo_is_made_harmless',
        'unit/test_message.py::test_clean_value_cannot_start_a_new_line',
        'unit/test_addresses.py::test_format_mailbox',
        'fuzz/test_fuzz.py::test_target_keeps_its_promises'),
    'envelope injection': (
        'unit/test_grammar.py::test_address_syntax_error',
        'unit/test_smtpout.py::test_envelope_injection',
        'fuzz/test_fuzz.py::test_crasher_is_mended'),
    'option injection': (
        'unit/test_transport_sendmail.py::test_sendmail_arguments_input_environment',
        'unit/test_tools_inject.py::'
        'test_inject_leading_dash_is_no_recipient_without_the_separator'),
    'unbounded DATA, lines, RCPT, headers': (
        'unit/test_datareader.py::test_too_big_is_read_to_its_end', 'dialogs/size.txt',
        'dialogs/recipients.txt', 'dialogs/line-too-long.txt', 'dialogs/login-line-too-long.txt',
        'unit/test_wire.py::test_line_too_long_is_not_kept_in_memory',
        'unit/test_message.py::test_header_beyond_the_limit_is_refused',
        'threats/test_strangers.py::test_depth_harms_nobody'),
    'log injection': (
        'unit/test_logs.py::test_escaped_is_one_line_of_ascii_for_every_character',
        'unit/test_logs.py::test_event_line_is_bounded',
        'threats/test_fail2ban.py::test_fail2ban_is_not_deceived_by_the_user_name'),
    'PROXY / XCLIENT spoofing': (
        'unit/test_proxyprotocol.py::test_client_behind_others_are_not_believed',
        'unit/test_proxyprotocol.py::test_client_behind_is_required',
        'unit/test_proxyprotocol.py::test_client_behind_has_to_come_in_time',
        'threats/test_strangers.py::test_xclient_and_proxy_are_not_believed'),
    'privilege drop': (
        'root/test_global_mode.py::test_processes_are_who_they_should_be',
        'root/test_global_mode.py::test_thief_gets_nothing',
        'root/test_global_mode.py::test_root_is_refused_like_a_wrong_password',
        'unit/test_privileges.py::test_become_without_the_right_to_ends_the_process'),
    'seteuid as a "drop"': (
        'root/test_global_mode.py::test_thief_gets_nothing',
        'root/test_global_mode.py::test_processes_are_who_they_should_be'),
    'checkpassword': (
        'unit/test_checkpassword.py::test_fields_on_descriptor_3',
        'unit/test_checkpassword.py::test_nothing_of_the_client_elsewhere',
        'unit/test_checkpassword.py::test_exit_codes',
        'unit/test_checkpassword.py::test_credentials_that_no_program_sees',
        'unit/test_checkpassword.py::test_program_hangs_and_its_group_is_killed'),
    'path traversal': (
        'unit/test_accounts.py::test_login_name_unsafe',
        'threats/test_strangers.py::test_login_name_that_is_no_name_is_refused_before_235'),
    'symlink / list files': (
        'unit/test_sidenotes.py::test_bare_append_does_not_follow_a_symbolic_link',
        'unit/test_sidenotes.py::test_bare_append_new_file_is_private',
        'unit/test_sidenotes.py::test_bare_append_by_many_threads_lists_each_once',
        'unit/test_memory.py::test_memory_never_through_a_link',
        'unit/test_logs.py::test_file_sink_does_not_follow_a_link'),
    'temp files': (
        'unit/test_spool.py::test_spool_file_has_no_name',
        'unit/test_transport_sendmail.py::test_sendmail_leaves_no_files',
        'threats/test_source.py::test_no_temporary_names',
        'threats/test_resources.py::test_nothing_is_left_behind_when_it_is_killed_in_a_message'),
    'secrets in logs, args, env': (
        'unit/test_main.py::test_daemon_debug_shows_no_password',
        'unit/test_logs.py::test_redacted_client',
        'unit/test_sasl.py::test_no_repr_shows_a_secret',
        'unit/test_smtplink.py::test_peer_hides_its_password',
        'unit/test_checkpassword.py::test_nothing_of_the_client_elsewhere'),
    'LDAP empty password': (
        'unit/test_ldap.py::test_login_empty_password_not_asked',
        'unit/test_ldap.py::test_bind_request_never_anonymous',
        'real/test_real_sources.py::test_slapd_empty_password_is_success_to_slapd'),
    'LDAP DN injection': (
        'unit/test_ldap.py::test_escape', 'unit/test_ldap.py::test_login_sends_escaped_dn',
        'unit/test_ldap.py::test_login_malformed_response',
        'fuzz/test_fuzz.py::test_target_keeps_its_promises'),
    'IMAP/POP3 CRLF': (
        'unit/test_remote.py::test_credentials_never_sent',
        'unit/test_remote.py::test_imap_login_accepted'),
    'fork in threads': (
        'threats/test_source.py::test_fork_only_where_there_are_no_threads',
        'threats/test_source.py::test_no_code_between_fork_and_exec'),
    'user config is code': (
        'unit/test_submit.py::test_broken_configuration_is_deferred',
        'unit/test_submit.py::test_exit_in_an_expression_is_an_error_not_the_end',
        'unit/test_child.py::test_configuration_that_ends_the_process_ends_the_channel',
        'unit/test_shared.py::test_code_that_misbehaves_harms_its_own_session_only',
        'threats/test_resources.py::test_configuration_that_ends_the_process_is_no_success'),
    'session mix-up': (
        'unit/test_defaults.py::test_load_in_threads_keeps_users_apart',
        'unit/test_defaults.py::test_python_environment_is_the_messages_alone',
        'unit/test_submit.py::test_configuration_sees_the_environment_of_its_message',
        'root/test_global_mode.py::test_sessions_in_parallel_do_not_mix',
        'threats/test_source.py::test_environment_of_the_process_is_not_changed'),
    'X-TMDA override': (
        'unit/test_submit.py::test_override_from_the_network_runs_nothing',
        'unit/test_submit.py::test_override_in_the_subject_runs_nothing'),
    'promise of 250': (
        'unit/test_transport_smtp.py::test_failure_one_delivery',
        'unit/test_transport_smtp.py::test_failure_two_deliveries_second',
        'unit/test_submit.py::test_broken_filter_is_deferred',
        'unit/test_session.py::test_backend_that_raises_gives_451_with_the_session_id',
        'chaos/test_chaos.py::test_storm_loses_nothing_and_repeats_nothing',
        'threats/test_resources.py::test_disk_full_is_452_and_small_messages_go_through'),
    'shutdown': (
        'unit/test_server.py::test_server_stop_tells_idle_sessions',
        'unit/test_server.py::test_server_stop_lets_a_message_be_finished',
        'unit/test_server.py::test_server_stop_does_not_wait_for_ever',
        'unit/test_main.py::test_daemon_end', 'unit/test_shared.py::test_stop_lets_a_message_end',
        'chaos/test_chaos.py::test_storm_loses_nothing_and_repeats_nothing'),
    'descriptors used up': (
        'unit/test_server.py::test_server_accept_fails_and_recovers',
        'unit/test_main.py::test_daemon_survives_the_end_of_descriptors',
        'threats/test_resources.py::test_message_goes_through_when_descriptors_are_used_up'),
}


def names_in(path):
    """Names of the tests in a file."""
    return {node.name for node in ast.walk(ast.parse(path.read_text(encoding='utf-8')))
            if isinstance(node, ast.FunctionDef) and node.name.startswith('test_')}


@pytest.mark.parametrize('threat', ROWS)
def test_threat_has_its_tests(threat):
    assert ROWS[threat]
    for name in ROWS[threat]:
        file, _, test = name.partition('::')
        path = TESTS / file
        assert path.is_file(), name
        assert not test or test in names_in(path), name


def test_page_has_all_rows():
    """The table of threats in the documentation names the same threats in the same order."""
    page = PAGE.read_text(encoding='utf-8')
    table = page.partition('<table id="threats">')[2].partition('</table>')[0]
    named = re.findall(r'<tr><th scope="row">(.*?)</th>', table)
    plain = [re.sub(r'<[^>]+>', '', name).replace('&quot;', '"').replace('&amp;', '&')
             for name in named]
    assert plain == list(ROWS)
