package cli

import (
	"cmp"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/quickims/quickims/internal/zstd"
)

// VersionCmd prints the version.
type VersionCmd struct{}

// Help shows the command's use.
func (VersionCmd) Help() string {
	return "Example:\n\n    quickims version --json\n"
}

type versionDoc struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
	Zstd     string `json:"zstd"` // what compresses
}

// version is what the build says of itself: the version it was given, else what the
// go tool noted.
func (s *session) version() versionDoc {
	v := versionDoc{Version: "unknown", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, Zstd: zstd.Implementation()}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	v.Version = cmp.Or(s.Version, info.Main.Version, v.Version)
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" {
			v.Revision = setting.Value
		}
	}
	return v
}

// Run prints it.
func (VersionCmd) Run(s *session) error {
	v := s.version()
	return s.result(v, func(w io.Writer) {
		fmt.Fprintf(w, "quickims %s (%s, %s, zstd: %s)\n", v.Version, v.Go, v.Platform, v.Zstd)
	})
}
