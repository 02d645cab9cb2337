//go:build race

package publish_test

// The race detector empties pools at random.
const raceEnabled = true
