#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# The home of a virtual user of vmailmgr, for tmda-ofmipd --vhome-script:
#
#   vmailmgr-vdir.sh USER DOMAIN
#
# It is the user's directory below that of the account that owns the domain: tmda-ofmipd started
# by root runs this as that account.  Its name comes from vmailmgr's file user-dir ("users", where
# there is none).

[ $# -eq 2 ] || exit 64

directory=users
[ -r /etc/vmailmgr/user-dir ] && read -r directory </etc/vmailmgr/user-dir
home=$HOME/$directory/$1
[ -d "$home" ] || exit 1
printf '%s\n' "$home"
