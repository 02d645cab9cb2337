package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/longline-push/longline/node"
)

// version is set by the linker for releases.
var version = "dev"

// versionCmd prints what this binary was built from.
type versionCmd struct{}

func (versionCmd) Run(env *environment) error {
	_, err := fmt.Fprintln(env.stdout, versionText())
	return err
}

// versionText is what this binary is: its version and commit, what built it, and
// the formats of what it stores.
func versionText() string {
	commit := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				commit = s.Value
			case s.Key == "vcs.modified" && s.Value == "true":
				commit += " and changes"
			}
		}
	}
	return fmt.Sprintf("longline %s, commit %s, %s %s/%s, formats %s", version, commit, runtime.Version(), runtime.GOOS, runtime.GOARCH, node.Formats())
}
