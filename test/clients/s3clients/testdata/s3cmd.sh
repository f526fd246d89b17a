# s3cmd, signature version 4.
. "$(dirname "$0")/lib.sh"
hostport=${ENDPOINT#*://}
cat >.s3cfg <<E
access_key = $ACCESS_KEY
secret_key = $SECRET_KEY
bucket_location = $REGION
host_base = $hostport
host_bucket = ${PROXY:+%(bucket)s.}$hostport
${PROXY:+proxy_host = 127.0.0.1}
${PROXY:+proxy_port = ${PROXY##*:}}
use_https = $([ -n "$CA" ] && echo True || echo False)
signurl_use_https = $([ -n "$CA" ] && echo True || echo False)
ca_certs_file = $CA
multipart_chunk_size_mb = 5
max_retries = 1
E
s3() { s3cmd -c .s3cfg --no-progress "$@"; }
B=$BUCKET

bucket() { s3 mb "s3://$B"; s3 ls | grep -w "s3://$B"; }
upload() { s3 put "$FILES/$1" "s3://$B/up/$1"; s3 get --force "s3://$B/up/$1" back; same back "$FILES/$1"; }
upload_0() { upload 0B; }
upload_3() { upload 3B; }
upload_200k() { upload 200KB; }
upload_20m() { upload 20MB; }
stream() { s3 put - "s3://$B/streamed" <"$FILES/20MB"; s3 get --force "s3://$B/streamed" back; same back "$FILES/20MB"; }
list() {
  [ "$(s3 ls "s3://$B/up/" | awk '{print $4}' | xargs)" = "s3://$B/up/0B s3://$B/up/200KB s3://$B/up/20MB s3://$B/up/3B" ]
  s3 ls "s3://$B" | grep -w "DIR *s3://$B/up/"
}
head_() { s3 info "s3://$B/up/200KB" | grep -E 'File size: *200000'; }
# A cut download goes on where it was, by a Range.
range() { head -c 100000 "$FILES/200KB" >part; s3 get --continue "s3://$B/up/200KB" part; same part "$FILES/200KB"; }
copy() { s3 cp "s3://$B/up/200KB" "s3://$B/copy"; s3 mv "s3://$B/copy" "s3://$B/moved"; s3 get --force "s3://$B/moved" back; same back "$FILES/200KB"; }
metadata() {
  s3 put --add-header x-amz-meta-name:value --mime-type text/x-test "$FILES/3B" "s3://$B/meta"
  s3 info "s3://$B/meta" >info
  grep -w 'x-amz-meta-name: *value' info
  grep -w text/x-test info
  s3 modify --add-header x-amz-meta-name:changed "s3://$B/meta"
  s3 info "s3://$B/meta" | grep -w 'x-amz-meta-name: *changed'
}
# signurl of this s3cmd signs by version 2.
presigned() { curl -sf ${CA:+--cacert "$CA"} "$(s3 signurl "s3://$B/up/200KB" +600)" | cmp - "$FILES/200KB"; }
odd_keys() { s3 sync "$FILES/odd/" "s3://$B/odd/"; s3 sync "s3://$B/odd/" odd/; diff -r "$FILES/odd" odd; }
delete_one() { s3 rm "s3://$B/meta"; ! s3 info "s3://$B/meta"; }
delete_many() { s3 del --recursive --force "s3://$B"; [ -z "$(s3 ls --recursive "s3://$B")" ]; s3 rb "s3://$B"; }
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
case_ "delete one" delete_one
case_ "delete many" delete_many
