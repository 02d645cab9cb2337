//go:build !linux

package cli

// wiped is what is shown of an argument instead of what follows from.
func wiped(arg string, from int) string { return arg[:from] + "***" }
