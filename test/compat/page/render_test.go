package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/quickims/quickims/test/compat"
)

func record(name, version, did, over, result, report string) compat.Record {
	return compat.Record{
		Client: compat.Client{Area: "S3", Name: name, Version: version},
		Case:   compat.Case{Did: did, Over: over, Report: report}, Result: result,
	}
}

var records = []compat.Record{
	record("rclone", "1.60", "odd | keys", "https", "works", "https://github.com/rclone/rclone/issues/1"),
	record("rclone", "1.60", "odd | keys", "http", "works", "https://github.com/rclone/rclone/issues/1"),
	record("s3cmd", "2.3", "list", "http", "works", "https://example.org/1 https://github.com/a/b/pull/2"),
	record("s3cmd", "2.3", "website", "http", "refused: 501", ""),
	record("s3cmd", "2.3", "list", "https", "fails", ""),
}

func TestRender(t *testing.T) {
	page, err := render(records)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"\n## S3\n\n| client | version | cases | result |\n|---|---|---|---|\n| rclone | 1.60 | 1 | all work |\n| s3cmd | 2.3 | 3 | 1 fails, 1 refused, 1 works |\n",
		"| odd \\| keys | http, https | works | [rclone/rclone#1](https://github.com/rclone/rclone/issues/1) |\n",
		"| list | https | fails |  |\n| list | http | works | [example.org/1](https://example.org/1), [a/b#2](https://github.com/a/b/pull/2) |\n| website | http | refused: 501 |  |\n",
	} {
		if !strings.Contains(string(page), want) {
			t.Errorf("the page lacks\n%s\nit is\n%s", want, page)
		}
	}
	other := slices.Clone(records)
	slices.Reverse(other)
	if again, err := render(other); err != nil || string(again) != string(page) {
		t.Errorf("the order of the records changes the page: %v\n%s", err, again)
	}
	if _, err := render(append(other, record("s3cmd", "2.4", "head", "http", "works", ""))); err == nil {
		t.Error("two versions of one client were accepted")
	}
}

func TestDifferences(t *testing.T) {
	committed, err := render(records)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*compat.Record){
		"the version":  func(r *compat.Record) { r.Version = "9.9" },
		"the result":   func(r *compat.Record) { r.Result = "fails" },
		"the case":     func(r *compat.Record) { r.Did = "head" },
		"the report":   func(r *compat.Record) { r.Report = "https://example.org/2" },
		"the protocol": func(r *compat.Record) { r.Over = "ftp" },
	} {
		changed := slices.Clone(records)
		for i := range changed {
			change(&changed[i])
		}
		made, err := render(changed)
		if err != nil {
			t.Fatal(err)
		}
		diff := differences(string(committed), string(made))
		if (diff == "") != (name == "the version") {
			t.Errorf("%s changed: differences are %q", name, diff)
		}
	}
}
