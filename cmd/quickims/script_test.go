package main

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// The scripts in testdata/script run the program as users do.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"quickims": main})
}

func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			testdata, err := filepath.Abs("../../internal/diskformat/testdata")
			if err != nil {
				return err
			}
			env.Setenv("FORMATS", testdata)
			// qemu-img, mkfs and what else is an administrator's.
			env.Setenv("PATH", env.Getenv("PATH")+string(os.PathListSeparator)+"/usr/sbin:/sbin")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status":  status,
			"largest": largest,
			"poke":    poke,
			"serve":   serve,
			"cut":     cut,
			"passed":  passed,
		},
	})
}

// status N command … runs a command, which must end with the status N.
func status(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N command …")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	err = ts.Exec(args[1], args[2:]...)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("%q ended with status %d, want %d", args[1:], got, want)
	}
}

// largest N file: the file takes at most N KiB of the disk.
func largest(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: largest KIB file")
	}
	most, err := strconv.ParseInt(args[0], 10, 64)
	ts.Check(err)
	var st syscall.Stat_t
	ts.Check(syscall.Stat(ts.MkAbs(args[1]), &st))
	if got := st.Blocks * 512; got > most<<10 { // the unit of st_blocks, stat(2)
		ts.Fatalf("%s takes %d KiB, want at most %d", args[1], got>>10, most)
	}
}

// poke file offset text writes into a file. A negative offset counts from its end.
func poke(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: poke file offset text")
	}
	off, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_RDWR, 0)
	ts.Check(err)
	defer f.Close()
	if off < 0 {
		info, err := f.Stat()
		ts.Check(err)
		off += info.Size()
	}
	_, err = f.WriteAt([]byte(args[2]), off)
	ts.Check(err)
}

// serve [flag …] starts a server in the folder data, waits until it is ready and
// lets the script's commands use it. It ends with the script.
func serve(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("usage: serve [flag …]")
	}
	cmd := exec.Command("quickims", append([]string{"serve", "--data", ts.MkAbs("data"), "--listen", "127.0.0.1:0"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log, err := os.Create(ts.MkAbs("server.log"))
	ts.Check(err)
	defer log.Close()
	cmd.Stderr = log
	stdout, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	ts.Defer(func() {
		if err := errors.Join(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait()); err != nil {
			ts.Logf("the server ended: %v\n%s", err, ts.ReadFile("server.log"))
		}
	})
	ready, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || !strings.Contains(ready, `"msg":"ready"`) {
		ts.Fatalf("the server is not ready: %q, %v\n%s", ready, err, ts.ReadFile("server.log"))
	}
	ts.Setenv("QUICKIMS_CREDENTIALS", ts.MkAbs("data/credentials.env"))
}
