package main

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"regexp"
	"strings"
)

// A dialog is a conversation of the fixture with its client, as fixture.json describes it: rounds of requests, then a
// text. Knows no way to send them. The twin of servers/dialog.mjs.
type dialog struct {
	Rounds       []map[string]request `json:"rounds"`
	State        bool                 `json:"state"`
	DeclaredOnly bool                 `json:"declared_only"`
	Progress     float64              `json:"progress"`
	Text         string               `json:"text"`
}

type request struct {
	Method string         `json:"method"`
	Params map[string]any `json:"params"`
}

type state struct {
	Round   int            `json:"round"`
	Answers map[string]any `json:"answers"`
}

// allowed tells whether the declared capabilities allow the request. An elicitation without modes means forms.
func (r request) allowed(declared map[string]any) bool {
	kind := map[string]string{"roots/list": "roots", "sampling/createMessage": "sampling", "elicitation/create": "elicitation"}[r.Method]
	given, there := declared[kind].(map[string]any)
	if !there {
		return false
	}
	if kind == "sampling" && r.Params["tools"] != nil {
		return given["tools"] != nil
	}
	if kind == "elicitation" && r.Params["mode"] == "url" {
		return given["url"] != nil
	}
	return kind != "elicitation" || given["form"] != nil || given["url"] == nil
}

// answers tells whether the answer has the shape that the request wants; what does not is asked for again.
func (r request) answers(answer any) bool {
	given, is := answer.(map[string]any)
	if !is {
		return false
	}
	switch r.Method {
	case "elicitation/create":
		_, is = given["action"].(string)
	case "sampling/createMessage":
		is = given["role"] != nil && given["content"] != nil
	default:
		_, is = given["roots"].([]any)
	}
	return is
}

// advance is one step: what is still to be answered and the state to keep, or the text when the dialog is over.
func (d *dialog) advance(arguments, declared map[string]any, kept state, responses map[string]any) (map[string]request, state, string) {
	asked := func() map[string]request {
		found := map[string]request{}
		for key, each := range d.Rounds[kept.Round] {
			if !d.DeclaredOnly || each.allowed(declared) {
				found[key] = each
			}
		}
		return found
	}
	complete := true
	for key, each := range asked() {
		complete = complete && each.answers(responses[key])
	}
	answers := map[string]any{}
	for key, answer := range kept.Answers {
		answers[key] = answer
	}
	if complete {
		for key := range asked() {
			answers[key] = responses[key]
		}
		kept.Round++
	}
	kept.Answers = answers
	values := map[string]any{"arguments": arguments}
	if kept.Round == len(d.Rounds) {
		for key, answer := range answers {
			values[key] = answer
		}
		return nil, kept, filled(d.Text, values)
	}
	open := asked()
	for key, each := range open {
		params, _ := filledDeep(each.Params, values).(map[string]any)
		open[key] = request{each.Method, params}
	}
	return open, kept, ""
}

var placeholder = regexp.MustCompile(`\{[a-z0-9_.]+\}`)

// filled replaces {a.b} by that value: strings as they are, anything else as JSON, what is missing by nothing.
func filled(template string, values map[string]any) string {
	return placeholder.ReplaceAllStringFunc(template, func(found string) string {
		var at any = values
		for _, part := range strings.Split(strings.Trim(found, "{}"), ".") {
			within, _ := at.(map[string]any)
			at = within[part]
		}
		switch value := at.(type) {
		case string:
			return value
		case nil:
			return ""
		}
		text, _ := json.Marshal(at)
		return string(text)
	})
}

func filledDeep(value any, values map[string]any) any {
	switch value := value.(type) {
	case string:
		return filled(value, values)
	case []any:
		done := make([]any, len(value))
		for i, part := range value {
			done[i] = filledDeep(part, values)
		}
		return done
	case map[string]any:
		done := make(map[string]any, len(value))
		for key, part := range value {
			done[key] = filledDeep(part, values)
		}
		return done
	}
	return value
}

var sealKey = func() []byte {
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	return key
}()

func signature(payload string) string {
	mac := hmac.New(sha256.New, sealKey)
	mac.Write([]byte(payload))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// seal makes a string that cannot be changed by whoever carries it.
func seal(kept state) string {
	text, _ := json.Marshal(kept)
	payload := base64.RawURLEncoding.EncodeToString(text)
	return payload + "." + signature(payload)
}

// unseal gives the state of a string made by seal; an empty one is the beginning.
func unseal(sealed string) (state, error) {
	var kept state
	if sealed == "" {
		return kept, nil
	}
	payload, given, _ := strings.Cut(sealed, ".")
	if !hmac.Equal([]byte(signature(payload)), []byte(given)) {
		return kept, errors.New("not our state")
	}
	text, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		return kept, err
	}
	return kept, json.Unmarshal(text, &kept)
}
