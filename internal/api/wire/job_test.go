package wire

import (
	"encoding/json"
	"reflect"
	"testing"
)

// TestJobIsReadAsItIsWritten, whatever it has and has not.
func TestJobIsReadAsItIsWritten(t *testing.T) {
	t.Parallel()
	text := func(s string) *string { return &s }
	for _, job := range []Job{
		{ID: "j", Type: "t", Status: "INIT", BeginTime: text("2026-03-01T12:00:00.000Z")},
		{ID: "j", Status: "FAIL", EndTime: text("e"), ErrorCode: text("IMG.0057"), FailReason: text("r <&>"),
			Entities: JobEntities{ImageID: "i", ImageName: "n", Task: "adopt", Percent: 42, Warnings: []JobWarning{{"w", "text"}}}},
	} {
		data, err := json.Marshal(job)
		if err != nil {
			t.Fatal(err)
		}
		var got Job
		if err := json.Unmarshal(data, &got); err != nil || !reflect.DeepEqual(got, job) {
			t.Errorf("%s: %+v, %v", data, got, err)
		}
	}
}
