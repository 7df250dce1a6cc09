#!/bin/sh
# Look for passwords, keys and tokens in the files that git tracks: `make secrets`. Prints where they are, not what.
# Usage: dev/secrets.sh [path of detect-secrets-hook]
say() { printf '%s %s\n' 'secrets:' "$1"; }
if ! git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
  say "`pwd` is not a git checkout: skipped"
  exit 0
fi
# Images hold no passwords, and lock files hold thousands of hashes.
if ! git ls-files -z -- . ':!*.png' ':!*.svg' ':!requirements*.txt' \
    | xargs -0 -n 150 -P 4 "${1:-detect-secrets-hook}" --baseline .secrets.baseline; then
  say "remove the value, and change it at its server, because git keeps it. Add a value that is only an" >&2
  say "example to the pattern of should_exclude_secret in .secrets.baseline" >&2
  exit 1
fi
say "none in `git ls-files | wc -l | tr -d ' '` tracked files"
