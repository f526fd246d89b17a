# What the scripts of this folder share. The test sets ENDPOINT (URL), CA (file of the
# authority, empty over http), ACCESS_KEY, SECRET_KEY, REGION, BUCKET (free names that
# begin so) and FILES (0B, 3B, 200KB, 20MB and the folder odd), and starts each script
# in an empty folder.
set -uo pipefail
export LC_ALL=C.UTF-8 HOME=$PWD TMPDIR=$PWD
# With a PROXY, ENDPOINT is a domain that the proxy alone knows: buckets are hosts below it.
[ -z "$PROXY" ] || export http_proxy=$PROXY https_proxy=$PROXY

# case_ NAME FUNCTION: runs the function, which must succeed command by command, and
# tells the test how it ended: "ok NAME", or "fail NAME" and what was printed.
case_() {
  ( set -ex; "$2" ) >case.log 2>&1 </dev/null
  if [ $? -eq 0 ]; then echo "ok $1"; else echo "fail $1: $(tail -n 12 case.log | tr '\n' '~')"; fi
}

# same FILE FILE: both have the same bytes.
same() { cmp "$1" "$2"; }
