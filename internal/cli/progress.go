package cli

import (
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"
)

// A meter shows how far a long task is: a bar on a terminal, lines elsewhere. It
// may be fed by many goroutines at once, and must be closed.
type meter struct {
	s     *session
	name  string
	total int64
	unit  func(int64) string // nil: a percentage says it all

	// step is apart from the rest: the bar asks for it while it takes in what set says.
	step atomic.Value // string

	mu      sync.Mutex
	done    int64
	shown   int64     // of done, when the last line was printed
	shownAt time.Time // when that was

	bars *mpb.Progress // nil: lines
	bar  *mpb.Bar
}

// How often lines are printed. A bar redraws itself.
const (
	lineEvery = time.Second      // at most
	lineStep  = 10               // percent: what is worth a line
	lineLast  = 30 * time.Second // or this much time
)

// bytesMeter shows a task of total bytes; 0 is unknown.
func (s *session) bytesMeter(name string, total int64) *meter { return s.meter(name, total, size) }

// percentMeter shows a task of 100 percent, with its step.
func (s *session) percentMeter(name string) *meter { return s.meter(name, 100, nil) }

func (s *session) meter(name string, total int64, unit func(int64) string) *meter {
	m := &meter{s: s, name: name, total: total, unit: unit, shownAt: s.now()}
	m.step.Store("")
	f, isFile := s.Stderr.(*os.File)
	if s.quiet || s.json || !isFile || !term.IsTerminal(int(f.Fd())) {
		return m
	}
	// A bar that ends leaves no trace: what was done, the result says.
	m.bars = mpb.New(mpb.WithConsoleWriter(newConsole(f)), mpb.WithWidth(40))
	if total <= 0 {
		m.bar = m.bars.New(0, mpb.SpinnerStyle(), mpb.BarRemoveOnComplete(), mpb.PrependDecorators(decor.Name(name+" ")),
			mpb.AppendDecorators(decor.CurrentKibiByte("% .1f"), decor.AverageSpeed(decor.SizeB1024(0), "  % .1f")))
		return m
	}
	after := []decor.Decorator{decor.Percentage(decor.WC{W: 5})}
	if unit == nil {
		after = append(after, decor.Any(func(decor.Statistics) string { return "  " + m.step.Load().(string) }))
	} else {
		after = append(after,
			decor.CountersKibiByte("  % .1f of % .1f"),
			decor.AverageSpeed(decor.SizeB1024(0), "  % .1f"),
			decor.AverageETA(decor.ET_STYLE_GO, decor.WC{W: 8}))
	}
	m.bar = m.bars.New(total, mpb.BarStyle().Lbound("[").Filler("=").Tip(">").Padding(" ").Rbound("]"),
		mpb.BarRemoveOnComplete(), mpb.PrependDecorators(decor.Name(name+" ")), mpb.AppendDecorators(after...))
	return m
}

// add says that n more are done. More than the total counts as the total.
func (m *meter) add(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.set(m.done + int64(n))
}

// at says how many are done.
func (m *meter) at(done int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.set(done)
}

// progress is at for those that tell the total too.
func (m *meter) progress(done, _ int64) { m.at(done) }

// progressEvent is a line of JSON that says how far a task is.
type progressEvent struct {
	Event   string `json:"event"`
	Task    string `json:"task"`
	Step    string `json:"step,omitempty"`
	Done    int64  `json:"done"`
	Total   int64  `json:"total"`
	Percent int64  `json:"percent"`
}

// set takes in how many are done and prints a line if that is worth one.
func (m *meter) set(done int64) {
	m.take(done)
	if m.bars != nil || m.s.quiet {
		return
	}
	passed := m.s.now().Sub(m.shownAt)
	big := m.total > 0 && (m.done-m.shown)*100 >= m.total*lineStep
	if passed >= lineLast || passed >= lineEvery && (big || m.s.json) {
		m.line()
	}
}

// take notes how many are done, and moves the bar if there is one.
func (m *meter) take(done int64) {
	m.done = max(0, done)
	if m.total > 0 {
		m.done = min(m.done, m.total)
	} else if m.bars != nil {
		m.bar.SetCurrent(m.done)
		return
	}
	if m.bars != nil {
		// The bar ends in close: at its total it would end by itself, and a part that is
		// sent again would move a bar that has ended.
		m.bar.SetCurrent(min(m.done, m.total-1))
	}
}

// line prints how far it is.
func (m *meter) line() {
	m.shown, m.shownAt = m.done, m.s.now()
	percent := int64(0)
	if m.total > 0 {
		percent = m.done * 100 / m.total
	}
	step := m.step.Load().(string)
	doc := progressEvent{"progress", m.name, step, m.done, m.total, percent}
	switch {
	case m.total <= 0:
		m.s.event(doc, "%s: %s", m.name, m.unit(m.done))
	case m.unit == nil && step != "":
		m.s.event(doc, "%s: %d%% %s", m.name, percent, step)
	case m.unit == nil:
		m.s.event(doc, "%s: %d%%", m.name, percent)
	default:
		m.s.event(doc, "%s: %d%% (%s of %s)", m.name, percent, m.unit(m.done), m.unit(m.total))
	}
}

// atStep says at which step the task is, and how many are done. A new step is worth
// a line.
func (m *meter) atStep(step string, done int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.step.Swap(step) == step {
		m.set(done)
		return
	}
	m.take(done)
	if m.bars == nil && !m.s.quiet {
		m.line()
	}
}

// note prints a sentence, above the bar if there is one.
func (m *meter) note(format string, args ...any) {
	if m.bars == nil {
		m.s.note(format, args...)
		return
	}
	s := *m.s
	s.Stderr = m.bars
	s.note(format, args...)
}

// close ends the bar, which vanishes.
func (m *meter) close(err error) {
	if m.bars == nil {
		return
	}
	if err == nil {
		m.total = max(m.total, m.done)
		m.bar.SetTotal(m.total, false)
		m.bar.SetCurrent(m.total)
		m.bar.SetTotal(-1, true)
	} else {
		m.bar.Abort(true)
	}
	m.bars.Wait()
}
