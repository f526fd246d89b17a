package s3face

import (
	"bufio"
	"io"
	"log"
	"log/slog"
	"os"
	"regexp"
)

// colour is what versitygw paints its messages with: ECMA-48's "select graphic
// rendition".
var colour = regexp.MustCompile("\x1b\\[[0-9;]*m")

// redirectStderr gives a logger, line by line, what is written to os.Stderr and
// by package log until undo is called: versitygw reports its internal errors
// and panics there, with colours, and net/http the answers that nobody asked
// for. Neither takes another writer, hence the change of the variable. Loggers
// that were made before keep the real file, and so does the Go runtime.
func redirectStderr(logger *slog.Logger) (undo func(), err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	before, logged, flags, prefix := os.Stderr, log.Writer(), log.Flags(), log.Prefix()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer r.Close()
		lines := bufio.NewReaderSize(r, 4<<10) // a longer line comes in pieces
		for {
			line, _, err := lines.ReadLine()
			if text := colour.ReplaceAllString(string(line), ""); text != "" {
				logger.Warn("S3 gateway says", "text", text)
			}
			if err != nil {
				return
			}
		}
	}()
	os.Stderr = w
	if logged == io.Writer(before) { // else somebody has taken care of it
		log.SetOutput(w)
		log.SetFlags(0)
		log.SetPrefix("")
	}
	return func() {
		os.Stderr = before
		if logged == io.Writer(before) {
			log.SetOutput(logged)
			log.SetFlags(flags)
			log.SetPrefix(prefix)
		}
		w.Close()
		<-ended
	}, nil
}
