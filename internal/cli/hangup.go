package cli

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// onHangup gives a value for each SIGHUP, with which operators ask a service to read
// its files again. Signals that come while one waits count as one.
func onHangup() (hangups <-chan struct{}, stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP)
	out, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(out)
		for {
			select {
			case <-signals:
			case <-done:
				return
			}
			select {
			case out <- struct{}{}:
			case <-done:
				return
			}
		}
	}()
	return out, func() { signal.Stop(signals); close(done) }
}

// untilHangup ends with the terminal, unless the command was told to outlive it, as
// nohup does.
func untilHangup(ctx context.Context) (context.Context, func()) {
	if signal.Ignored(syscall.SIGHUP) {
		return ctx, func() {}
	}
	return signal.NotifyContext(ctx, syscall.SIGHUP)
}
