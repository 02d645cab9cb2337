//go:build !linux

package server

import "syscall"

// bound does nothing here: a process that ends by SIGKILL leaves its gateway.
func bound() *syscall.SysProcAttr { return nil }
