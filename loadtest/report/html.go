package report

import (
	"io"

	"github.com/longline-push/longline/loadtest/measure"
)

// HTML writes the page.
func HTML(w io.Writer, r *measure.Report) error { return nil }
