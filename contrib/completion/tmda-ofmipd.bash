# Completion of tmda-ofmipd for bash.  Written by htdocs/generate from the table of options.

_tmda_ofmipd()
{
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}
    # Where '=' divides words, --tls=o comes as three.
    [[ $before == '=' ]] && before=${COMP_WORDS[COMP_CWORD-2]}
    [[ $word == '=' ]] && before=${COMP_WORDS[COMP_CWORD-1]} word=
    case $before in
    --log-file)
        COMPREPLY=($(compgen -f -- "$word")); return ;;
    -u|--username)
        COMPREPLY=($(compgen -u -- "$word")); return ;;
    -c|--configdir)
        COMPREPLY=($(compgen -d -- "$word")); return ;;
    --pid-file)
        COMPREPLY=($(compgen -f -- "$word")); return ;;
    --stats)
        COMPREPLY=($(compgen -f -- "$word")); return ;;
    --explain)
        COMPREPLY=($(compgen -W '' -- "$word")); return ;;
    --from)
        COMPREPLY=($(compgen -W '' -- "$word")); return ;;
    --login)
        COMPREPLY=($(compgen -u -- "$word")); return ;;
    --name)
        COMPREPLY=($(compgen -W '' -- "$word")); return ;;
    --address)
        COMPREPLY=($(compgen -W '' -- "$word")); return ;;
    --upstream)
        COMPREPLY=($(compgen -W '' -- "$word")); return ;;
    --upstream-tls)
        COMPREPLY=($(compgen -W 'starttls wrapper none' -- "$word")); return ;;
    --upstream-login)
        COMPREPLY=($(compgen -W '' -- "$word")); return ;;
    --upstream-password-file)
        COMPREPLY=($(compgen -f -- "$word")); return ;;
    -p|--proxyport)
        COMPREPLY=($(compgen -W '' -- "$word")); return ;;
    -6|--ipv6proxyport)
        COMPREPLY=($(compgen -W '' -- "$word")); return ;;
    -t|--throttle-script)
        COMPREPLY=($(compgen -f -- "$word")); return ;;
    --proxy-protocol)
        COMPREPLY=($(compgen -W '' -- "$word")); return ;;
    --workers)
        COMPREPLY=($(compgen -W '' -- "$word")); return ;;
    --tls)
        COMPREPLY=($(compgen -W 'optional localoptional on' -- "$word")); return ;;
    --ssl-cert)
        COMPREPLY=($(compgen -f -- "$word")); return ;;
    --ssl-key)
        COMPREPLY=($(compgen -f -- "$word")); return ;;
    --ssl-dh)
        COMPREPLY=($(compgen -f -- "$word")); return ;;
    --ciphers)
        COMPREPLY=($(compgen -W '' -- "$word")); return ;;
    -a|--authfile)
        COMPREPLY=($(compgen -f -- "$word")); return ;;
    -A|--authprog)
        COMPREPLY=($(compgen -W '' -- "$word")); return ;;
    -R|--remoteauth)
        COMPREPLY=($(compgen -W 'imap:// imaps:// pop3:// pop3s:// apop:// ldap:// ldaps://' -- "$word")); return ;;
    -m|--pamauth)
        COMPREPLY=($(compgen -W '' -- "$word")); return ;;
    --password)
        COMPREPLY=($(compgen -u -- "$word")); return ;;
    -S|--vhome-script)
        COMPREPLY=($(compgen -f -- "$word")); return ;;
    -v|--vdomains-path)
        COMPREPLY=($(compgen -f -- "$word")); return ;;
    --message-size)
        COMPREPLY=($(compgen -W '' -- "$word")); return ;;
    --recipients)
        COMPREPLY=($(compgen -W '' -- "$word")); return ;;
    --timeout)
        COMPREPLY=($(compgen -W '' -- "$word")); return ;;
    -C|--connections)
        COMPREPLY=($(compgen -W '' -- "$word")); return ;;
    esac
    COMPREPLY=($(compgen -W '--version -V -h --help -d --debug -L --log --log-file -b --background -f --foreground -u --username -c --configdir --pid-file --stats --check --explain --from --login --demo --keep --setup --name --address --upstream --upstream-tls --upstream-login --upstream-password-file --autoconfig --dry-run -p --proxyport -6 --ipv6proxyport -1 --one-session -P --pure-proxy -t --throttle-script --proxy-protocol --workers --all-processors --ssl --tls --ssl-cert --ssl-key --ssl-dh --ciphers --ssl-no-v2 --ssl-no-v3 -a --authfile -A --authprog -R --remoteauth -m --pamauth -F --fallback --password --plain -S --vhome-script -v --vdomains-path --message-size --recipients --timeout -C --connections' -- "$word"))
}
complete -o filenames -F _tmda_ofmipd tmda-ofmipd
