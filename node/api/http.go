package api

import "net/http"

func (s *Server) serveHTTP(w http.ResponseWriter, r *http.Request) {
	http.NotFound(w, r)
}
