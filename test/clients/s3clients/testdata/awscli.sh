# The AWS CLI. Each call of it costs about a second of CPU.
. "$(dirname "$0")/lib.sh"
export AWS_ACCESS_KEY_ID=$ACCESS_KEY AWS_SECRET_ACCESS_KEY=$SECRET_KEY AWS_DEFAULT_REGION=$REGION AWS_EC2_METADATA_DISABLED=true
export AWS_PAGER= AWS_MAX_ATTEMPTS=1
[ -z "$CA" ] || export AWS_CA_BUNDLE=$CA
s3() { aws --endpoint-url "$ENDPOINT" s3 "$@"; }
s3api() { aws --endpoint-url "$ENDPOINT" s3api "$@"; }
B=$BUCKET

bucket() {
  s3 mb "s3://$B"
  s3api head-bucket --bucket "$B"
  s3 ls | grep -w "$B"
}
upload() {
  s3 cp --only-show-errors "$FILES/$1" "s3://$B/up/$1"
  s3 cp --only-show-errors "s3://$B/up/$1" back
  same back "$FILES/$1"
}
upload_0() { upload 0B; }
upload_3() { upload 3B; }
upload_200k() { upload 200KB; }
upload_20m() { upload 20MB; }
stream() {
  cat "$FILES/20MB" | s3 cp --only-show-errors - "s3://$B/streamed"
  s3 cp --only-show-errors "s3://$B/streamed" - | cmp - "$FILES/20MB"
}
checksums() {
  for sum in CRC32 CRC32C SHA1 SHA256; do
    for file in 3B 200KB; do
      s3api put-object --bucket "$B" --key "sum/$sum" --body "$FILES/$file" --checksum-algorithm $sum | grep "Checksum$sum"
      s3api get-object --bucket "$B" --key "sum/$sum" --checksum-mode ENABLED back | grep "Checksum$sum"
      same back "$FILES/$file"
    done
  done
}
list() {
  keys() { s3api "$@" --bucket "$B" --output text | xargs; }
  [ "$(keys list-objects-v2 --prefix up/ --page-size 2 --query 'Contents[].Key')" = "up/0B up/200KB up/20MB up/3B" ]
  [ "$(keys list-objects --prefix up/ --page-size 1 --query 'Contents[].Key')" = "up/0B up/200KB up/20MB up/3B" ]
  [ "$(keys list-objects-v2 --delimiter / --query 'CommonPrefixes[].Prefix' --prefix u)" = up/ ]
  [ "$(keys list-objects-v2 --start-after up/20MB --prefix up/ --fetch-owner --query 'Contents[].Key')" = up/3B ]
}
head_() {
  [ "$(s3api head-object --bucket "$B" --key up/200KB --query ContentLength)" = 200000 ]
  s3api head-object --bucket "$B" --key missing 2>err && return 1
  grep -q 404 err
}
range() {
  s3api get-object --bucket "$B" --key up/200KB --range bytes=1000-1999 back
  cmp back <(tail -c +1001 "$FILES/200KB" | head -c 1000)
}
copy() {
  s3 cp --only-show-errors "s3://$B/up/200KB" "s3://$B/copy of"
  s3 cp --only-show-errors "s3://$B/up/20MB" "s3://$B/copy of 20MB"
  s3 cp --only-show-errors "s3://$B/copy of 20MB" back
  same back "$FILES/20MB"
}
metadata() {
  s3api put-object --bucket "$B" --key meta --body "$FILES/3B" --metadata Name=value,other=x --content-type text/x-test --cache-control no-store
  s3api head-object --bucket "$B" --key meta --query '[Metadata.name,Metadata.other,ContentType,CacheControl]' --output text | grep -x $'value\tx\ttext/x-test\tno-store'
}
presigned() {
  curl -sf ${CA:+--cacert "$CA"} "$(s3 presign "s3://$B/up/200KB")" | cmp - "$FILES/200KB"
}
resume() {
  id=$(s3api create-multipart-upload --bucket "$B" --key resumed --query UploadId --output text)
  head -c 10000000 "$FILES/20MB" >one
  tail -c +10000001 "$FILES/20MB" >two
  e1=$(s3api upload-part --bucket "$B" --key resumed --upload-id "$id" --part-number 1 --body one --query ETag --output text)
  [ "$(s3api list-parts --bucket "$B" --key resumed --upload-id "$id" --query 'Parts[].PartNumber' --output text)" = 1 ]
  s3api list-multipart-uploads --bucket "$B" --query 'Uploads[].Key' --output text | grep -x resumed
  e2=$(s3api upload-part --bucket "$B" --key resumed --upload-id "$id" --part-number 2 --body two --query ETag --output text)
  s3api complete-multipart-upload --bucket "$B" --key resumed --upload-id "$id" \
    --multipart-upload "{\"Parts\":[{\"PartNumber\":1,\"ETag\":$e1},{\"PartNumber\":2,\"ETag\":$e2}]}"
  s3 cp --only-show-errors "s3://$B/resumed" back
  same back "$FILES/20MB"
}
odd_keys() {
  s3 sync --only-show-errors "$FILES/odd" "s3://$B/odd"
  s3 sync --only-show-errors "s3://$B/odd" odd
  diff -r "$FILES/odd" odd
}
delete_one() {
  s3 rm "s3://$B/meta"
  ! s3api head-object --bucket "$B" --key meta
}
delete_many() {
  s3 rm --only-show-errors --recursive "s3://$B/odd"
  s3api delete-objects --bucket "$B" --delete 'Objects=[{Key=up/3B},{Key=up/none}]' --query 'Deleted[].Key' --output text | grep -w up/3B
  s3 rb --force "s3://$B"
  ! s3api head-bucket --bucket "$B"
}
case_ "make a bucket" bucket
case_ "upload 0 B" upload_0
case_ "upload 3 B" upload_3
case_ "upload 200 KB" upload_200k
case_ "upload 20 MB in parts" upload_20m
case_ "upload a stream of unknown length" stream
case_ "upload with checksums" checksums
case_ "list in pages, with prefix and delimiter" list
case_ "head" head_
case_ "get a range" range
case_ "copy" copy
case_ "metadata" metadata
case_ "presigned get" presigned
case_ "resume an upload" resume
case_ "odd keys" odd_keys
case_ "delete one" delete_one
case_ "delete many" delete_many
