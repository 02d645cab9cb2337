package server

import "syscall"

// bound makes a process end with this one, however that ends, and keeps a
// terminal's Ctrl-C from it: ending it is this process's to do.
func bound() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
