package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quickims/quickims/internal/ims"
)

// waiting makes a client whose clock goes on with its waits, and notes them.
func waiting(s *service, pauses *[]time.Duration) *Client {
	now := testNow
	return s.client(func(config *Config, opts *Options) {
		config.Token = "t" // the clock that signs stands still in this suite
		opts.Now = func() time.Time { return now }
		opts.Sleep = func(ctx context.Context, d time.Duration) error {
			*pauses = append(*pauses, d)
			now = now.Add(d)
			return ctx.Err()
		}
	})
}

const job = `{"job_id":"j","job_type":"imsImportImageJob","status":%q,"begin_time":"2026-03-01T12:00:00.000Z","end_time":null,"error_code":%s,"fail_reason":%s,
	"entities":{"image_id":"i","image_name":"n","current_task":%q,"process_percent":%s}}`

func TestWaitShowsEachChangeOnceAndSlowsDown(t *testing.T) {
	t.Parallel()
	answers := []string{
		fmt.Sprintf(job, "INIT", "null", "null", "accepted", "null"),
		fmt.Sprintf(job, "RUNNING", "null", "null", "pin", "0"),
		fmt.Sprintf(job, "RUNNING", "null", "null", "pin", "0"),
		fmt.Sprintf(job, "RUNNING", "null", "null", "adopt", `"41.9"`),
	}
	for range 12 {
		answers = append(answers, fmt.Sprintf(job, "RUNNING", "null", "null", "adopt", "60"))
	}
	answers = append(answers, fmt.Sprintf(job, "SUCCESS", "null", "null", "clean", "100"))
	n := 0
	s := newService(t, func(w http.ResponseWriter, r *http.Request, _ string) {
		if r.URL.Path != "/v1/"+testProject+"/jobs/j" {
			t.Errorf("asked for %s", r.URL.Path)
		}
		io.WriteString(w, answers[n])
		n++
	})
	var pauses []time.Duration
	var seen []string
	last, err := waiting(s, &pauses).Wait(t.Context(), "j", func(j Job) {
		seen = append(seen, fmt.Sprintf("%s %s %d", j.Status, j.Task, j.Percent))
	}, nil)
	if err != nil || last.Status != ims.JobSuccess || last.ImageID != "i" || last.Err() != nil {
		t.Fatalf("%+v, %v", last, err)
	}
	want := []string{"INIT accepted 0", "RUNNING pin 0", "RUNNING adopt 41", "RUNNING adopt 60", "SUCCESS clean 100"}
	if !slices.Equal(seen, want) {
		t.Errorf("saw  %q\nwant %q", seen, want)
	}
	if pauses[0] != 100*time.Millisecond || slices.Max(pauses) != 2*time.Second || !slices.IsSorted(pauses) {
		t.Errorf("waited %v", pauses)
	}
}

func TestWaitGivesAFailedJobWithItsReason(t *testing.T) {
	t.Parallel()
	s := newService(t, func(w http.ResponseWriter, _ *http.Request, _ string) {
		fmt.Fprintf(w, job, "FAIL", `"IMG.0055"`, `"the disk has 12 GiB"`, "inspect", "0")
	})
	var pauses []time.Duration
	last, err := waiting(s, &pauses).Wait(t.Context(), "j", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := last.Err().Error(); got != "job j failed: IMG.0055: the disk has 12 GiB" {
		t.Errorf("got %q", got)
	}
}

func TestWaitOutlastsAServiceThatRestarts(t *testing.T) {
	t.Parallel()
	n := 0
	s := newService(t, func(w http.ResponseWriter, _ *http.Request, _ string) {
		switch n++; {
		case n == 2 || n == 3:
			w.WriteHeader(http.StatusServiceUnavailable)
		case n == 4:
			panic(http.ErrAbortHandler) // the connection breaks
		case n < 6:
			fmt.Fprintf(w, job, "RUNNING", "null", "null", "adopt", "5")
		default:
			fmt.Fprintf(w, job, "SUCCESS", "null", "null", "clean", "100")
		}
	})
	var pauses []time.Duration
	var away []error
	last, err := waiting(s, &pauses).Wait(t.Context(), "j", nil, func(err error) { away = append(away, err) })
	if err != nil || last.Status != ims.JobSuccess {
		t.Fatalf("%+v, %v", last, err)
	}
	if len(away) != 1 {
		t.Errorf("told %d times that the service is away, want once: %v", len(away), away)
	}
}

func TestWaitEndsWithoutHopeOrPatience(t *testing.T) {
	t.Parallel()
	for status, long := range map[int]bool{http.StatusServiceUnavailable: true, http.StatusNotFound: false, http.StatusUnauthorized: false} {
		s := newService(t, func(w http.ResponseWriter, _ *http.Request, _ string) { w.WriteHeader(status) })
		var pauses []time.Duration
		_, err := waiting(s, &pauses).Wait(t.Context(), "j", nil, nil)
		if e, ok := errors.AsType[*Error](err); !ok || e.Status != status {
			t.Errorf("%d: got %v", status, err)
		}
		var waited time.Duration
		for _, d := range pauses {
			waited += d
		}
		if long && (waited < patience || waited > patience+10*time.Second) || !long && waited != 0 {
			t.Errorf("%d: waited %v", status, waited)
		}
	}
}

func TestWaitIsInterrupted(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	s := newService(t, func(w http.ResponseWriter, _ *http.Request, _ string) {
		fmt.Fprintf(w, job, "RUNNING", "null", "null", "adopt", "5")
	})
	last, err := s.client(nil).Wait(ctx, "j", func(Job) { cancel() }, nil)
	if !errors.Is(err, context.Canceled) || last.Task != "adopt" {
		t.Errorf("got %+v, %v", last, err)
	}
}

func TestAPercentageThatIsNoneIsAnError(t *testing.T) {
	t.Parallel()
	s := newService(t, func(w http.ResponseWriter, _ *http.Request, _ string) {
		fmt.Fprintf(w, job, "RUNNING", "null", "null", "adopt", `"NaN"`)
	})
	if _, err := s.client(nil).Job(t.Context(), "j"); err == nil || !strings.Contains(err.Error(), "process_percent") {
		t.Errorf("got %v", err)
	}
}
