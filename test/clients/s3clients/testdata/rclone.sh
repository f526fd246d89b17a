# rclone, as the provider that $1 names: Other, Minio, AWS.
. "$(dirname "$0")/lib.sh"
cat >rclone.conf <<E
[q]
type = s3
provider = $1
access_key_id = $ACCESS_KEY
secret_access_key = $SECRET_KEY
region = $REGION
endpoint = $ENDPOINT
force_path_style = true
chunk_size = 5Mi
upload_cutoff = 5Mi
list_chunk = 2
E
rc() { rclone --config rclone.conf ${CA:+--ca-cert "$CA"} --retries 1 --low-level-retries 1 "$@"; }
B=$BUCKET

bucket() { rc mkdir "q:$B"; rc lsd q: | grep -w "$B"; }
upload() { rc copyto "$FILES/$1" "q:$B/up/$1"; rc copyto "q:$B/up/$1" "back$1"; same "back$1" "$FILES/$1"; }
upload_0() { upload 0B; }
upload_3() { upload 3B; }
upload_200k() { upload 200KB; }
upload_20m() { upload 20MB; rc check "$FILES" "q:$B/up" --include /20MB; }
stream() {
  rc rcat "q:$B/streamed" <"$FILES/20MB"
  rc cat "q:$B/streamed" | cmp - "$FILES/20MB"
  rc rcat "q:$B/streamed 3B" <"$FILES/3B"
  rc cat "q:$B/streamed 3B" | cmp - "$FILES/3B"
}
# Two keys a page, so a listing is several requests.
list() {
  [ "$(rc lsf "q:$B/up" | xargs)" = "0B 200KB 20MB 3B" ]
  rc lsf "q:$B" | grep -x up/
  [ "$(rc lsf -R --files-only "q:$B/up" | wc -l)" = 4 ]
  rc --s3-list-version 1 lsf "q:$B/up" | grep -x 3B
}
head_() { [ "$(rc size --json "q:$B/up/200KB" | grep -o '"bytes":[0-9]*')" = '"bytes":200000' ]; rc lsl "q:$B/up/200KB" | grep 200000; }
range() { rc cat --offset 1000 --count 1000 "q:$B/up/200KB" | cmp - <(tail -c +1001 "$FILES/200KB" | head -c 1000); }
copy() {
  rc copyto "q:$B/up/200KB" "q:$B/copy of"
  rc --s3-copy-cutoff 5Mi copyto "q:$B/up/20MB" "q:$B/copy of 20MB"
  rc moveto "q:$B/copy of 20MB" "q:$B/moved"
  rc cat "q:$B/moved" | cmp - "$FILES/20MB"
}
metadata() {
  touch -d 2001-02-03T04:05:06Z old
  rc copyto --metadata --metadata-set name=value old "q:$B/meta"
  rc lsjson --metadata "q:$B/meta" >json
  grep -q 2001-02-03T04:05:06 json
  grep -q '"name":"value"' json
  rc touch -t 2002-02-03T04:05:06 "q:$B/meta"
  rc lsjson "q:$B/meta" | grep 2002-02-03T04:05:06
}
presigned() { curl -sf ${CA:+--cacert "$CA"} "$(rc link --expire 10m "q:$B/up/200KB")" | cmp - "$FILES/200KB"; }
odd_keys() { rc copy "$FILES/odd" "q:$B/odd"; rc copy "q:$B/odd" odd; diff -r "$FILES/odd" odd; rc check "$FILES/odd" "q:$B/odd"; }
cleanup() { rc cleanup "q:$B"; rc backend list-multipart-uploads "q:$B"; }
delete_one() { rc deletefile "q:$B/meta"; ! rc lsf "q:$B/meta" | grep meta; }
delete_many() { rc purge "q:$B"; ! rc lsd q: | grep -w "$B"; }
case_ "make a bucket" bucket
case_ "upload 0 B" upload_0
case_ "upload 3 B" upload_3
case_ "upload 200 KB" upload_200k
case_ "upload 20 MB in parts" upload_20m
case_ "upload a stream of unknown length" stream
case_ "list in pages, with prefix and delimiter" list
case_ "head" head_
case_ "get a range" range
case_ "copy" copy
case_ "metadata" metadata
case_ "presigned get" presigned
case_ "odd keys" odd_keys
case_ "remove unfinished uploads" cleanup
case_ "delete one" delete_one
case_ "delete many" delete_many
