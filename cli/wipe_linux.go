package cli

import (
	"strings"
	"unsafe"
)

// wiped overwrites an argument from the byte at from on, in place: the runtime
// makes the strings of os.Args of the very memory that the kernel shows as
// /proc/PID/cmdline. Nothing else may hold arg; Args has copied it.
func wiped(arg string, from int) string {
	if from < len(arg) {
		copy(unsafe.Slice(unsafe.StringData(arg), len(arg))[from:], strings.Repeat("*", len(arg)-from))
	}
	return arg
}
