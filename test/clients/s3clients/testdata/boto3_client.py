"""boto3: its client, its managed transfers and its presigned URLs and forms."""
import base64, hashlib, io, os, pathlib, sys, traceback, urllib.error, urllib.request, ssl, zlib

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

E = os.environ
FILES, B, CA = pathlib.Path(E["FILES"]), E["BUCKET"], E["CA"] or None
style = "path"
if E["PROXY"]:  # the endpoint is a domain that the proxy alone knows: buckets are hosts below it
    os.environ["http_proxy"] = os.environ["https_proxy"] = E["PROXY"]
    style = "virtual"
s3 = boto3.client("s3", endpoint_url=E["ENDPOINT"], verify=CA, aws_access_key_id=E["ACCESS_KEY"], aws_secret_access_key=E["SECRET_KEY"],
                  region_name=E["REGION"], config=Config(signature_version="s3v4", retries={"max_attempts": 0}, s3={"addressing_style": style}))
in_parts = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20)
data = {name: (FILES / name).read_bytes() for name in ("0B", "3B", "200KB", "20MB")}


def get(key, **more):
    return s3.get_object(Bucket=B, Key=key, **more)["Body"].read()


def put(key, body=b"x", **more):
    return s3.put_object(Bucket=B, Key=key, Body=body, **more)


def refused(code, call, **more):
    try:
        call(Bucket=B, **more)
    except ClientError as e:
        assert e.response["Error"]["Code"] in code, e.response["Error"]
        return e.response
    raise AssertionError("not refused: " + repr(more))


def http(url, method="GET", body=None, headers={}):
    request = urllib.request.Request(url, body, headers, method=method)
    return urllib.request.urlopen(request, context=ssl.create_default_context(cafile=CA) if CA else None).read()


def make_a_bucket():
    s3.create_bucket(Bucket=B, CreateBucketConfiguration={"LocationConstraint": E["REGION"]})
    s3.head_bucket(Bucket=B)
    assert s3.get_bucket_location(Bucket=B)["LocationConstraint"] == E["REGION"]
    assert B in [b["Name"] for b in s3.list_buckets()["Buckets"]]


def upload(name):
    def run():
        s3.upload_file(str(FILES / name), B, "up/" + name, Config=in_parts)
        assert get("up/" + name) == data[name]
    return run


class Stream(io.RawIOBase):
    """A body without a length: it cannot be sought."""
    def __init__(self, content):
        self.content = io.BytesIO(content)
    def readable(self):
        return True
    def readinto(self, b):
        return self.content.readinto(b)


def stream():
    for name in ("3B", "20MB"):
        s3.upload_fileobj(Stream(data[name]), B, "streamed", Config=in_parts)
        assert get("streamed") == data[name]


def checksums():
    for algorithm in ("CRC32", "SHA1", "SHA256"):
        for name in ("0B", "3B", "200KB"):
            sent = put("sum", data[name], ChecksumAlgorithm=algorithm)["Checksum" + algorithm]
            got = s3.get_object(Bucket=B, Key="sum", ChecksumMode="ENABLED")
            assert got["Checksum" + algorithm] == sent and got["Body"].read() == data[name]
            assert not got.get("ContentEncoding"), got.get("ContentEncoding")
    wrong = base64.b64encode(b"\0\0\0\1").decode()
    refused(("BadDigest", "XAmzContentChecksumMismatch"), s3.put_object, Key="sum", Body=b"changed", ChecksumCRC32=wrong)
    refused(("BadDigest",), s3.put_object, Key="sum", Body=b"changed", ContentMD5=base64.b64encode(hashlib.md5(b"other").digest()).decode())
    assert get("sum") == data["200KB"]


def checksums_of_parts():
    s3.upload_file(str(FILES / "20MB"), B, "sum20", Config=in_parts, ExtraArgs={"ChecksumAlgorithm": "SHA256"})
    parts = s3.get_object_attributes(Bucket=B, Key="sum20", ObjectAttributes=["ETag", "Checksum", "ObjectParts", "ObjectSize", "StorageClass"])
    assert parts["ObjectSize"] == 20000000 and parts["ObjectParts"]["TotalPartsCount"] == 4, parts
    assert len(parts["ObjectParts"]["Parts"]) == 4, parts
    first = base64.b64encode(hashlib.sha256(data["20MB"][:5 << 20]).digest()).decode()
    assert parts["ObjectParts"]["Parts"][0]["ChecksumSHA256"] == first


def one_part():
    head = s3.head_object(Bucket=B, Key="up/20MB", PartNumber=2)
    assert head["ContentLength"] == 5 << 20 and head["PartsCount"] == 4, head
    assert get("up/20MB", PartNumber=4) == data["20MB"][15 << 20:]


def list_pages():
    keys = ["list/%s" % k for k in ("a", "b/1", "b/2", "c", "d/1")]
    for key in keys:
        put(key)
    for operation, more in (("list_objects", {}), ("list_objects_v2", {"FetchOwner": True})):
        for size in (1, 2, 1000):
            pages = list(s3.get_paginator(operation).paginate(Bucket=B, Prefix="list/", PaginationConfig={"PageSize": size}, **more))
            assert [c["Key"] for p in pages for c in p.get("Contents", [])] == keys, pages
            pages = list(s3.get_paginator(operation).paginate(Bucket=B, Prefix="list/", Delimiter="/", PaginationConfig={"PageSize": size}))
            assert [c["Key"] for p in pages for c in p.get("Contents", [])] == ["list/a", "list/c"], pages
            assert [c["Prefix"] for p in pages for c in p.get("CommonPrefixes", [])] == ["list/b/", "list/d/"], pages
    assert s3.list_objects_v2(Bucket=B, MaxKeys=0).get("Contents", []) == []
    assert [c["Key"] for c in s3.list_objects_v2(Bucket=B, Prefix="list/", StartAfter="list/b/2")["Contents"]] == keys[3:]
    assert [c["Key"] for c in s3.list_objects(Bucket=B, Prefix="list/", Marker="list/b/2")["Contents"]] == keys[3:]


def list_versions():
    got = s3.list_object_versions(Bucket=B, Prefix="list/")
    assert [(v["Key"], v["VersionId"], v["IsLatest"]) for v in got["Versions"]][0] == ("list/a", "null", True), got


def head():
    got = s3.head_object(Bucket=B, Key="up/200KB")
    assert got["ContentLength"] == 200000 and got["ETag"] == '"%s"' % hashlib.md5(data["200KB"]).hexdigest(), got
    refused(("404",), s3.head_object, Key="none")
    refused(("NoSuchKey",), s3.get_object, Key="none")
    refused(("304",), s3.head_object, Key="up/200KB", IfNoneMatch=got["ETag"])
    refused(("PreconditionFailed",), s3.get_object, Key="up/200KB", IfMatch='"other"')


def get_a_range():
    assert get("up/200KB", Range="bytes=5-9") == data["200KB"][5:10]
    assert get("up/200KB", Range="bytes=-7") == data["200KB"][-7:]
    assert get("up/200KB", Range="bytes=199990-") == data["200KB"][199990:]
    refused(("InvalidRange",), s3.get_object, Key="up/200KB", Range="bytes=200000-")


def copy():
    put("meta", ContentType="text/x-test", Metadata={"Name": "value"})
    s3.copy_object(Bucket=B, Key="copied +%", CopySource={"Bucket": B, "Key": "meta"})
    assert s3.head_object(Bucket=B, Key="copied +%")["Metadata"] == {"name": "value"}
    s3.copy_object(Bucket=B, Key="meta", CopySource={"Bucket": B, "Key": "meta"}, MetadataDirective="REPLACE", Metadata={"new": "1"}, ContentType="text/y")
    got = s3.head_object(Bucket=B, Key="meta")
    assert got["Metadata"] == {"new": "1"} and got["ContentType"] == "text/y", got
    s3.copy({"Bucket": B, "Key": "up/20MB"}, B, "copied 20MB", Config=in_parts)
    assert get("copied 20MB") == data["20MB"]


def presigned_get():
    url = s3.generate_presigned_url("get_object", {"Bucket": B, "Key": "up/200KB", "ResponseContentType": "text/x"})
    assert http(url) == data["200KB"]


def presigned_put():
    http(s3.generate_presigned_url("put_object", {"Bucket": B, "Key": "presigned +%"}), "PUT", data["200KB"])
    assert get("presigned +%") == data["200KB"]


def presigned_form():
    form = s3.generate_presigned_post(B, "form/${filename}", Fields={"success_action_status": "201"}, Conditions=[{"success_action_status": "201"}])
    body = b"".join(b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (k.encode(), v.encode()) for k, v in form["fields"].items())
    body += b'--x\r\nContent-Disposition: form-data; name="file"; filename="name.bin"\r\n\r\n' + data["200KB"] + b"\r\n--x--\r\n"
    http(form["url"], "POST", body, {"Content-Type": "multipart/form-data; boundary=x"})
    assert get("form/name.bin") == data["200KB"]


def resume():
    upload = s3.create_multipart_upload(Bucket=B, Key="resumed")["UploadId"]
    s3.upload_part(Bucket=B, Key="resumed", UploadId=upload, PartNumber=1, Body=data["20MB"][:10 << 20])
    assert [(u["Key"], u["UploadId"]) for u in s3.list_multipart_uploads(Bucket=B)["Uploads"]] == [("resumed", upload)]
    there = s3.list_parts(Bucket=B, Key="resumed", UploadId=upload)["Parts"]
    assert [(p["PartNumber"], p["Size"]) for p in there] == [(1, 10 << 20)]
    second = s3.upload_part(Bucket=B, Key="resumed", UploadId=upload, PartNumber=2, Body=data["20MB"][10 << 20:])
    parts = [{"PartNumber": 1, "ETag": there[0]["ETag"]}, {"PartNumber": 2, "ETag": second["ETag"]}]
    s3.complete_multipart_upload(Bucket=B, Key="resumed", UploadId=upload, MultipartUpload={"Parts": parts})
    assert get("resumed") == data["20MB"]


def odd_keys():
    for path in (FILES / "odd").rglob("*"):
        if path.is_file():
            key = "odd/" + str(path.relative_to(FILES / "odd"))
            put(key, path.read_bytes())
            assert get(key) == path.read_bytes()
            assert [c["Key"] for c in s3.list_objects_v2(Bucket=B, Prefix=key)["Contents"]] == [key]
            assert [c["Key"] for c in s3.list_objects(Bucket=B, Prefix=key)["Contents"]] == [key]
            assert s3.list_objects_v2(Bucket=B, Prefix="odd/", StartAfter=key[:-1])["Contents"][0]["Key"] == key


def delete_one():
    s3.delete_object(Bucket=B, Key="meta")
    s3.delete_object(Bucket=B, Key="meta")
    refused(("404",), s3.head_object, Key="meta")


def delete_many():
    keys = [c["Key"] for p in s3.get_paginator("list_objects_v2").paginate(Bucket=B) for c in p["Contents"]]
    got = s3.delete_objects(Bucket=B, Delete={"Objects": [{"Key": k} for k in keys]})
    assert sorted(d["Key"] for d in got["Deleted"]) == sorted(keys), got
    s3.delete_bucket(Bucket=B)
    refused(("404",), s3.head_bucket)


for name, case in (
    ("make a bucket", make_a_bucket),
    ("upload 0 B", upload("0B")), ("upload 3 B", upload("3B")), ("upload 200 KB", upload("200KB")), ("upload 20 MB in parts", upload("20MB")),
    ("upload a stream of unknown length", stream),
    ("upload with checksums", checksums), ("checksums of parts", checksums_of_parts), ("get one part", one_part),
    ("list in pages, with prefix and delimiter", list_pages), ("list versions", list_versions), ("head", head), ("get a range", get_a_range), ("copy", copy),
    ("presigned get", presigned_get), ("presigned put", presigned_put), ("presigned form", presigned_form),
    ("resume an upload", resume), ("odd keys", odd_keys), ("delete one", delete_one), ("delete many", delete_many),
):
    try:
        case()
        print("ok", name)
    except Exception:
        print("fail %s: %s" % (name, traceback.format_exc().strip().replace("\n", "~")[-900:]))
    sys.stdout.flush()
