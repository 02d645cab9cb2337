package redis

import (
	"crypto/sha1"
	"embed"
	"encoding/hex"
)

// script is a Lua script as Redis knows it: by its SHA-1. All that a script
// changes or reads is in one bucket, and named in its KEYS. Scripts that go by
// a link get the term as their first argument.
type script struct {
	name, text, sha string
}

//go:embed lua/*.lua
var lua embed.FS

// newScript makes a script of lua/name.lua. What stands before it are functions
// that scripts share.
func newScript(name string) *script {
	var text []byte
	for _, file := range []string{"log", "position", "prune", name} {
		part, err := lua.ReadFile("lua/" + file + ".lua")
		if err != nil {
			panic(err) // it was embedded when this was built
		}
		text = append(append(text, part...), '\n')
	}
	sum := sha1.Sum(text)
	s := &script{name: name, text: string(text), sha: hex.EncodeToString(sum[:])}
	scripts = append(scripts, s)
	return s
}

var (
	scripts []*script // all of them

	appendScript   = newScript("append")
	openScript     = newScript("open")
	stateScript    = newScript("state")
	readScript     = newScript("read")
	atScript       = newScript("at")
	dropScript     = newScript("drop")
	trimScript     = newScript("trim")
	storeScript    = newScript("store")
	confirmScript  = newScript("confirm")
	waitScript     = newScript("wait")
	markScript     = newScript("mark")
	unmarkScript   = newScript("unmark")
	unwaitScript   = newScript("unwait")
	deleteScript   = newScript("delete")
	loadScript     = newScript("load")
	advanceScript  = newScript("advance")
	takeScript     = newScript("take")
	doneScript     = newScript("done")
	buryScript     = newScript("bury")
	deadScript     = newScript("dead")
	redriveScript  = newScript("redrive")
	redriveAll     = newScript("redriveall")
	removeScript   = newScript("remove")
	recordScript   = newScript("record")
	attemptsScript = newScript("attempts")
	noteScript     = newScript("note")
	leaseScript    = newScript("lease")
	nodesScript    = newScript("nodes")
	leaveScript    = newScript("leave")
	sendScript     = newScript("send")
	standingScript = newScript("standing")
	noteOfScript   = newScript("noteof")
	visitScript    = newScript("visit")
	putScript      = newScript("put")
	collectScript  = newScript("collect")
	repairedScript = newScript("repaired")
	waitsScript    = newScript("waits")
	needsScript    = newScript("needs")
	renameScript   = newScript("rename")
	creatorScript  = newScript("creator")
)
