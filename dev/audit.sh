#!/bin/sh
# Ask the OSV database for known vulnerabilities of pinned packages, at most once a day: `make audit`.
# Usage: dev/audit.sh PIP_AUDIT STAMP LOCK...
# The file STAMP is as old as the last answer without vulnerabilities. PIP_AUDIT_OSV_URL names another OSV server.
pip_audit=$1 stamp=$2
shift 2

# Vulnerabilities that do not concern us: --ignore-vuln ID, each with the reason and until when.
ask() {
  for lock; do set -- "$@" --requirement "$lock"; shift; done
  "$pip_audit" --vulnerability-service osv --disable-pip --no-deps --progress-spinner off --timeout 10 "$@"
}

if [ -n "`find "$stamp" -mtime -1 2>/dev/null`" ]; then
  changed=
  for lock; do [ "$stamp" -nt "$lock" ] || changed=$lock; done
  if [ -z "$changed" ]; then echo "audit: nothing known, less than a day ago"; exit 0; fi
fi
# A database that does not know the vulnerabilities of this version (an empty mirror, for example) proves nothing.
known=`mktemp`
trap 'rm -f "$known"' EXIT
echo "jinja2==2.4.1" >"$known"
if ! ask "$known" 2>/dev/null | grep -q '^jinja2 '; then
  echo "audit: the database of vulnerabilities is not reachable: skipped"
  exit 0
fi
if ! ask "$@"; then
  echo "audit: raise the version in requirements*.in and run make lock, or ignore the ID in dev/audit.sh" >&2
  exit 1
fi
mkdir -p "`dirname "$stamp"`"
touch "$stamp"
