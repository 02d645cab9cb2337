package gateway

// Routes lists the server's methods and paths, as in "GET /livez".
func (s *Server) Routes() (list []string) {
	for _, r := range s.routes {
		list = append(list, r.method+" "+r.path)
	}
	return list
}

// Complaints returns what tells whether to log that the broker failed.
func Complaints() (may func() (more int64, ok bool)) {
	return (&complaints{limit: newComplaintRate()}).may
}
