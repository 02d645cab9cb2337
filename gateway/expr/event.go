package expr

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// Event is an event as expressions see it. It is decoded once, and only if an
// expression asks. It may be used by many goroutines at once.
type Event struct {
	json []byte
	once sync.Once
	all  map[string]any
	err  error
}

// NewEvent returns the event whose JSON is given; it is kept and not changed.
func NewEvent(json []byte) *Event { return &Event{json: json} }

func (e *Event) decode() (map[string]any, error) {
	e.once.Do(func() {
		if e.err = json.Unmarshal(e.json, &e.all); e.err != nil {
			e.err = fmt.Errorf("decode the event: %w", e.err)
		}
	})
	return e.all, e.err
}

// Text returns what stands at a path of an attribute and, within data, members,
// as text: strings as they are, numbers without an exponent.
func (e *Event) Text(path ...string) (string, error) {
	all, err := e.decode()
	if err != nil {
		return "", err
	}
	var v any = all
	for i, name := range path {
		members, ok := v.(map[string]any)
		if !ok {
			return "", fmt.Errorf("the event's %s is no object", strings.Join(path[:i], "."))
		}
		if v, ok = members[name]; !ok {
			return "", fmt.Errorf("the event has no %s", strings.Join(path[:i+1], "."))
		}
	}
	switch v := v.(type) {
	case string:
		return v, nil
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64), nil
	case bool:
		return strconv.FormatBool(v), nil
	}
	return "", fmt.Errorf("the event's %s is neither text nor a number", strings.Join(path, "."))
}

var (
	eventType    = cel.ObjectType("Event")
	responseType = cel.ObjectType("Response")
)

var _ ref.Val = (*Event)(nil)

// ConvertToNative implements ref.Val: an event becomes its JSON's value.
func (e *Event) ConvertToNative(t reflect.Type) (any, error) {
	all, err := e.decode()
	if err != nil {
		return nil, err
	}
	return types.DefaultTypeAdapter.NativeToValue(all).ConvertToNative(t)
}

// ConvertToType implements ref.Val.
func (e *Event) ConvertToType(t ref.Type) ref.Val {
	if t.TypeName() == eventType.TypeName() {
		return e
	}
	return types.NewErr("an event can't become a %s", t.TypeName())
}

// Equal implements ref.Val.
func (e *Event) Equal(other ref.Val) ref.Val { return types.Bool(e == other) }

// Type implements ref.Val.
func (e *Event) Type() ref.Type { return eventType }

// Value implements ref.Val.
func (e *Event) Value() any { return e }

// Response is a callback's answer as an outcome sees it.
type Response struct {
	Status  int
	Headers map[string]string // names in lower case
	Body    []byte            // its JSON is response.body; text that is none is that text

	once sync.Once
	body any
}

func (r *Response) decode() any {
	r.once.Do(func() {
		if json.Unmarshal(r.Body, &r.body) != nil {
			r.body = string(r.Body)
		}
	})
	return r.body
}

// provider tells the checker what an event and an answer have, and reads it.
type provider struct {
	*types.Registry
	fields map[string]*types.FieldType // of an event, by attribute
}

// attributes are those that are text wherever they are.
var attributes = []string{
	"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "partitionkey",
	"channel", "cursor", "traceparent", "tracestate", "data_base64",
}

func newProvider() (*provider, error) {
	r, err := types.NewRegistry()
	if err != nil {
		return nil, err
	}
	p := &provider{Registry: r, fields: make(map[string]*types.FieldType)}
	for _, name := range attributes {
		p.fields[name] = attribute(name, types.StringType)
	}
	p.fields["data"] = attribute("data", types.DynType)
	return p, nil
}

// attribute is an attribute of an event.
func attribute(name string, t *types.Type) *types.FieldType {
	return &types.FieldType{
		Type: t,
		IsSet: func(target any) bool {
			e, ok := target.(*Event)
			if !ok {
				return false
			}
			all, _ := e.decode()
			_, ok = all[name]
			return ok
		},
		GetFrom: func(target any) (any, error) {
			e, ok := target.(*Event)
			if !ok {
				return nil, fmt.Errorf("%T is no event", target)
			}
			all, err := e.decode()
			if err != nil {
				return nil, err
			}
			v, ok := all[name]
			if !ok {
				return nil, fmt.Errorf("the event has no %s", name)
			}
			return v, nil
		},
	}
}

var answerFields = map[string]*types.FieldType{
	"status":  answerField(types.IntType, func(r *Response) any { return int64(r.Status) }),
	"headers": answerField(types.NewMapType(types.StringType, types.StringType), func(r *Response) any { return r.Headers }),
	"body":    answerField(types.DynType, (*Response).decode),
}

func answerField(t *types.Type, get func(*Response) any) *types.FieldType {
	return &types.FieldType{
		Type:  t,
		IsSet: func(any) bool { return true },
		GetFrom: func(target any) (any, error) {
			r, ok := target.(*Response)
			if !ok {
				return nil, fmt.Errorf("%T is no response", target)
			}
			return get(r), nil
		},
	}
}

// FindStructType implements types.Provider.
func (p *provider) FindStructType(name string) (*types.Type, bool) {
	switch name {
	case eventType.TypeName():
		return types.NewTypeTypeWithParam(eventType), true
	case responseType.TypeName():
		return types.NewTypeTypeWithParam(responseType), true
	}
	return p.Registry.FindStructType(name)
}

// FindStructFieldNames implements types.Provider.
func (p *provider) FindStructFieldNames(name string) ([]string, bool) {
	switch name {
	case eventType.TypeName():
		return append([]string{"data"}, attributes...), true
	case responseType.TypeName():
		return []string{"status", "headers", "body"}, true
	}
	return p.Registry.FindStructFieldNames(name)
}

// FindStructFieldType implements types.Provider. Any name that an extension
// may have is a field of an event.
func (p *provider) FindStructFieldType(structure, field string) (*types.FieldType, bool) {
	switch structure {
	case eventType.TypeName():
		if t, ok := p.fields[field]; ok {
			return t, true
		}
		if extensionName(field) {
			return attribute(field, types.DynType), true
		}
		return nil, false
	case responseType.TypeName():
		t, ok := answerFields[field]
		return t, ok
	}
	return p.Registry.FindStructFieldType(structure, field)
}

// NativeToValue implements types.Adapter.
func (p *provider) NativeToValue(v any) ref.Val {
	switch v := v.(type) {
	case *Event:
		return v
	case []*Event:
		all := make([]ref.Val, len(v))
		for i, e := range v {
			all[i] = e
		}
		return types.NewRefValList(p, all)
	}
	return p.Registry.NativeToValue(v)
}

// extensionName tells whether a name may be that of an extension attribute:
// lower-case letters and digits (CloudEvents 1.0, "Naming conventions").
func extensionName(name string) bool {
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}

// sizes says how large what is looked at may be, for the estimate of costs:
// the largest event, and answers with as many records as a call may have. What
// stands within lists, or is made in between, can't all be the largest at once:
// there it is taken to be modest, and the limit at evaluation stops what isn't.
type sizes struct{}

var _ cost.Estimator = sizes{}

const (
	maxAttribute = 4 << 10
	maxRecords   = 256     // of an answer
	maxNested    = 64      // elements of a list within a list
	maxMade      = 4 << 10 // of what a call gives, where CEL can't tell
)

// EstimateSize implements cost.Estimator. Of data anything may be all
// there is: a list has an element for each two bytes at most.
func (sizes) EstimateSize(e cost.AstNode) *cost.SizeEstimate {
	path := e.Path()
	list := false
	switch e.Type().Kind() {
	case types.ListKind, types.MapKind, types.DynKind:
		list = true
	}
	most := uint64(maxData)
	switch {
	case len(path) == 0 && e.ComputedSize() != nil:
		return nil
	case len(path) == 0:
		most = maxMade
	case path[0] == "events" && len(path) == 1:
		most = 1000
	case path[0] == "response" && list && !slices.Contains(path, "@items"):
		most = maxRecords
	case path[0] == "response":
		most = maxNested
	case slices.Contains(path, "@items") && len(path) > 2 && path[2] == "data", slices.Contains(path[1:], "@items") && path[0] == "event":
		most = maxNested
	case path[len(path)-1] != "data" && len(path) <= 3 && !slices.Contains(path, "data"):
		most = maxAttribute
	case list:
		most /= 2
	}
	return &cost.SizeEstimate{Min: 0, Max: most}
}

// EstimateCallCost implements cost.Estimator: CEL's own estimates hold.
func (sizes) EstimateCallCost(string, string, *cost.AstNode, []cost.AstNode) *cost.CallEstimate {
	return nil
}
