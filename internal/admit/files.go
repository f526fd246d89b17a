package admit

import "golang.org/x/sys/unix"

// Files is how many files and connections the process may have open at once. The Go
// runtime raises the soft limit to the hard one when the process starts.
func Files() int {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return 1024
	}
	return int(min(r.Cur, 1<<30))
}

// Connections divides a limit of open files between the connections of three listeners
// and everything else: each listener has a tenth for strangers and a tenth for known
// clients, so two fifths are left for files. More than the upper bounds would only cost
// memory.
func Connections(files int) Limits {
	strangers := min(max(files/10, 8), 1024)
	return Limits{
		Strangers: strangers, StrangersPerAddress: min(max(strangers/4, 4), 256),
		Known: min(max(files/10, 8), MaxKnown),
	}
}

// MaxKnown is the upper bound of Limits.Known that Connections gives.
const MaxKnown = 1024
