package gateway

// Routes lists the server's methods and paths, as in "GET /livez".
func (s *Server) Routes() (list []string) {
	for _, r := range s.routes {
		list = append(list, r.method+" "+r.path)
	}
	return list
}
