//go:build faultpoint

package faultpoint

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

type plan struct {
	action string
	nth    int
}

var (
	mu    sync.Mutex
	plans = parse(os.Getenv("QUICKIMS_FAULTPOINT"))
	hits  = map[string]int{}
)

func parse(text string) map[string]plan {
	out := map[string]plan{}
	for item := range strings.SplitSeq(text, ",") {
		name, action, ok := strings.Cut(item, "=")
		if !ok {
			continue
		}
		p := plan{action: action, nth: 1}
		if base, nth, ok := strings.Cut(name, "@"); ok {
			n, err := strconv.Atoi(nth)
			if err != nil {
				panic("faultpoint: QUICKIMS_FAULTPOINT: " + item)
			}
			name, p.nth = base, n
		}
		out[name] = p
	}
	return out
}

// holdLook is the time between two looks at the file of a hold.
const holdLook = 5 * time.Millisecond

// held reports whether the file that holds is there.
func held() bool {
	_, err := os.Stat(os.Getenv("QUICKIMS_FAULTPOINT_HOLD"))
	return err == nil
}

// Hit marks that the point name was reached and acts as planned.
func Hit(name string) error {
	mu.Lock()
	hits[name]++
	p, planned := plans[name]
	now := planned && hits[name] == p.nth
	mu.Unlock()
	if !now {
		return nil
	}
	switch p.action {
	case "kill":
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // the signal ends the process; nothing may run past this point
	case "stop":
		// To this very thread: it must not run on while another one takes the signal.
		runtime.LockOSThread()
		syscall.Tgkill(os.Getpid(), syscall.Gettid(), syscall.SIGSTOP)
		runtime.UnlockOSThread()
	case "hold":
		for held() {
			time.Sleep(holdLook)
		}
	case "error":
		return fmt.Errorf("planned fault at %s", name)
	}
	return nil
}
