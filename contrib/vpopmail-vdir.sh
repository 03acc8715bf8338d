#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# The home of a virtual user of vpopmail, for tmda-ofmipd --vhome-script:
#
#   vpopmail-vdir.sh USER DOMAIN
#
# Asks vuserinfo, which is found where vpopmail puts it or, else, in $PATH.  tmda-ofmipd that was
# started by root runs this as the account that owns the domain; it must be able to read
# vpopmail's files, as the account vpopmail is.

[ $# -eq 2 ] || exit 64
PATH=$(echo ~vpopmail)/bin:/home/vpopmail/bin:/var/vpopmail/bin:$PATH

home=$(vuserinfo -d "$1@$2") || exit 1
case $home in
    /*) printf '%s\n' "$home" ;;
    *) exit 1 ;;
esac
