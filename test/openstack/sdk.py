"""Calls each method of openstacksdk's image proxy. Prints a line of JSON for each: what was
done, and what is wrong with what it returned, empty if nothing is.

Arguments: the file that is uploaded, and one to download to. Two clouds of clouds.yaml are
used: owner, and member, whose project the image is shared with.
"""
import hashlib
import json
import os
import sys
import traceback

import openstack
from openstack import exceptions, resource

disk, out = sys.argv[1:3]
content = open(disk, "rb").read()
md5 = hashlib.md5(content).hexdigest()
owner = openstack.connect(cloud="owner").image
member_connection = openstack.connect(cloud="member")
member, member_project = member_connection.image, member_connection.current_project_id

steps = []


def step(did):
    """Makes a function one of the steps, in the order of the file."""
    def add(f):
        steps.append((did, f))
        return f
    return add


def refused(status, f, *args, **kwargs):
    try:
        f(*args, **kwargs)
    except exceptions.HttpException as e:
        assert e.status_code == status, "status %s: %s" % (e.status_code, e)
        return
    raise AssertionError("it is not refused")


class World:
    """What the steps leave for those after them."""


w = World()


@step("create_image, of a file")
def _():
    w.one = owner.create_image("one", filename=disk, disk_format="raw", container_format="bare", tags=["t"], visibility="private",
                               meta={"a": "b"}, wait=True, validate_checksum=True)
    assert (w.one.status, w.one.checksum, w.one.size) == ("active", md5, len(content)), w.one
    assert w.one.owner_id and w.one.disk_format == "raw" and w.one.properties["a"] == "b" and w.one.tags == ["t"], w.one


@step("create_image, with use_import")
def _():
    i = owner.create_image("imported", filename=disk, disk_format="raw", container_format="bare", use_import=True, wait=True)
    i = resource.wait_for_status(owner, owner.get_image(i), "active", ["killed"], 1, 60)
    assert (i.status, i.checksum) == ("active", md5), i
    owner.delete_image(i)


@step("create_image, of data in memory")
def _():
    i = owner.create_image("memory", data=content, disk_format="raw", container_format="bare", wait=True, validate_checksum=False)
    i = owner.get_image(i)  # what is returned is as old as the request for it
    assert (i.status, i.checksum) == ("active", md5), i
    owner.delete_image(i)


@step("upload_image")
def _():
    i = owner.upload_image(name="uploaded", data=content, disk_format="raw", container_format="bare")
    i = owner.get_image(i)
    assert (i.status, i.checksum) == ("active", md5), i
    owner.delete_image(i)


@step("stage_image and import_image")
def _():
    i = owner.create_image("staged", disk_format="raw", container_format="bare", allow_duplicates=True)
    owner.stage_image(i, data=content)
    assert owner.get_image(i).status == "uploading", i
    owner.import_image(i, method="glance-direct")
    i = resource.wait_for_status(owner, owner.get_image(i), "active", ["killed"], 1, 60)
    assert i.checksum == md5, i
    owner.delete_image(i)


@step("import_image with web-download")
def _():
    i = owner.create_image("fetched", disk_format="raw", container_format="bare", allow_duplicates=True)
    owner.import_image(i, method="web-download", uri="http://127.0.0.1:9/disk")  # it does not look at the answer
    assert owner.get_image(i).status == "queued"
    owner.delete_image(i)


@step("get_image")
def _():
    i = owner.get_image(w.one.id)
    assert i.name == "one" and i.hash_algo == "sha512" and i.hash_value == hashlib.sha512(content).hexdigest(), i
    refused(404, owner.get_image, "11111111-2222-4333-8444-555555555555")


@step("find_image, by name and by id")
def _():
    assert owner.find_image("one").id == w.one.id
    assert owner.find_image(w.one.id).name == "one"
    assert owner.find_image("nothing") is None


@step("images, with filters, orders and pages")
def _():
    two = owner.create_image("two", disk_format="raw", container_format="bare", allow_duplicates=True)
    names = lambda **query: [i.name for i in owner.images(**query)]
    assert names(sort="name:asc") == ["one", "two"], names(sort="name:asc")
    assert names(sort="name:desc", limit=1) == ["two", "one"], names(sort="name:desc", limit=1)
    assert names(name="one") == ["one"] and names(status="queued") == ["two"] and names(tag="t") == ["one"]
    assert names(size_min=1) == ["one"] and names(visibility="private") == ["one"], names(visibility="private")
    owner.delete_image(two)


@step("download_image, whole")
def _():
    assert owner.download_image(w.one).content == content


@step("download_image, streamed to a file")
def _():
    owner.download_image(w.one, stream=True, output=out)
    assert open(out, "rb").read() == content
    os.remove(out)


@step("update_image")
def _():
    i = owner.update_image(w.one.id, name="renamed", min_disk=2)
    assert (i.name, i.min_disk) == ("renamed", 2), i
    owner.update_image(w.one.id, name="one")


@step("update_image_properties")
def _():
    assert owner.update_image_properties(w.one.id, meta={"a": "c", "d": "e"})
    i = owner.get_image(w.one.id)
    assert (i.properties["a"], i.properties["d"]) == ("c", "e"), i


@step("add_tag and remove_tag")
def _():
    owner.add_tag(w.one, "u")
    assert sorted(owner.get_image(w.one.id).tags) == ["t", "u"]
    owner.remove_tag(w.one, "u")
    assert owner.get_image(w.one.id).tags == ["t"]


@step("deactivate_image and reactivate_image")
def _():
    owner.deactivate_image(w.one)
    assert owner.get_image(w.one.id).status == "deactivated"
    owner.reactivate_image(w.one)
    assert owner.get_image(w.one.id).status == "active"


@step("add_member")
def _():
    owner.update_image(w.one.id, visibility="shared")
    m = owner.add_member(w.one, member_id=member_project)
    assert (m.member_id, m.status) == (member_project, "pending"), m


@step("members, get_member and find_member")
def _():
    assert [m.member_id for m in owner.members(w.one)] == [member_project]
    assert owner.get_member(member_project, w.one).status == "pending"
    assert owner.find_member(member_project, w.one).status == "pending"
    assert owner.find_member("11111111222243338444555555555555", w.one) is None


@step("update_member, as the member")
def _():
    assert [i.id for i in member.images(visibility="shared")] == []
    m = member.update_member(member_project, w.one.id, status="accepted")
    assert m.status == "accepted", m
    assert [i.id for i in member.images(visibility="shared")] == [w.one.id]
    assert member.download_image(w.one.id).content == content


@step("remove_member")
def _():
    owner.remove_member(member_project, w.one)
    refused(404, member.get_image, w.one.id)


for name in ["image", "images", "member", "members", "task", "tasks"]:
    @step("get_%s_schema" % name)
    def _(name=name):
        schema = getattr(owner, "get_%s_schema" % name)()
        assert schema.name == name and schema.properties, schema


@step("tasks, get_task and wait_for_task")
def _():
    tasks = list(owner.tasks())
    assert tasks and all(t.status in ("pending", "processing", "success", "failure") for t in tasks), tasks
    assert owner.get_task(tasks[0].id).id == tasks[0].id
    done = [t for t in tasks if t.status == "success"]
    assert owner.wait_for_task(owner.get_task(done[0].id), wait=30).status == "success"


@step("get, of /info/import")
def _():
    # get_import_info of this version fails before it sends anything.
    assert owner.get("/info/import").json()["import-methods"]["value"] == ["glance-direct"]


@step("stores")
def _():
    refused(404, lambda: list(owner.stores()))


@step("delete_image, protected and not")
def _():
    owner.update_image(w.one.id, is_protected=True)
    refused(403, owner.delete_image, w.one.id)
    owner.update_image(w.one.id, is_protected=False)
    owner.delete_image(w.one.id, ignore_missing=False)
    refused(404, owner.delete_image, w.one.id, ignore_missing=False)


for did, f in steps:
    wrong = ""
    try:
        f()
    except Exception:
        wrong = traceback.format_exc()
    print(json.dumps({"did": did, "wrong": wrong}), flush=True)
