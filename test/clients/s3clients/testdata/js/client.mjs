// The AWS SDK for JavaScript, version 3, as Node.js services use it: bodies are
// streams, each upload carries a CRC32, behind the body where its length is not known.
import { createHash } from "node:crypto";
import { createReadStream, readFileSync, readdirSync, statSync } from "node:fs";
import { Readable } from "node:stream";
import assert from "node:assert/strict";
import * as sdk from "@aws-sdk/client-s3";
import { Upload } from "@aws-sdk/lib-storage";
import { createPresignedPost } from "@aws-sdk/s3-presigned-post";
import { getSignedUrl } from "@aws-sdk/s3-request-presigner";

const { ENDPOINT, ACCESS_KEY, SECRET_KEY, REGION, BUCKET: Bucket, FILES } = process.env;
const s3 = new sdk.S3({
  endpoint: ENDPOINT, region: REGION, forcePathStyle: true, maxAttempts: 1,
  credentials: { accessKeyId: ACCESS_KEY, secretAccessKey: SECRET_KEY },
});
const data = (name) => readFileSync(`${FILES}/${name}`);
const get = async (Key, more = {}) => Buffer.from(await (await s3.getObject({ Bucket, Key, ...more })).Body.transformToByteArray());
const same = (got, want) => assert.ok(got.equals(want), `${got.length} bytes came back, want ${want.length}`);
const refused = async (name, promise) => assert.rejects(promise, (e) => e.name === name || e.Code === name || assert.fail(`${e.name}: ${e.message}, want ${name}`));
const keys = async (paginate, params, size) => {
  const out = { keys: [], prefixes: [] };
  for await (const page of paginate({ client: s3, pageSize: size }, { Bucket, ...params })) {
    out.keys.push(...(page.Contents ?? []).map((o) => o.Key));
    out.prefixes.push(...(page.CommonPrefixes ?? []).map((p) => p.Prefix));
  }
  return out;
};

const cases = {
  async "make a bucket"() {
    await s3.createBucket({ Bucket, CreateBucketConfiguration: { LocationConstraint: REGION } });
    await s3.headBucket({ Bucket });
    assert.ok((await s3.listBuckets({})).Buckets.some((b) => b.Name === Bucket));
  },
  ...Object.fromEntries([["0 B", "0B"], ["3 B", "3B"], ["200 KB", "200KB"]].map(([title, name]) => [`upload ${title}`, async () => {
    // A stream of a file has a known length only if it is given.
    await s3.putObject({ Bucket, Key: `up/${name}`, Body: createReadStream(`${FILES}/${name}`), ContentLength: data(name).length });
    same(await get(`up/${name}`), data(name));
    await s3.putObject({ Bucket, Key: `buffer/${name}`, Body: data(name) });
    same(await get(`buffer/${name}`), data(name));
  }])),
  async "upload 20 MB in parts"() {
    await new Upload({ client: s3, params: { Bucket, Key: "up/20MB", Body: createReadStream(`${FILES}/20MB`) }, partSize: 5 << 20 }).done();
    same(await get("up/20MB"), data("20MB"));
  },
  async "upload a stream of unknown length"() {
    for (const name of ["0B", "3B", "20MB"]) {
      const content = data(name);
      const body = Readable.from((function* () { for (let i = 0; i < content.length; i += 100_000) yield content.subarray(i, i + 100_000); })());
      await new Upload({ client: s3, params: { Bucket, Key: "streamed", Body: body }, partSize: 5 << 20 }).done();
      same(await get("streamed"), content);
    }
  },
  async "upload with checksums"() {
    for (const ChecksumAlgorithm of ["CRC32", "CRC32C", "SHA1", "SHA256"]) {
      for (const name of ["0B", "3B", "200KB"]) {
        await s3.putObject({ Bucket, Key: "sum", Body: createReadStream(`${FILES}/${name}`), ContentLength: data(name).length, ChecksumAlgorithm });
        const head = await s3.headObject({ Bucket, Key: "sum", ChecksumMode: "ENABLED" });
        assert.ok(head[`Checksum${ChecksumAlgorithm}`], `no ${ChecksumAlgorithm}`);
        assert.equal(head.ContentEncoding, undefined);
        same(await get("sum", { ChecksumMode: "ENABLED" }), data(name));
      }
    }
    await refused("BadDigest", s3.putObject({ Bucket, Key: "sum", Body: "changed", ChecksumCRC32: "AAAAAQ==" }));
  },
  async "list in pages, with prefix and delimiter"() {
    const all = ["list/a", "list/b/1", "list/b/2", "list/c"];
    for (const Key of all) await s3.putObject({ Bucket, Key, Body: "" });
    for (const size of [1, 2, 1000]) {
      assert.deepEqual((await keys(sdk.paginateListObjectsV2, { Prefix: "list/" }, size)).keys, all);
      const folders = await keys(sdk.paginateListObjectsV2, { Prefix: "list/", Delimiter: "/" }, size);
      assert.deepEqual(folders, { keys: ["list/a", "list/c"], prefixes: ["list/b/"] });
    }
    assert.deepEqual((await s3.listObjects({ Bucket, Prefix: "list/", Marker: "list/b/1" })).Contents.map((o) => o.Key), all.slice(2));
  },
  async "head"() {
    const head = await s3.headObject({ Bucket, Key: "up/200KB" });
    assert.equal(head.ContentLength, 200_000);
    assert.equal(head.ETag, `"${createHash("md5").update(data("200KB")).digest("hex")}"`);
    await refused("NotFound", s3.headObject({ Bucket, Key: "none" }));
    await refused("NoSuchKey", s3.getObject({ Bucket, Key: "none" }));
  },
  async "get a range"() {
    same(await get("up/200KB", { Range: "bytes=1000-1999" }), data("200KB").subarray(1000, 2000));
    await refused("InvalidRange", s3.getObject({ Bucket, Key: "up/200KB", Range: "bytes=200000-" }));
  },
  async "copy"() {
    await s3.putObject({ Bucket, Key: "meta", Body: "x", Metadata: { Name: "value" }, ContentType: "text/x-test" });
    await s3.copyObject({ Bucket, Key: "copied +%", CopySource: `${Bucket}/meta` });
    const head = await s3.headObject({ Bucket, Key: "copied +%" });
    assert.deepEqual([head.Metadata, head.ContentType], [{ name: "value" }, "text/x-test"]);
  },
  async "presigned get"() {
    const answer = await fetch(await getSignedUrl(s3, new sdk.GetObjectCommand({ Bucket, Key: "up/200KB" }), { expiresIn: 60 }));
    assert.equal(answer.status, 200);
    same(Buffer.from(await answer.arrayBuffer()), data("200KB"));
  },
  async "presigned put"() {
    const url = await getSignedUrl(s3, new sdk.PutObjectCommand({ Bucket, Key: "presigned +%" }), { expiresIn: 60 });
    assert.equal((await fetch(url, { method: "PUT", body: data("200KB") })).status, 200);
    same(await get("presigned +%"), data("200KB"));
  },
  async "presigned form"() {
    const { url, fields } = await createPresignedPost(s3, { Bucket, Key: "form/${filename}", Conditions: [["content-length-range", 0, 1_000_000]] });
    const form = new FormData();
    for (const [name, value] of Object.entries(fields)) form.append(name, value);
    form.append("file", new Blob([data("200KB")]), "name.bin");
    const answer = await fetch(url, { method: "POST", body: form });
    assert.equal(answer.status, 204, await answer.text());
    same(await get("form/name.bin"), data("200KB"));
  },
  async "resume an upload"() {
    const Key = "resumed", content = data("20MB");
    const { UploadId } = await s3.createMultipartUpload({ Bucket, Key });
    await s3.uploadPart({ Bucket, Key, UploadId, PartNumber: 1, Body: content.subarray(0, 10 << 20) });
    const there = (await s3.listParts({ Bucket, Key, UploadId })).Parts;
    assert.deepEqual(there.map((p) => [p.PartNumber, p.Size]), [[1, 10 << 20]]);
    const second = await s3.uploadPart({ Bucket, Key, UploadId, PartNumber: 2, Body: content.subarray(10 << 20) });
    await s3.completeMultipartUpload({ Bucket, Key, UploadId, MultipartUpload: { Parts: [{ PartNumber: 1, ETag: there[0].ETag }, { PartNumber: 2, ETag: second.ETag }] } });
    same(await get(Key), content);
  },
  async "odd keys"() {
    const names = readdirSync(`${FILES}/odd`, { recursive: true }).filter((n) => statSync(`${FILES}/odd/${n}`).isFile()).map((n) => `odd/${n}`);
    for (const Key of names) {
      await s3.putObject({ Bucket, Key, Body: Key });
      same(await get(Key), Buffer.from(Key));
    }
    const listed = await keys(sdk.paginateListObjectsV2, { Prefix: "odd/" }, 3);
    assert.deepEqual([...listed.keys].sort(), names.sort());
  },
  async "delete one"() {
    await s3.deleteObject({ Bucket, Key: "meta" });
    await s3.deleteObject({ Bucket, Key: "meta" });
    await refused("NotFound", s3.headObject({ Bucket, Key: "meta" }));
  },
  async "delete many"() {
    const all = (await keys(sdk.paginateListObjectsV2, {}, 1000)).keys;
    const { Deleted, Errors } = await s3.deleteObjects({ Bucket, Delete: { Objects: all.map((Key) => ({ Key })) } });
    assert.deepEqual([Deleted.length, Errors], [all.length, undefined]);
    await s3.deleteBucket({ Bucket });
  },
};

for (const [name, run] of Object.entries(cases)) {
  try {
    await run();
    console.log(`ok ${name}`);
  } catch (e) {
    console.log(`fail ${name}: ${String(e.stack).replaceAll("\n", "~").slice(0, 900)}`);
  }
}
