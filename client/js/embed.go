// Package js holds the JavaScript client as the gateway serves it.
package js

import _ "embed"

// Module is the client as one minified ES module: what `npm run build` makes
// of src. Serve it as text/javascript at /longline.js.
//
//go:embed dist/longline.js
var Module []byte
