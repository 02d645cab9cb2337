//go:build !linux

package embedded

const untold = false

func writeUntold(uintptr, []byte) (int, error) { return 0, nil }
