package broker

import "encoding/json"

// What a broker is given it doesn't look into, but for these two: data of before
// it was told them beside is migrated once, and then they are read out of it.

// CursorIn is the cursor of the event in a dead letter's data; "" if it has none.
func CursorIn(data []byte) string {
	var d struct {
		Event struct {
			Cursor string `json:"cursor"`
		} `json:"event"`
	}
	_ = json.Unmarshal(data, &d) // what can't be read keeps its name
	return d.Event.Cursor
}

// CreatorIn is who created a subscription by its record; "" for nobody.
func CreatorIn(record []byte) string {
	var r struct {
		Creator string `json:"creator"`
	}
	_ = json.Unmarshal(record, &r)
	return r.Creator
}
