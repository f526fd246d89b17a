package nbd

import (
	"sync/atomic"
	"time"

	"github.com/quickims/quickims/internal/nbd/wire"
)

// A client that reads in order and waits for each reply leaves the server without work
// while it takes the reply. The reader of requests then reads what will be asked for
// next, if that is at hand: a long read is half copying.

const (
	// minGuess is the shortest read that is worth it, in bytes.
	minGuess = 64 << 10
	// guessAge is how long a guess waits to be asked for.
	guessAge = time.Second
)

// guess is data that was read before it was asked for. Its grant counts as the
// connection's own, and no request is under way for it.
type guess struct {
	offset, length uint64
	data           *buffer
	grant          grant
}

// guesses are those of a connection, one at a time.
type guesses struct {
	// Of the reader of requests: where the last read ended, how long it was, and
	// whether it went on where the one before had ended.
	end, length uint64
	inOrder     bool

	made atomic.Pointer[guess]
	old  *time.Timer // drops the guess
}

// saw notes a read.
func (g *guesses) saw(r wire.Request) {
	g.inOrder = r.Offset == g.end && r.Length == g.length
	g.end, g.length = r.Offset+r.Length, r.Length
}

// guessNext reads what the client will ask for next, if it reads in order and waits for
// its replies. It waits for nobody itself.
func (t *transmission) guessNext() {
	g := &t.guesses
	n := g.length
	if !g.inOrder || t.warm == nil || n < minGuess || n > maxAtOnce || n > t.export.size-g.end {
		return
	}
	g.inOrder = false // one guess a read
	held, ok := t.budget.idle(charge(int(n)))
	if !ok {
		return
	}
	next := &guess{offset: g.end, length: n, data: getBuffer(int(n)), grant: held}
	if !t.plain(int64(g.end), int64(n)) || t.atOnce(next.data.data(int(n)), int64(g.end)) != nil {
		t.drop(next)
		return
	}
	g.made.Store(next)
	if g.old == nil {
		g.old = time.AfterFunc(guessAge, t.dropGuess)
	} else {
		g.old.Reset(guessAge)
	}
}

// plain tells whether a range is data throughout.
func (t *transmission) plain(off, n int64) bool {
	a := newAnswer()
	defer a.drop()
	a.splitter.split(t.export, off, n, a)
	return len(a.parts) == 1 && a.dataBytes == n
}

// guessed returns the guess that is what a request asks for; another one is dropped.
func (t *transmission) guessed(r wire.Request, errno wire.Errno) *guess {
	g := t.guesses.made.Swap(nil)
	if g == nil {
		return nil
	}
	t.guesses.old.Stop()
	if errno == 0 && r.Command == wire.CmdRead && r.Offset == g.offset && r.Length == g.length {
		return g
	}
	t.drop(g)
	return nil
}

// dropGuess gives up what was not asked for. It may be called at any time.
func (t *transmission) dropGuess() {
	if g := t.guesses.made.Swap(nil); g != nil {
		t.drop(g)
	}
}

func (t *transmission) drop(g *guess) {
	g.data.release()
	t.budget.give(g.grant)
}

// answerGuessed answers a read with what was guessed.
func (t *transmission) answerGuessed(j *job, g *guess) {
	j.grant.own += g.grant.own
	a := newAnswer()
	a.data = g.data
	t.addPlain(a, j)
	t.out.add(a)
}
