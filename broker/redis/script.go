package redis

import (
	"crypto/sha1"
	_ "embed"
	"encoding/hex"
)

// script is a Lua script as Redis knows it: by its SHA-1.
type script struct {
	name, text, sha string
}

//go:embed lua/log.lua
var logLua string

func newScript(name, text string) *script {
	text = logLua + "\n" + text
	sum := sha1.Sum([]byte(text))
	return &script{name: name, text: text, sha: hex.EncodeToString(sum[:])}
}

var (
	//go:embed lua/append.lua
	appendLua string
	//go:embed lua/open.lua
	openLua string
	//go:embed lua/state.lua
	stateLua string
	//go:embed lua/read.lua
	readLua string
	//go:embed lua/at.lua
	atLua string
	//go:embed lua/drop.lua
	dropLua string
	//go:embed lua/trim.lua
	trimLua string
)

var (
	appendScript = newScript("append", appendLua)
	openScript   = newScript("open", openLua)
	stateScript  = newScript("state", stateLua)
	readScript   = newScript("read", readLua)
	atScript     = newScript("at", atLua)
	dropScript   = newScript("drop", dropLua)
	trimScript   = newScript("trim", trimLua)

	scripts = []*script{appendScript, openScript, stateScript, readScript, atScript, dropScript, trimScript}
)
